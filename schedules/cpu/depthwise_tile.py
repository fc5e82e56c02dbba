"""The register tile of depth-wise convolutions over columns, input-stationary: a vector is read once for all its taps.

The window of a tile is the tile's own panel (with a stride: the pixels of its own subimages) with a ring around it.
Vectors of the ring come from other panels, their lanes moved by one permute where they cross subimages; no buffer is
filled. What is the same for all panels (which vectors come from one panel, which lanes move alike) is known when the
code is made, so that addresses and lane indices are few and stay in registers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

from tvm.script.ir_builder import tirx as T

from tvm_sparse.layout.ring import Place

from .epilogue import emit_activation
from .ir import Flat, TableReader, as_long, broadcast, constant, registers
from .isa import Isa
from .lanes import merge_lanes

# Fields that say where the windows of panels are, in the tables of all kernels that have such a tile.
WINDOW_FIELDS = (
    "channels",
    "base",  # per panel and base: its element in the image that is read
    "lane",  # per panel and move of lanes: element of the lane index
    "lanes",
)

# Taps whose weights stay in registers; of more only those of some rows.
_RESIDENT_TAPS = 9


def window_of_tile(
    tile: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int]
) -> tuple[tuple[int, int], ...]:
    """Rows and columns of the vectors that a tile's window holds, in the order that they are read."""
    height, width = ((t - 1) * s + k for t, s, k in zip(tile, stride, kernel, strict=True))
    if tile[0] == 1 or kernel[0] * kernel[1] > _RESIDENT_TAPS:
        # Row by row: the weights of a row of taps serve a row of the tile and are not needed any more.
        places = [(gy, gx) for gy in range(height) for gx in range(width)]
    else:
        places = [(gy, gx) for gx in range(width) for gy in range(height)]
    return tuple(place for place in places if _uses(tile, kernel, stride, *place))


def _uses(
    tile: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int], gy: int, gx: int
) -> list[tuple[int, int]]:
    """Accumulators and taps ``(vector, tap)`` of a vector of the window."""
    (rows, columns), (kh, kw), (sy, sx) = tile, kernel, stride
    uses = []
    for ky in range(kh):
        for kx in range(kw):
            (r, rest_y), (v, rest_x) = divmod(gy - ky, sy), divmod(gx - kx, sx)
            if 0 <= r < rows and 0 <= v < columns and not rest_y and not rest_x:
                uses.append((v * rows + r, ky * kw + kx))
    return uses


@dataclass(frozen=True)
class PanelWindow:
    """Where the window of a panel is, as expressions.

    Parameters
    ----------
    bases : list
        First element of each base.
    moves : list
        Lane indices, vectors.
    """

    bases: list
    moves: list


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
    places : tuple of Place
        Where the vectors of the window come from, in the order of `window_of_tile`.
    activation : str
        Kind of the epilogue's activation.
    """

    tile: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    places: tuple[Place, ...]
    activation: str = "clip"

    @property
    def name(self) -> str:
        """Name in symbols; the places are in its last part."""
        (rows, columns), (kh, kw), (sy, sx) = self.tile, self.kernel, self.stride
        key = ",".join(f"{p.base}:{p.vector}:{'' if p.lane is None else p.lane}" for p in self.places)
        step = "" if self.stride == (1, 1) else f"_s{sy}x{sx}"
        return f"{rows}x{columns}_k{kh}x{kw}{step}_{sha256(key.encode()).hexdigest()[:8]}_{self.activation}"

    def window_of(self, table: TableReader, image, panel) -> PanelWindow:
        """Emit where the window of a panel is, in the image whose first element is `image`."""
        bases = 1 + max(place.base for place in self.places)
        moves = 1 + max((place.lane for place in self.places if place.lane is not None), default=-1)
        return PanelWindow(
            [T.bind(image + as_long(table.at("base", panel * bases + i))) for i in range(bases)],
            [T.bind(table.vector("lanes", table.at("lane", panel * moves + i))) for i in range(moves)],
        )

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
        lanes, taps = isa.lanes, self.kernel[0] * self.kernel[1]
        accumulators = registers(self.tile[0] * self.tile[1], lanes)
        start = T.bind(broadcast(numbers[channel], lanes))
        for accumulator in accumulators:
            accumulator.set(start)
        shift = T.bind(as_long(channel * table.scalar("input_channel")))
        bases = [T.bind(base + shift) for base in window.bases]
        first = T.bind(channel * taps)
        weights: dict[int, object] = {}
        read: dict[tuple[int, int], object] = {}
        outside = constant(0.0, lanes)
        for (gy, gx), place in zip(window_of_tile(self.tile, self.kernel, self.stride), self.places, strict=True):
            source = (place.base, place.vector)
            if source not in read or not self._keeps_sources(isa):
                read[source] = T.bind(x.load_vector(bases[place.base] + place.vector * lanes))
            vector = read[source]
            if place.lane is not None:
                vector = T.bind(merge_lanes(isa, outside, window.moves[place.lane], vector))
            for s, tap in _uses(self.tile, self.kernel, self.stride, gy, gx):
                if tap not in weights:
                    weights[tap] = T.bind(broadcast(values[first + tap], lanes))
                accumulators[s].set(accumulators[s].value + weights[tap] * vector)
        channels = table.scalar("channels")
        for s, accumulator in enumerate(accumulators):
            store(s, emit_activation(self.activation, accumulator.value, numbers, channels, channel, lanes))

    def _keeps_sources(self, isa: Isa) -> bool:
        """Whether all vectors that the window is made of fit the registers; else they are read each time."""
        sources = len({(place.base, place.vector) for place in self.places})
        moves = len({place.lane for place in self.places} - {None})
        weights = self.kernel[1] * min(self.tile[0], self.kernel[0])
        return self.tile[0] * self.tile[1] + sources + moves + weights + 1 <= isa.registers
