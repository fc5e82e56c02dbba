"""Register tiles over windows of columns, input-stationary: a vector is read once for all outputs that it is part of.

The window of a tile is the tile's own panel (with a stride: the pixels of its own subimages) with a ring around it.
Vectors of the ring come from other panels, their lanes moved by one permute where they cross subimages; no buffer is
filled. What is the same for all panels (which vectors come from one panel, which lanes move alike) is known when the
code is made, so that addresses and lane indices are few and stay in registers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from hashlib import sha256

from tvm.script.ir_builder import tirx as T

from tvm_sparse.layout.ring import Place

from .ir import Flat, TableReader, as_long, constant
from .isa import Isa
from .lanes import mask_lanes, merge_lanes, take_lanes

# Fields that say where the windows of panels are, in the tables of all kernels that have such a tile.
WINDOW_FIELDS = (
    "channels",
    "base",  # per panel and base: its element in the set that is read
    "lane",  # per panel and move of lanes: element of the lane index
    "lanes",
    "inner",  # per panel: 1 where no lane is moved
)
# Fields of kernels that compute every channel of every panel by such a tile.
PANEL_FIELDS = (
    "tasks",
    "panels",  # that are written in a set
    "chunks",
    "chunk",  # first channel of each chunk
    "input_set",  # elements between sets of images
    "output_set",
    "input_channel",  # elements between channels
    "output",  # per panel: its first element in the set that is written
    *WINDOW_FIELDS,
)

# Registers that hold all sums of a tile and the weights of some taps. Where there are fewer, sums are stored as soon as
# they are finished, and weights read each time.
MANY_REGISTERS = 32
# Taps whose weights stay in registers; of more only those of some rows.
_RESIDENT_TAPS = 9


def window_of_tile(
    tile: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int], registers: int
) -> tuple[tuple[int, int], ...]:
    """Rows and columns of the vectors that a tile's window holds, in the order that they are read.

    Parameters
    ----------
    tile, kernel, stride : tuple of int
        As of :class:`WindowTile`.
    registers : int
        Vector registers. Where they are few, fewest outputs are begun and not finished at any time.
    """
    height, width = ((t - 1) * s + k for t, s, k in zip(tile, stride, kernel, strict=True))
    if registers < MANY_REGISTERS:
        by_rows, by_columns = _open_outputs(tile, kernel, stride)
        row_by_row = by_rows < by_columns
    else:
        # Row by row: the weights of a row of taps serve a row of the tile and are not needed any more.
        row_by_row = tile[0] == 1 or kernel[0] * kernel[1] > _RESIDENT_TAPS
    if row_by_row:
        places = [(gy, gx) for gy in range(height) for gx in range(width)]
    else:
        places = [(gy, gx) for gx in range(width) for gy in range(height)]
    return tuple(place for place in places if _uses(tile, kernel, stride, *place))


def _open_outputs(tile: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int]) -> tuple[int, int]:
    """Outputs that are begun and not finished, at most, when the window is read by rows and by columns."""
    rows, columns = (min(t, -(-k // s)) for t, k, s in zip(tile, kernel, stride, strict=True))
    return rows * tile[1], columns * tile[0]


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
class Result:
    """Where the vectors of a panel's result are stored for one channel: an array and the first one's element."""

    array: Flat
    start: object

    def store(self, vector: int, value) -> None:
        """Emit the store of a vector."""
        self.array.store_vector(self.start + vector * self.array.lanes, value)


@dataclass(frozen=True)
class PanelWindow:
    """Where the window of a panel is, as expressions.

    Parameters
    ----------
    bases : list
        First element of each base.
    moves : list
        Lane indices, vectors; none where no lane is moved.
    """

    bases: list
    moves: list


@dataclass(frozen=True)
class WindowTile:
    """What is computed of one panel from the windows of its pixels, channel by channel.

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
    inner : bool
        Whether some panels have all lanes in their place: a loop of their own moves none.
    """

    tile: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    places: tuple[Place, ...]
    inner: bool = field(default=False, kw_only=True)

    @property
    def shape_name(self) -> str:
        """Name of the window in symbols; the places are in its last part."""
        (rows, columns), (kh, kw), (sy, sx) = self.tile, self.kernel, self.stride
        lanes = ("" if p.lane is None else f"{p.lane}{'s' * p.shifted}" for p in self.places)
        key = ",".join(f"{p.base}:{p.vector}:{lane}" for p, lane in zip(self.places, lanes, strict=True))
        step = "" if self.stride == (1, 1) else f"_s{sy}x{sx}"
        inner = "_inner" if self.inner else ""
        return f"{rows}x{columns}_k{kh}x{kw}{step}_{sha256(key.encode()).hexdigest()[:8]}{inner}"

    @property
    def vectors(self) -> int:
        """Vectors of a panel for one channel."""
        return self.tile[0] * self.tile[1]

    def sums(self, isa: Isa) -> int:
        """Registers that the outputs take."""
        if isa.registers >= MANY_REGISTERS:
            return self.vectors
        return min(_open_outputs(self.tile, self.kernel, self.stride))

    def window_of(self, table: TableReader, image, panel) -> PanelWindow:
        """Emit where the window of a panel is, in the image whose first element is `image`."""
        bases = 1 + max(place.base for place in self.places)
        moves = 1 + max((place.lane for place in self.places if place.lane is not None), default=-1)
        return PanelWindow(
            [T.bind(image + as_long(table.at("base", panel * bases + i))) for i in range(bases)],
            [T.bind(table.vector("lanes", table.at("lane", panel * moves + i))) for i in range(moves)],
        )

    def read(
        self, isa: Isa, table: TableReader, x: Flat, window: PanelWindow, channel, fill: float, registers: int
    ) -> Iterator[tuple[object, list[tuple[int, int]], list[int]]]:
        """Emit the reads of a channel's window.

        Yields each vector, the outputs and taps ``(vector, tap)`` that use it, and the outputs to be stored then: with
        few registers those that it finishes, otherwise all, after the last one.

        Parameters
        ----------
        isa : Isa
            Instruction set.
        table : TableReader
            Table with `WINDOW_FIELDS` and ``input_channel``.
        x : Flat
            The input.
        window : PanelWindow
            Where the window is.
        channel : expression
            The channel.
        fill : float
            Value of pixels outside of the image.
        registers : int
            Registers that the outputs and what they need hold meanwhile.
        """
        shift = T.bind(as_long(channel * table.scalar("input_channel")))
        bases = [T.bind(base + shift) for base in window.bases]
        outside = constant(fill, isa.lanes)
        # Where all vectors that the window is made of fit the registers they are read once, else each time.
        sources = len({(place.base, place.vector) for place in self.places})
        keeps = registers + sources + len(window.moves) + 1 <= isa.registers
        known: dict[tuple[int, int], object] = {}
        missing = [self.kernel[0] * self.kernel[1]] * self.vectors
        order = window_of_tile(self.tile, self.kernel, self.stride, isa.registers)
        for (gy, gx), place in zip(order, self.places, strict=True):
            source = (place.base, place.vector)
            if source not in known or not keeps:
                known[source] = T.bind(x.load_vector(bases[place.base] + place.vector * isa.lanes))
            vector = known[source]
            if place.lane is not None and window.moves:
                index = window.moves[place.lane]
                if not place.shifted:
                    vector = T.bind(merge_lanes(isa, outside, index, vector))
                elif fill == 0.0:
                    vector = T.bind(mask_lanes(index, vector, isa.lanes))
                else:
                    vector = T.bind(take_lanes(outside, index, vector, isa.lanes))
            uses = _uses(self.tile, self.kernel, self.stride, gy, gx)
            for s, _ in uses:
                missing[s] -= 1
            if isa.registers < MANY_REGISTERS:
                finished = [s for s, _ in uses if not missing[s]]
            else:
                finished = [] if any(missing) else list(range(self.vectors))
            yield vector, uses, finished

    def each_channel(
        self, table: TableReader, panel, window: PanelWindow, count, channel: Callable[[PanelWindow, object], None]
    ) -> None:
        """Emit the loop over some channels of a panel; two loops where some panels move no lanes.

        Permutes take turns with the multiply-adds, and most panels of a large image need none.

        Parameters
        ----------
        table : TableReader
            Table with `WINDOW_FIELDS`.
        panel, count : expression
            The panel, and how many channels.
        window : PanelWindow
            The panel's window.
        channel : callable
            Emits a channel, given the window and the channel's number from 0.
        """

        def loop(of: PanelWindow) -> None:
            with T.serial(0, count) as number:
                channel(of, number)

        if not self.inner:
            loop(window)
            return
        with T.If(table.at("inner", panel) == 1):
            with T.Then():
                loop(replace(window, moves=[]))
            with T.Else():
                loop(window)

    def emit_panels(
        self, isa: Isa, table: TableReader, output: Flat, channel: Callable[[PanelWindow, object, Result], None]
    ) -> None:
        """Emit the loops over images, panels and channels, driven by `PANEL_FIELDS`.

        Parameters
        ----------
        isa : Isa
            Instruction set.
        table : TableReader
            The table.
        output : Flat
            What is written.
        channel : callable
            Emits a channel of a panel, given the window, the channel and where its result is stored.
        """
        with T.parallel(0, table.scalar("tasks")) as task:
            chunk = T.bind(T.truncmod(task, table.scalar("chunks")))
            place = T.bind(T.truncdiv(task, table.scalar("chunks")))
            panel = T.bind(T.truncmod(place, table.scalar("panels")))
            number = T.bind(T.truncdiv(place, table.scalar("panels")))
            image = T.bind(as_long(number * table.scalar("input_set")))
            target = T.bind(as_long(number * table.scalar("output_set") + table.at("output", panel)))
            first = T.bind(table.at("chunk", chunk))
            count = T.bind(table.at("chunk", chunk + 1) - first)
            window = self.window_of(table, image, panel)

            def emit(of: PanelWindow, number) -> None:
                index = T.bind(first + number)
                at = T.bind(target + as_long(index * (self.vectors * isa.lanes)))
                channel(of, index, Result(output, at))

            self.each_channel(table, panel, window, count, emit)
