"""Programs that bring the pixels which a kxk window reads into a small buffer, vector by vector.

The consumer of an activation builds, for some channels at a time, the grid of vectors that its window touches. Most
grid vectors are stored vectors; at the borders between subimages lanes come from several vectors, and pixels outside
of the image hold the pad value. A program lists the operations per *stripe* (a set of panels that share a grid).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from .geometry import Geometry
from .merge import TAKE, join_copies


@dataclass(frozen=True)
class Window:
    """Window of a convolution or pooling: sizes down and across.

    Parameters
    ----------
    kernel, stride, dilation : tuple of int
        Vertical and horizontal.
    padding : tuple of int
        Top, left, bottom, right.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Size of the output image."""
        top, left, bottom, right = self.padding
        spans = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]
        return (
            (height + top + bottom - spans[0]) // self.stride[0] + 1,
            (width + left + right - spans[1]) // self.stride[1] + 1,
        )


# Runs of fewer vectors are left to single operations.
_SHORTEST_RUN = 2

# Kinds of operations with the entries of each, in the order that they run.
KINDS = {
    "copy": 4,
    "copy_down": 3,
    "copy_across": 4,
    "one_down": 4,
    "one_across": 5,
    "one": 3,
    "two": 5,
    "more": 3,
}


@dataclass(frozen=True)
class HaloProgram:
    """Operations that fill the buffer of every stripe; destinations and sources in elements.

    Parameters
    ----------
    copy : numpy.ndarray
        ``[n, 4]``: destination, source, vectors, elements between the vectors of the source; those of the
        destination are consecutive.
    copy_down, copy_across : numpy.ndarray
        Copies of as many vectors as a tile has rows, or columns, a constant of the kernel. ``[n, 3]``: destination
        (the vectors are consecutive), source, elements between its vectors; ``[n, 4]``: destination, source,
        elements between the vectors of each.
    one_down, one_across : numpy.ndarray
        The same with a lane index as last entry, ``[n, 4]`` and ``[n, 5]``; lanes as in `one`.
    one : numpy.ndarray
        ``[n, 3]``: destination, source, lane index; lanes that are not taken hold the pad value.
    two : numpy.ndarray
        ``[n, 5]``: destination, then source and lane index twice.
    more : numpy.ndarray
        ``[n, 3]``: destination (already filled), source, lane index.
    pointers : numpy.ndarray
        ``[8, stripes + 1]``: first operation of each stripe, in the order of `KINDS`.
    lanes : numpy.ndarray
        int32 ``[k, lanes]``: the lane indices.
    tile_pointers : numpy.ndarray
        ``[stripes + 1]``: first tile of each stripe.
    tile_buffer, tile_panel : numpy.ndarray
        Per tile: position of its window's origin in the buffer (elements) and its output panel.
    taps : numpy.ndarray
        ``[kernel height, kernel width]``: position of each tap in the buffer, in elements.
    pitch : int
        Elements between neighbouring columns of a tile in the buffer.
    size : int
        Elements of the buffer for one channel.
    tile : tuple of int
        Rows and columns of a tile.
    """

    copy: np.ndarray
    copy_down: np.ndarray
    copy_across: np.ndarray
    one_down: np.ndarray
    one_across: np.ndarray
    one: np.ndarray
    two: np.ndarray
    more: np.ndarray
    pointers: np.ndarray
    lanes: np.ndarray
    tile_pointers: np.ndarray
    tile_buffer: np.ndarray
    tile_panel: np.ndarray
    taps: np.ndarray
    pitch: int
    size: int
    tile: tuple[int, int]

    @property
    def cycles(self) -> float:
        """Estimated cycles to run it for one channel of one image."""
        rows, columns = self.tile
        copies = self.copy[:, 2].sum() * 1.2 + len(self.copy)
        copies += len(self.copy_down) * rows * 1.2 + len(self.copy_across) * columns * 1.2
        permuted = len(self.one_down) * rows * 1.5 + len(self.one_across) * columns * 1.5
        return float(copies + permuted + len(self.one) * 3 + len(self.two) * 5 + len(self.more) * 3.5)

    def part(self, stripes: np.ndarray) -> HaloProgram:
        """The program of some stripes, ``[n]`` of their numbers, which are numbered anew."""
        selected: dict[str, np.ndarray] = {}
        pointers = []
        for kind, row in zip(KINDS, self.pointers, strict=True):
            chosen, starts = select_ranges(row, stripes)
            selected[kind] = getattr(self, kind)[chosen]
            pointers.append(starts)
        tiles, tile_pointers = select_ranges(self.tile_pointers, stripes)
        return replace(
            self,
            **selected,
            pointers=np.stack(pointers),
            tile_pointers=tile_pointers,
            tile_buffer=self.tile_buffer[tiles],
            tile_panel=self.tile_panel[tiles],
        )


def select_ranges(pointers: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Select some of the ranges of an array.

    Parameters
    ----------
    pointers : numpy.ndarray
        ``[ranges + 1]``: where each range starts, and where the last one ends.
    chosen : numpy.ndarray
        ``[n]``: numbers of ranges.

    Returns
    -------
    tuple of numpy.ndarray
        Positions of the elements of the chosen ranges one after the other, and the ranges' pointers among those.
    """
    pointers = np.asarray(pointers, np.int64)
    positions = [np.arange(pointers[i], pointers[i + 1]) for i in chosen]
    starts = np.cumsum([0] + [len(p) for p in positions])
    return np.concatenate([np.zeros(0, np.int64), *positions]), starts


