"""Depth-wise convolutions over columns, input-stationary: every vector is read once and used for all of its taps.

The window of a tile is the tile's own panel with a ring around it. Vectors of the ring come from other panels, their
lanes moved by one permute where they cross subimages; no buffer is filled. With 32 registers the accumulators of a tile,
the weights of 3x3 taps and the vectors at hand stay in registers, so the multiply-adds do not wait for loads.
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
    "panels",
    "chunks",
    "chunk",  # first channel of each chunk
    "channels",
    "image",  # elements between images
    "ring",  # per panel and vector of the ring: element of its source, lane index
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
    origin : tuple of int
        Row and column of the window that lie on the output pixel: the padding above and on the left.
    activation : str
        Kind of the epilogue's activation.
    filled : bool
        Whether the image fills its subimages; otherwise the panel's own vectors hold pixels outside of it, which are
        cleared like those of the ring.
    """

    tile: tuple[int, int]
    kernel: tuple[int, int]
    origin: tuple[int, int]
    activation: str = "clip"
    filled: bool = True

    def symbol(self, isa: Isa) -> str:
        """Name of the compiled function."""
        (rows, columns), (kh, kw), (top, left) = self.tile, self.kernel, self.origin
        shape = f"{rows}x{columns}_k{kh}x{kw}_p{top}x{left}{'' if self.filled else '_partly'}"
        return f"tvm_sparse_depthwise_columns_{shape}_{self.activation}_{isa.name}"

    def ring(self) -> list[tuple[int, int]]:
        """Rows and columns of the window's vectors that the table gives, in its order."""
        return [place for place in self._window() if not self._is_own(*place)]

    def build(self, isa: Isa) -> PrimFunc:
        """Build the kernel: ``(x, values, numbers, table, y)``; values are ``[M][taps]``."""
        arguments = [("x", 4, "float32"), ("values", 1, "float32"), ("numbers", 1, "float32")]
        arguments += [("table", 1, "int32"), ("y", 4, "float32")]
        return build_function(self.symbol(isa), arguments, isa.lanes, lambda *flats: self._body(isa, *flats))

    def _window(self) -> list[tuple[int, int]]:
        height, width = (t + k - 1 for t, k in zip(self.tile, self.kernel, strict=True))
        return [(gy, gx) for gx in range(width) for gy in range(height)]

    def _is_own(self, gy: int, gx: int) -> bool:
        return self.filled and 0 <= gy - self.origin[0] < self.tile[0] and 0 <= gx - self.origin[1] < self.tile[1]

    def _body(self, isa: Isa, x: Flat, values: Flat, numbers: Flat, table_buffer: Flat, y: Flat) -> None:
        table = TableReader(table_buffer, FIELDS)
        elements = self.tile[0] * self.tile[1] * isa.lanes
        ring = self.ring()
        with T.parallel(0, table.scalar("tasks")) as task:
            chunk = T.bind(T.truncmod(task, table.scalar("chunks")))
            place = T.bind(T.truncdiv(task, table.scalar("chunks")))
            panel = T.bind(T.truncmod(place, table.scalar("panels")))
            image = T.bind(as_long(T.truncdiv(place, table.scalar("panels")) * table.scalar("image")))
            own = T.bind(image + as_long(panel * table.scalar("channels") * elements))
            first = T.bind(table.at("chunk", chunk))
            count = T.bind(table.at("chunk", chunk + 1) - first)
            at = T.bind(panel * (len(ring) * 2))
            sources = [T.bind(image + as_long(table.at("ring", at + 2 * i))) for i in range(len(ring))]
            indices = [T.bind(table.at("ring", at + 2 * i + 1)) for i in range(len(ring))]
            with T.serial(0, count) as number:
                channel = T.bind(first + number)
                self._channel(
                    isa, table, x, values, numbers, y, channel, own, dict(zip(ring, zip(sources, indices)))
                )  # fmt: skip

    def _channel(
        self, isa: Isa, table: TableReader, x: Flat, values: Flat, numbers: Flat, y: Flat, channel, own, ring: dict
    ) -> None:  # fmt: skip
        lanes, (rows, columns), (kh, kw) = isa.lanes, self.tile, self.kernel
        accumulators = registers(rows * columns, lanes)
        start = T.bind(broadcast(numbers[channel], lanes))
        for accumulator in accumulators:
            accumulator.set(start)
        shift = T.bind(as_long(channel * (rows * columns * lanes)))
        mine = T.bind(own + shift)
        first = T.bind(channel * (kh * kw))
        weights = [T.bind(broadcast(values[first + t], lanes)) for t in range(kh * kw)]
        outside = constant(0.0, lanes)
        for gy, gx in self._window():
            if self._is_own(gy, gx):
                number = (gx - self.origin[1]) * rows + gy - self.origin[0]
                vector = T.bind(x.load_vector(mine + number * lanes))
            else:
                source, index = ring[gy, gx]
                moved = merge_lanes(isa, outside, table.vector("lanes", index), x.load_vector(source + shift))
                vector = T.bind(moved)
            for ky in range(kh):
                for kx in range(kw):
                    r, v = gy - ky, gx - kx
                    if 0 <= r < rows and 0 <= v < columns:
                        accumulator = accumulators[v * rows + r]
                        accumulator.set(accumulator.value + weights[ky * kw + kx] * vector)
        channels = table.scalar("channels")
        for s, accumulator in enumerate(accumulators):
            value = emit_activation(self.activation, accumulator.value, numbers, channels, channel, lanes)
            y.store_vector(mine + s * lanes, value)
