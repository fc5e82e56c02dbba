"""Normalisation over the channels of columns: every lane is a pixel with sums of its own.

One pass takes the sums of the differences from a provisional mean and of their squares, a second one normalises. The
provisional mean, of the first channels, lies within a few standard deviations of the mean whatever the data, so that
the variance loses no digits to cancellation as a plain sum of squares would: with `b` of `n` channels the rounding
grows by ``n / b`` at most.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.script.ir_builder import tirx as T
from tvm.tirx import PrimFunc

from .ir import Flat, Register, TableReader, as_long, broadcast, build_function, constant, registers
from .isa import Isa

FIELDS = ("panels", "vectors", "channels", "first")
# Numbers of the layer: what is added to the variance, and the reciprocal counts of all and of the first channels.
NUMBERS = ("epsilon", "per_channel", "per_first")
# Channels of the provisional mean.
FIRST = 8
# Vectors that a task normalises at once: their sums and the numbers of a channel fit 16 registers.
_WIDTH = 4


@dataclass(frozen=True)
class NormColumns:
    """A kernel of the family, for panels of any size.

    Parameters
    ----------
    centred : bool
        Whether the mean is subtracted (layer normalisation) or not (root mean square).
    """

    centred: bool = True

    @property
    def shared_argument(self) -> int:
        """Position of the argument that the output may overwrite: a channel is read before it is stored."""
        return 0

    def symbol(self, isa: Isa) -> str:
        """Name of the compiled function."""
        return f"tvm_sparse_{'layer' if self.centred else 'rms'}_norm_columns_{isa.name}"

    def build(self, isa: Isa) -> PrimFunc:
        """Build the kernel: ``(x, scale, shift, numbers, table, y)``; scale and shift ``[channels]``."""
        arguments = [("x", 4, "float32")]
        arguments += [(name, 1, "float32") for name in ("scale", "shift", "numbers")]
        arguments += [("table", 1, "int32"), ("y", 4, "float32")]
        return build_function(self.symbol(isa), arguments, isa.lanes, lambda *flats: self._body(isa, *flats))

    def _body(
        self, isa: Isa, x: Flat, scale: Flat, shift: Flat, numbers: Flat, table_buffer: Flat, y: Flat
    ) -> None:  # fmt: skip
        table, lanes = TableReader(table_buffer, FIELDS), isa.lanes
        vectors = table.scalar("vectors")
        pieces = T.truncdiv(vectors + (_WIDTH - 1), _WIDTH)
        with T.parallel(0, table.scalar("panels") * pieces) as task:
            panel = T.bind(T.truncdiv(task, pieces))
            piece = T.bind(T.truncmod(task, pieces))
            first = T.bind(T.truncdiv(piece * vectors, pieces))
            count = T.bind(T.truncdiv((piece + 1) * vectors, pieces) - first)
            pitch = T.bind(vectors * lanes)
            start = T.bind(as_long(panel * table.scalar("channels") * pitch + first * lanes))
            for width in range(1, _WIDTH + 1):
                with T.If(count == width):
                    with T.Then():
                        self._piece(width, lanes, table, x, scale, shift, numbers, y, start, pitch)

    def _piece(
        self, width: int, lanes: int, table: TableReader, x: Flat, scale: Flat, shift: Flat, numbers: Flat, y: Flat,
        start, pitch,
    ) -> None:  # fmt: skip
        """Normalise `width` vectors of a panel."""
        channels = T.bind(table.scalar("channels"))
        middle, total, squares = (registers(width, lanes) for _ in range(3))
        for register in (*middle, *total, *squares):
            register.set(constant(0.0, lanes))

        def load(c) -> list:
            at = T.bind(start + as_long(c * pitch))
            return [T.bind(x.load_vector(at + s * lanes)) for s in range(width)]

        if self.centred:
            with T.serial(0, table.scalar("first")) as c:
                for register, value in zip(middle, load(c), strict=True):
                    register.set(register.value + value)
            for register in middle:
                register.set(register.value * _number(numbers, "per_first", lanes))
        with T.serial(0, channels) as c:
            for s, value in enumerate(load(c)):
                if self.centred:
                    value = T.bind(value - middle[s].value)
                    total[s].set(total[s].value + value)
                squares[s].set(squares[s].value + value * value)
        self._statistics(lanes, numbers, middle, total, squares)
        with T.serial(0, channels) as c:
            at = T.bind(start + as_long(c * pitch))
            factor = T.bind(broadcast(scale[c], lanes))
            addend = T.bind(broadcast(shift[c], lanes))
            for s, value in enumerate(load(c)):
                normal = value * squares[s].value
                if self.centred:
                    normal = normal + total[s].value
                y.store_vector(at + s * lanes, T.bind(normal) * factor + addend)

    def _statistics(
        self, lanes: int, numbers: Flat, middle: list[Register], total: list[Register], squares: list[Register]
    ) -> None:  # fmt: skip
        """Turn the squares into the reciprocal deviation, the totals into what is added to the scaled value."""
        per_channel = T.bind(_number(numbers, "per_channel", lanes))
        for shifted, mean, deviation in zip(middle, total, squares, strict=True):
            offset = T.bind(mean.value * per_channel)
            variance = deviation.value * per_channel - offset * offset
            variance = T.max(variance, constant(0.0, lanes)) + _number(numbers, "epsilon", lanes)
            deviation.set(constant(1.0, lanes) / tirx.sqrt(variance))
            mean.set(constant(0.0, lanes) - (shifted.value + offset) * deviation.value)


def _number(numbers: Flat, name: str, lanes: int):
    return broadcast(numbers[NUMBERS.index(name)], lanes)