@lru_cache(maxsize=256)
def halo_program(
    source: Geometry,
    target: Geometry,
    window: Window,
    channels: int,
    stripe: tuple[int, int] = (1, 1),
    compact: bool = False,
    slots: tuple[int, ...] | None = None,
) -> HaloProgram:
    """Plan how to build the windows of all panels of `target` from vectors of `source`.

    The grid of a stripe is stored by phase (grid row modulo the stride), column after column, so that the vectors
    of a tile column are consecutive for every tap, stride and dilation.

    Parameters
    ----------
    source, target : Geometry
        Geometry of the input and of the output image.
    window : Window
        The window; its output size must be the target's.
    channels : int
        Channels of the source tensor (panels are ``channels * vectors * lanes`` elements apart).
    stripe : tuple of int
        Panels down and across that share one grid; must divide the target's panels.
    compact : bool
        Whether grid rows and columns that no tap reads are left out of the buffer: less memory for windows of large
        dilation, but shorter runs of copies. Stripes are single panels then.
    slots : tuple of int, optional
        Where each panel of the source is stored, counted in panels; default: one after the other.

    Returns
    -------
    HaloProgram
        The program; one image, the kernel repeats it for the batch.
    """
    if window.output_size(source.height, source.width) != (target.height, target.width):
        raise ValueError(f"{window} does not turn {source} into {target}")
    if target.panels_down % stripe[0] or target.panels_across % stripe[1]:
        raise ValueError(f"stripes of {stripe} panels do not divide {target}")
    if compact and stripe != (1, 1):
        raise ValueError("a compact grid serves a single panel")
    rows, columns = target.tile[0] * stripe[0], target.tile[1] * stripe[1]
    (kh, kw), (sy, sx), (dy, dx) = window.kernel, window.stride, window.dilation
    grid_h, grid_w = (rows - 1) * sy + (kh - 1) * dy + 1, (columns - 1) * sx + (kw - 1) * dx + 1
    phase_h = -(-grid_h // sy)
    lanes = source.lanes
    # Places in the buffer of grid rows and of grid columns: a vector's is the sum of both.
    grid_rows, grid_columns = np.arange(grid_h), np.arange(grid_w)
    row_place, column_place = grid_rows % sy * grid_w * phase_h + grid_rows // sy, grid_columns * phase_h
    pitch, size = sx * phase_h, sy * grid_w * phase_h
    if compact:
        grid_rows, row_place = _used(rows, sy, kh, dy)
        grid_columns, column_place = _used(columns, sx, kw, dx)
        pitch, size = len(grid_rows), len(grid_rows) * len(grid_columns)
        column_place = column_place * pitch

    def slot(gy: np.ndarray, gx: np.ndarray) -> np.ndarray:
        return row_place[gy] + column_place[gx]

    gy, gx = (a.reshape(-1) for a in np.meshgrid(grid_rows, grid_columns, indexing="ij"))
    down, across = target.panels_down // stripe[0], target.panels_across // stripe[1]
    py, px = (a.reshape(-1) for a in np.meshgrid(np.arange(down), np.arange(across), indexing="ij"))
    oy, ox = target.lane_origin
    # Row and column of every lane of every grid vector of every stripe: [stripes, grid vectors, lanes].
    y = ((py * rows)[:, None, None] + oy) * sy + gy[None, :, None] - window.padding[0]
    x = ((px * columns)[:, None, None] + ox) * sx + gx[None, :, None] - window.padding[1]
    inside = (y >= 0) & (y < source.height) & (x >= 0) & (x < source.width)
    panel, vector, lane = source.locate(np.where(inside, y, 0), np.where(inside, x, 0))
    stored = np.where(inside, panel * source.vectors + vector, -1)
    if slots is not None:
        panel = np.asarray(slots, np.int64)[panel]
    position = (panel * channels * source.vectors + vector) * lanes
    builder = _Operations(lanes, target.tile, (len(grid_rows), len(grid_columns)))
    destination = slot(gy, gx) * lanes
    unused = np.broadcast_to(oy < -(1 << 18), lane[0, 0].shape)
    for index in range(len(py)):
        builder.start_stripe()
        builder.add_stripe(destination, stored[index], position[index], lane[index], inside[index], unused)
    operations, pointers = builder.finish()

    ty, tx = (
        a.reshape(-1) for a in np.meshgrid(np.arange(stripe[0]), np.arange(stripe[1]), indexing="ij")
    )
    tile_buffer = (tx * target.tile[1] * pitch + ty * target.tile[0]) * lanes
    tile_panel = (py[:, None] * stripe[0] + ty) * target.panels_across + px[:, None] * stripe[1] + tx
    ky, kx = np.meshgrid(np.arange(kh) * dy, np.arange(kw) * dx, indexing="ij")
    return HaloProgram(
        **operations,
        pointers=pointers,
        lanes=np.asarray(builder.indices, np.int64).reshape(-1, lanes),
        tile_pointers=np.arange(len(py) + 1) * len(ty),
        tile_buffer=np.tile(tile_buffer, len(py)),
        tile_panel=tile_panel.reshape(-1),
        taps=slot(ky, kx) * lanes,
        pitch=pitch * lanes,
        size=size * lanes,
        tile=target.tile,
    )


def _used(count: int, stride: int, taps: int, dilation: int) -> tuple[np.ndarray, np.ndarray]:
    """Grid rows (or columns) that `count` outputs read, and by row its place: those of a phase follow each other."""
    used = np.unique(np.arange(count)[:, None] * stride + np.arange(taps) * dilation)
    place = np.zeros(used[-1] + 1, np.int64)
    place[used[np.lexsort((used, used % stride))]] = np.arange(len(used))
    return used, place


def lane_index(lane: np.ndarray, taken: np.ndarray) -> tuple[int, ...]:
    """Index that merges lanes of a source into a vector.

    Parameters
    ----------
    lane : numpy.ndarray
        Lane of the source for each lane of the result, ``[lanes]``.
    taken : numpy.ndarray
        Whether the result takes it, bool ``[lanes]``; other lanes stay.

    Returns
    -------
    tuple of int
        What :func:`tvm_sparse.schedules.cpu.lanes.merge_lanes` takes as index.
    """
    lanes = len(lane)
    return tuple(
        (TAKE | (lanes + int(source)) if take else keep)
        for keep, (source, take) in enumerate(zip(lane, taken, strict=True))
    )


class _Operations:
    """Collects the operations of all stripes, by kind.

    Parameters
    ----------
    lanes : int
        Lanes of a vector.
    tile : tuple of int
        Rows and columns of a tile: the lengths of runs.
    grid : tuple of int
        Rows and columns of a stripe's grid; its vectors are numbered row by row.
    """

    def __init__(self, lanes: int, tile: tuple[int, int], grid: tuple[int, int]):
        self.lanes = lanes
        self.tile = tile
        self.grid = grid
        self.indices: list[tuple[int, ...]] = []
        self._known: dict[tuple[int, ...], int] = {}
        self._kinds: dict[str, list[tuple[int, ...]]] = {name: [] for name in KINDS}
        self._pointers: list[list[int]] = []

    def start_stripe(self) -> None:
        self._pointers.append([len(kind) for kind in self._kinds.values()])

    def add_stripe(
        self,
        destination: np.ndarray,
        stored: np.ndarray,
        position: np.ndarray,
        lane: np.ndarray,
        inside: np.ndarray,
        unused: np.ndarray,
    ) -> None:
        identity = np.arange(self.lanes)
        first = np.where(inside.any(1), inside.argmax(1), 0)
        vectors = np.arange(len(stored))
        source = position[vectors, first]
        one_source = ((stored == stored[vectors, first][:, None]) | ~inside).all(1)
        plain = one_source & inside.any(1) & ((lane == identity) | ~inside).all(1) & (inside | unused).all(1)
        # Lane index of vectors with one source (or none, where all lanes are outside), -1 for plain copies.
        index = np.full(len(stored), -1)
        for v in np.nonzero(one_source & ~plain)[0].tolist():
            index[v] = self._index(lane[v], inside[v])
        left = self._take_runs(destination, source, index, one_source)
        copies = plain & left
        self._kinds["copy"] += map(tuple, join_copies(destination[copies], source[copies], self.lanes))
        singles = one_source & ~plain & left
        self._kinds["one"] += zip(
            destination[singles].tolist(), source[singles].tolist(), index[singles].tolist(), strict=True
        )
        for v in np.nonzero(~one_source)[0].tolist():
            target, ok = int(destination[v]), inside[v]
            terms: list[tuple[int, int]] = []
            for other in sorted(set(stored[v][ok].tolist())):
                mine = ok & (stored[v] == other)
                terms.append((int(position[v][mine][0]), self._index(lane[v], mine)))
            self._kinds["two"].append((target, *terms[0], *terms[1]))
            self._kinds["more"] += [(target, *term) for term in terms[2:]]

    def finish(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        self.start_stripe()
        arrays = {
            name: np.asarray(kind, np.int64).reshape(-1, KINDS[name]) for name, kind in self._kinds.items()
        }
        return arrays, np.asarray(self._pointers, np.int64).T

    def _take_runs(
        self, destination: np.ndarray, source: np.ndarray, index: np.ndarray, candidates: np.ndarray
    ) -> np.ndarray:
        """Operations on runs as long as a tile is high or wide; returns which vectors are left."""
        left = candidates.copy()
        number = np.arange(len(left)).reshape(self.grid)
        # Down: vectors that follow each other in the buffer, column by column (and phase by phase).
        down = np.argsort(destination).reshape(-1)
        directions = [("down", self.tile[0], [down]), ("across", self.tile[1], list(number))]
        for name, length, lines in sorted(directions, key=lambda d: -d[1]):
            if length < _SHORTEST_RUN:
                continue
            for line in lines:
                begin = 0
                while begin + length <= len(line):
                    run = line[begin : begin + length]
                    steps, jumps = np.diff(source[run]), np.diff(destination[run])
                    even = left[run].all() and (index[run] == index[run[0]]).all()
                    even = even and (steps == steps[0]).all() and (jumps == jumps[0]).all()
                    if not even or (name == "down" and jumps[0] != self.lanes):
                        begin += 1
                        continue
                    self._add_run(name, destination[run], source[run], int(index[run[0]]))
                    left[run] = False
                    begin += length
        return left

    def _add_run(self, direction: str, destination: np.ndarray, source: np.ndarray, index: int) -> None:
        jumps = [int(destination[1] - destination[0])] if direction == "across" else []
        entries = [int(destination[0]), int(source[0]), *jumps, int(source[1] - source[0])]
        kind = "copy" if index < 0 else "one"
        self._kinds[f"{kind}_{direction}"].append((*entries, *([] if index < 0 else [index])))

    def _index(self, lane: np.ndarray, mine: np.ndarray) -> int:
        key = lane_index(lane, mine)
        if key not in self._known:
            self._known[key] = len(self.indices)
            self.indices.append(key)
        return self._known[key]
