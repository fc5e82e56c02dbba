"""Linear layers of few rows (batch 1): weights are read once, straight from memory.

Dense: some outputs at a time, their weights interleaved as ``[k][outputs]``; each input is broadcast. Sparse: rows of
values and 16-bit columns, padded to whole vectors; the inputs are gathered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T
from tvm.tirx import PrimFunc

from .epilogue import emit_activation
from .ir import Flat, Register, TableReader, as_long, broadcast, build_function, constant, intrinsic, registers
from .isa import Isa

DENSE_FIELDS = ("rows", "depth", "outputs", "strips")
SPARSE_FIELDS = ("rows", "depth", "outputs", "strips", "pointers")

# Vectors of outputs that a strip computes together.
STRIP_VECTORS = 8


def row_arguments(rank: int, residual: bool, *constants: tuple[str, int, str]) -> list[tuple[str, int, str]]:
    """Arguments of a kernel: inputs, its own constants, and what all have."""
    inputs = [("x", rank, "float32"), ("residual", rank, "float32")][: 2 if residual else 1]
    return [*inputs, *constants, ("numbers", 1, "float32"), ("table", 1, "int32"), ("y", rank, "float32")]


@dataclass(frozen=True)
class DenseRows:
    """Dense linear layer on ``[..., K]``, a few rows.

    Parameters
    ----------
    rank : int
        Rank of input and output.
    activation : str
        Kind of the activation.
    residual : bool
        Whether a tensor of the output's shape is added before the activation.
    """

    rank: int
    activation: str = "clip"
    residual: bool = False

    def symbol(self, isa: Isa) -> str:
        """Name of the compiled function."""
        suffix = "_residual" if self.residual else ""
        return f"tvm_sparse_dense_rows_{self.rank}d_{self.activation}{suffix}_{isa.name}"

    def build(self, isa: Isa) -> PrimFunc:
        """Build the kernel: ``(x[, residual], values, numbers, table, y)``."""
        arguments = row_arguments(self.rank, self.residual, ("values", 1, "float32"))
        return build_function(self.symbol(isa), arguments, isa.lanes, lambda *flats: self._body(isa, *flats))

    def _body(self, isa: Isa, source: Flat, *rest: Flat) -> None:
        residual = rest[0] if self.residual else None
        values, numbers, table_buffer, output = rest[-4:]
        table, lanes = TableReader(table_buffer, DENSE_FIELDS), isa.lanes
        width = STRIP_VECTORS * lanes
        with T.parallel(0, table.scalar("strips")) as strip:
            depth, outputs = T.bind(table.scalar("depth")), T.bind(table.scalar("outputs"))
            scratch = Flat(T.alloc_buffer((STRIP_VECTORS * lanes,), "float32", scope="global"), lanes)
            with T.serial(0, table.scalar("rows")) as row:
                accumulators = registers(STRIP_VECTORS, lanes)
                for accumulator in accumulators:
                    accumulator.set(constant(0.0, lanes))
                base = T.bind(strip * depth * width)
                with T.serial(0, depth) as k:
                    x = T.bind(broadcast(source[row * depth + k], lanes))
                    for v, accumulator in enumerate(accumulators):
                        weight = values.load_vector(base + k * width + v * lanes)
                        accumulator.set(accumulator.value + x * weight)
                for v, accumulator in enumerate(accumulators):
                    scratch.store_vector(v * lanes, accumulator.value)
                channel = T.bind(strip * width)
                count = T.bind(T.min(outputs - channel, T.int32(width)))
                at = T.bind(row * outputs + channel)
                _finish(self.activation, scratch, T.int32(0), at, channel, count, outputs, numbers, residual, output)


@dataclass(frozen=True)
class SparseRows:
    """Unstructured sparse linear layer on ``[..., K]``, a few rows; parameters as in :class:`DenseRows`.

    Parameters
    ----------
    gather : bool
        Whether inputs are gathered by an instruction, `lanes` at once; otherwise four are loaded one by one.
    """

    rank: int
    activation: str = "clip"
    residual: bool = False
    gather: bool = False

    def symbol(self, isa: Isa) -> str:
        """Name of the compiled function."""
        suffix = ("_gather" if self.gather else "") + ("_residual" if self.residual else "")
        return f"tvm_sparse_sparse_rows_{self.rank}d_{self.activation}{suffix}_{isa.name}"

    def build(self, isa: Isa) -> PrimFunc:
        """Build the kernel: ``(x[, residual], values, columns, numbers, table, y)``; columns are packed in fours."""
        arguments = row_arguments(
            self.rank, self.residual, ("values", 1, "float32"), ("columns", 1, "uint16" if self.gather else "int64")
        )
        return build_function(self.symbol(isa), arguments, isa.lanes, lambda *flats: self._body(isa, *flats))

    def _body(self, isa: Isa, source: Flat, *rest: Flat) -> None:
        residual = rest[0] if self.residual else None
        values, columns, numbers, table_buffer, output = rest[-5:]
        table = TableReader(table_buffer, SPARSE_FIELDS)
        unit = row_unit(isa, self.gather)

        def multiply(row, channel) -> object:
            begin = T.bind(table.at("pointers", channel))
            steps = T.bind(T.shift_right(table.at("pointers", channel + 1) - begin, unit.bit_length() - 1))
            inputs = T.bind(row * table.scalar("depth"))
            sums = registers(_SUMS, unit)
            for partial in sums:
                partial.set(constant(0.0, unit))

            def step(number, partial: Register) -> None:
                at = T.bind(as_long(begin) + as_long(number) * unit)
                partial.set(
                    partial.value + values.buffer[T.Ramp(at, 1, unit)] * self._inputs(source, inputs, columns, at)
                )

            several = T.bind(T.truncdiv(steps, _SUMS))
            with T.serial(0, several) as i:
                for j, partial in enumerate(sums):
                    step(i * _SUMS + j, partial)
            with T.serial(0, steps - several * _SUMS) as i:
                step(several * _SUMS + i, sums[0])
            return add_lanes(sums, unit)

        emit_rows(self.activation, table, numbers, residual, output, multiply)

    def _inputs(self, source: Flat, inputs, columns: Flat, at):
        """Inputs of the next columns."""
        if self.gather:
            index = T.Cast("int32x16", columns.buffer[T.Ramp(at, 1, 16)])
            every = T.reinterpret("uint1x16", T.uint16(0xFFFF))
            name = "llvm.x86.avx512.mask.gather.dps.512"
            base = T.address_of(source[inputs])
            return intrinsic(name, constant(0.0, 16), base, index, every, T.int32(4), dtype="float32x16")
        four = T.bind(columns[T.shift_right(at, 2)])
        picked = [T.bitwise_and(T.shift_right(four, T.int64(16 * j)), T.int64(0xFFFF)) for j in range(4)]
        return T.Shuffle([source[as_long(inputs) + column] for column in picked], list(range(4)))


# Sums of a row that run side by side, so that the multiply-adds do not wait for each other.
_SUMS = 4


def can_gather(isa: Isa) -> bool:
    """Whether the CPU gathers fast: those of before bfloat16 do it under the mitigation of a vulnerability."""
    return isa.name == "avx512" and "avx512_bf16" in isa.features


def row_unit(isa: Isa, gather: bool) -> int:
    """Nonzeros that a sparse row's step multiplies; rows are padded to a multiple."""
    return isa.lanes if gather else 4


