"""The register tile of depth-wise convolutions over columns, input-stationary: a vector is read once for all its taps.

The window of a tile is the tile's own panel (with a stride: the pixels of its own subimages) with a ring around it.
Vectors of the ring come from other panels, their lanes moved by one permute where they cross subimages; no buffer is
filled.
With 32 registers the accumulators of a tile, the weights of 3x3 taps and the vectors at hand stay in registers, so the
multiply-adds do not wait for loads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T

from .epilogue import emit_activation
from .ir import Flat, TableReader, as_long, broadcast, constant, registers
from .isa import Isa
from .lanes import merge_lanes

# Fields that say where the windows of panels are, in the tables of all kernels that have such a tile.
WINDOW_FIELDS = (
    "channels",
    "own",  # per panel: its first element in the image that is read; used where its own vectors are, without a stride
    "ring",  # per panel and vector that is not simply the panel's: element of its source, lane index
    "lanes",
)

# Taps whose weights stay in registers; of more only those of some rows.
_RESIDENT_TAPS = 9


@dataclass(frozen=True)
class PanelWindow:
    """Where the window of a panel is, as expressions.

    Parameters
    ----------
    own : expression
        First element of the panel, where its vectors are read as they are.
    moved : dict
        By row and column of the other vectors: the first element of the source, and that of its lane index.
    """

    own: object
    moved: dict


@dataclass(frozen=True)
class DepthwiseTile:
    """A depth-wise convolution of one panel.

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

    @property
    def name(self) -> str:
        """Name in symbols."""
        (rows, columns), (kh, kw), (sy, sx), (top, left) = self.tile, self.kernel, self.stride, self.origin
        shape = f"{rows}x{columns}_k{kh}x{kw}"
        if self.stride != (1, 1) or not self.own:
            shape += f"_s{sy}x{sx}"
        if self.own:
            shape += f"_p{top}x{left}"
        return f"{shape}_{self.activation}"

    def ring(self) -> list[tuple[int, int]]:
        """Rows and columns of the window's vectors that the table gives, in its order."""
        return [place for place in self._window() if not (self._in_place and self._is_own(*place))]

    def window_of(self, table: TableReader, image, panel) -> PanelWindow:
        """Emit where the window of a panel is, in the image whose first element is `image`."""
        ring = self.ring()
        own = T.bind(image + as_long(table.at("own", panel))) if self._in_place else image
        at = T.bind(panel * (len(ring) * 2))
        sources = [T.bind(image + as_long(table.at("ring", at + 2 * i))) for i in range(len(ring))]
        indices = [T.bind(table.at("ring", at + 2 * i + 1)) for i in range(len(ring))]
        return PanelWindow(own, dict(zip(ring, zip(sources, indices, strict=True), strict=True)))

    def channel(
        self, isa: Isa, table: TableReader, x: Flat, values: Flat, numbers: Flat, window: PanelWindow, channel,
        store: Callable[[int, object], None],
    ) -> None:  # fmt: skip
        """Emit one channel of a panel.

        Parameters
        ----------
        isa : Isa
            Instruction set.
        table : TableReader
            Table with `WINDOW_FIELDS` and the driver's ``input_channel``.
        x, values, numbers : Flat
            The input, the weights ``[M][taps]``, bias and parameters of the activation.
        window : PanelWindow
            Where the window is.
        channel : expression
            The channel.
        store : callable
            Emits the store of a vector of the result, given its number in the panel and its value.
        """
        lanes, (rows, columns), (kh, kw) = isa.lanes, self.tile, self.kernel
        accumulators = registers(rows * columns, lanes)
        start = T.bind(broadcast(numbers[channel], lanes))
        for accumulator in accumulators:
            accumulator.set(start)
        shift = T.bind(as_long(channel * table.scalar("input_channel")))
        mine = T.bind(window.own + shift)
        first = T.bind(channel * (kh * kw))
        weights: dict[int, object] = {}
        outside = constant(0.0, lanes)
        for gy, gx in self._window():
            if (gy, gx) not in window.moved:
                number = (gx - self.origin[1]) * rows + gy - self.origin[0]
                vector = T.bind(x.load_vector(mine + number * lanes))
            else:
                source, index = window.moved[gy, gx]
                vector = T.bind(x.load_vector(source + shift))
                if not self._is_own(gy, gx):
                    vector = T.bind(merge_lanes(isa, outside, table.vector("lanes", index), vector))
            for s, tap in self._uses(gy, gx):
                if tap not in weights:
                    weights[tap] = T.bind(broadcast(values[first + tap], lanes))
                accumulators[s].set(accumulators[s].value + weights[tap] * vector)
        channels = table.scalar("channels")
        for s, accumulator in enumerate(accumulators):
            store(s, emit_activation(self.activation, accumulator.value, numbers, channels, channel, lanes))

    def _window(self) -> list[tuple[int, int]]:
        height, width = (
            (t - 1) * s + k for t, s, k in zip(self.tile, self.stride, self.kernel, strict=True)
        )
        if self.tile[0] == 1 or self.kernel[0] * self.kernel[1] > _RESIDENT_TAPS:
            # Row by row: the weights of a row of taps serve a row of the tile and are not needed any more.
            places = [(gy, gx) for gy in range(height) for gx in range(width)]
        else:
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
