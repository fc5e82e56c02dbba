"""Depth-wise convolutions over columns, input-stationary: every vector is read once and used for all of its taps.

The window of a tile is the tile's own panel (with a stride: the pixels of its own subimages) with a ring around it.
Vectors of the ring come from other panels, their lanes moved by one permute where they cross subimages; no buffer is
filled.
With 32 registers the accumulators of a tile, the weights of 3x3 taps and the vectors at hand stay in registers, so the
multiply-adds do not wait for loads.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T
from tvm.tirx import PrimFunc

from .epilogue import emit_activation
from .ir import Flat, TableReader, as_long, broadcast, build_function, constant, registers
from .isa import Isa
from .lanes import merge_lanes

FIELDS = (
    "tasks",
    "panels",  # that are written in an image
    "chunks",
    "chunk",  # first channel of each chunk
    "channels",
    "input_image",  # elements between images
    "output_image",
    "input_channel",  # elements between channels
    "own",  # per panel: its first element in the image that is read; used where its own vectors are, without a stride
    "output",  # per panel: its first element in the image that is written
    "ring",  # per panel and vector that is not simply the panel's: element of its source, lane index
    "lanes",
)


@dataclass(frozen=True)
class DepthwiseColumns:
    """A kernel of the family.

    Parameters
    ----------
    tile : tuple of int
        Rows and columns ``(R, V)`` of a panel.
    kernel : tuple of int
        Taps down and across.
    stride : tuple of int
        Stride down and across.
    origin : tuple of int
        Row and column of the window that lie on the panel's first pixel: the padding above and on the left.
    activation : str
        Kind of the epilogue's activation.
    own : bool
        Whether the vectors of the panel's own subimages are read as they are: where the image fills them, so that they
        hold no pixels outside of it, and with a stride those that are read have the same lanes as those written.
    """

    tile: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    origin: tuple[int, int]
    activation: str = "clip"
    own: bool = True

    def symbol(self, isa: Isa) -> str:
        """Name of the compiled function."""
        (rows, columns), (kh, kw), (sy, sx), (top, left) = self.tile, self.kernel, self.stride, self.origin
        shape = f"{rows}x{columns}_k{kh}x{kw}"
        if self.stride != (1, 1) or not self.own:
            shape += f"_s{sy}x{sx}"
        if self.own:
            shape += f"_p{top}x{left}"
        return f"tvm_sparse_depthwise_columns_{shape}_{self.activation}_{isa.name}"

    def ring(self) -> list[tuple[int, int]]:
        """Rows and columns of the window's vectors that the table gives, in its order."""
        return [place for place in self._window() if not (self._in_place and self._is_own(*place))]

    def build(self, isa: Isa) -> PrimFunc:
        """Build the kernel: ``(x, values, numbers, table, y)``; values are ``[M][taps]``."""
        arguments = [("x", 4, "float32"), ("values", 1, "float32"), ("numbers", 1, "float32")]
        arguments += [("table", 1, "int32"), ("y", 4, "float32")]
        return build_function(self.symbol(isa), arguments, isa.lanes, lambda *flats: self._body(isa, *flats))

    def _window(self) -> list[tuple[int, int]]:
        height, width = (
            (t - 1) * s + k for t, s, k in zip(self.tile, self.stride, self.kernel, strict=True)
        )
        places = [(gy, gx) for gx in range(width) for gy in range(height)]
        return [place for place in places if self._uses(*place)]

    def _uses(self, gy: int, gx: int) -> list[tuple[int, int]]:
        """Accumulators and taps ``(vector, tap)`` of a vector of the window."""
        (rows, columns), (kh, kw), (sy, sx) = self.tile, self.kernel, self.stride
        uses = []
        for ky in range(kh):
            for kx in range(kw):
                (r, rest_y), (v, rest_x) = divmod(gy - ky, sy), divmod(gx - kx, sx)
                if 0 <= r < rows and 0 <= v < columns and not rest_y and not rest_x:
                    uses.append((v * rows + r, ky * kw + kx))
        return uses

    @property
    def _in_place(self) -> bool:
        """Whether the own vectors are the panel that is written, in its order."""
        return self.own and self.stride == (1, 1)

    def _is_own(self, gy: int, gx: int) -> bool:
        height, width = (t * s for t, s in zip(self.tile, self.stride, strict=True))
        return self.own and 0 <= gy - self.origin[0] < height and 0 <= gx - self.origin[1] < width

    def _body(self, isa: Isa, x: Flat, values: Flat, numbers: Flat, table_buffer: Flat, y: Flat) -> None:
        table = TableReader(table_buffer, FIELDS)
        ring = self.ring()
        with T.parallel(0, table.scalar("tasks")) as task:
            chunk = T.bind(T.truncmod(task, table.scalar("chunks")))
            place = T.bind(T.truncdiv(task, table.scalar("chunks")))
            panel = T.bind(T.truncmod(place, table.scalar("panels")))
            number = T.bind(T.truncdiv(place, table.scalar("panels")))
            image = T.bind(as_long(number * table.scalar("input_image")))
            own = T.bind(image + as_long(table.at("own", panel))) if self._in_place else image
            output = T.bind(as_long(number * table.scalar("output_image") + table.at("output", panel)))
            first = T.bind(table.at("chunk", chunk))
            count = T.bind(table.at("chunk", chunk + 1) - first)
            at = T.bind(panel * (len(ring) * 2))
            sources = [T.bind(image + as_long(table.at("ring", at + 2 * i))) for i in range(len(ring))]
            indices = [T.bind(table.at("ring", at + 2 * i + 1)) for i in range(len(ring))]
            moved = dict(zip(ring, zip(sources, indices, strict=True), strict=True))
            with T.serial(0, count) as number:
                channel = T.bind(first + number)
                self._channel(isa, table, x, values, numbers, y, channel, own, output, moved)

    def _channel(
        self, isa: Isa, table: TableReader, x: Flat, values: Flat, numbers: Flat, y: Flat, channel, own, output,
        moved: dict,
    ) -> None:  # fmt: skip
        lanes, (rows, columns), (kh, kw) = isa.lanes, self.tile, self.kernel
        accumulators = registers(rows * columns, lanes)
        start = T.bind(broadcast(numbers[channel], lanes))
        for accumulator in accumulators:
            accumulator.set(start)
        shift = T.bind(as_long(channel * table.scalar("input_channel")))
        step = as_long(channel * (rows * columns * lanes))
        mine, target = T.bind(own + step), T.bind(output + step)
        first = T.bind(channel * (kh * kw))
        weights = [T.bind(broadcast(values[first + t], lanes)) for t in range(kh * kw)]
        outside = constant(0.0, lanes)
        for gy, gx in self._window():
            if (gy, gx) not in moved:
                number = (gx - self.origin[1]) * rows + gy - self.origin[0]
                vector = T.bind(x.load_vector(mine + number * lanes))
            else:
                source, index = moved[gy, gx]
                vector = T.bind(x.load_vector(source + shift))
                if not self._is_own(gy, gx):
                    vector = T.bind(merge_lanes(isa, outside, table.vector("lanes", index), vector))
            for s, tap in self._uses(gy, gx):
                accumulators[s].set(accumulators[s].value + weights[tap] * vector)
        channels = table.scalar("channels")
        for s, accumulator in enumerate(accumulators):
            value = emit_activation(self.activation, accumulator.value, numbers, channels, channel, lanes)
            y.store_vector(target + s * lanes, value)