def emit_rows(
    activation: str, table: TableReader, numbers: Flat, residual: Flat | None, output: Flat,
    multiply: Callable[[object, object], object],
) -> None:  # fmt: skip
    """Emit the loops over outputs and rows of a sparse layer.

    Parameters
    ----------
    activation : str
        Kind of the activation.
    table : TableReader
        The layer's table, with `SPARSE_FIELDS`.
    numbers, output : Flat
        Numbers of the epilogue; where the results go.
    residual : Flat or None
        Added before the activation.
    multiply : callable
        Emits the sum of one row and output channel.
    """
    with T.parallel(0, table.scalar("strips")) as strip:
        outputs, strips = T.bind(table.scalar("outputs")), T.bind(table.scalar("strips"))
        size = T.bind(T.truncdiv(outputs + strips - 1, strips))
        count = T.bind(T.max(T.min(outputs - strip * size, size), T.int32(0)))
        with T.serial(0, count) as i:
            channel = T.bind(strip * size + i)
            # The weights of a channel come from memory once, for all rows.
            with T.serial(0, table.scalar("rows")) as row:
                output.store(row * outputs + channel, multiply(row, channel))
        with T.serial(0, table.scalar("rows")) as row:
            channel = T.bind(strip * size)
            at = T.bind(row * outputs + channel)
            _finish(activation, output, at, at, channel, count, outputs, numbers, residual, output)


def add_lanes(sums: Sequence[Register], lanes: int):
    """The sum of all lanes of some vectors."""
    values = [partial.value for partial in sums]
    while len(values) > 1:
        values = [T.bind(a + b) for a, b in zip(values[::2], values[1::2], strict=True)]
    (value,) = values
    while lanes > 1:
        lanes //= 2
        halves = [T.Shuffle([value], [first + i for i in range(lanes)]) for first in (0, lanes)]
        value = T.bind(halves[0] + halves[1])
    return value


def _finish(
    activation: str, sums: Flat, first, position, channel, count, outputs, numbers: Flat, residual: Flat | None,
    output: Flat,
) -> None:  # fmt: skip
    """Bias, residual, activation and store of `count` sums, from `first` on, whole vectors first."""

    def finish(i, lanes: int) -> None:
        load = (lambda flat, at: flat[at]) if lanes == 1 else Flat.load_vector
        total = load(sums, first + i) + load(numbers, channel + i)
        if residual is not None:
            total = total + load(residual, position + i)
        store = output.store if lanes == 1 else output.store_vector
        store(position + i, emit_activation(activation, T.bind(total), numbers, outputs, channel + i, lanes))

    lanes = output.lanes
    # A vector has one slope.
    whole = T.int32(0) if activation == "prelu" else T.bind(T.truncdiv(count, lanes))
    with T.serial(0, whole) as v:
        finish(v * lanes, lanes)
    with T.serial(0, count - whole * lanes) as i:
        finish(whole * lanes + i, 1)
