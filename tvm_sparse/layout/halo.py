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
from .halo_operations import KINDS, HaloOperations
from .image_window import ImageProgram, Strides, image_program
from .ranges import select_ranges


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

    def extent(self, rows: int, columns: int) -> tuple[int, int]:
        """Rows and columns of the input that neighbouring outputs read."""
        return (
            (rows - 1) * self.stride[0] + (self.kernel[0] - 1) * self.dilation[0] + 1,
            (columns - 1) * self.stride[1] + (self.kernel[1] - 1) * self.dilation[1] + 1,
        )

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Size of the output image."""
        top, left, bottom, right = self.padding
        spans = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]
        return (
            (height + top + bottom - spans[0]) // self.stride[0] + 1,
            (width + left + right - spans[1]) // self.stride[1] + 1,
        )


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
    quarters : numpy.ndarray
        ``[n, 6]``: destination, sources of the quarters of the vector, lane index; lanes that are not taken hold the
        pad value, and taken ones stay where they are.
    pointers : numpy.ndarray
        ``[kinds, stripes + 1]``: first operation of each stripe, in the order of `KINDS`.
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
    image : ImageProgram, optional
        Operations that read a plain image instead; the others are none then.
    """

    copy: np.ndarray
    copy_down: np.ndarray
    copy_across: np.ndarray
    one_down: np.ndarray
    one_across: np.ndarray
    one: np.ndarray
    two: np.ndarray
    more: np.ndarray
    quarters: np.ndarray
    pointers: np.ndarray
    lanes: np.ndarray
    tile_pointers: np.ndarray
    tile_buffer: np.ndarray
    tile_panel: np.ndarray
    taps: np.ndarray
    pitch: int
    size: int
    tile: tuple[int, int]
    image: ImageProgram | None = None

    @property
    def cycles(self) -> float:
        """Estimated cycles to run it for one channel of one set of images."""
        rows, columns = self.tile
        copies = self.copy[:, 2].sum() * 1.2 + len(self.copy)
        copies += len(self.copy_down) * rows * 1.2 + len(self.copy_across) * columns * 1.2
        merged = len(self.two) * 5 + len(self.more) * 3.5 + len(self.quarters) * 5
        permuted = len(self.one_down) * rows * 1.5 + len(self.one_across) * columns * 1.5
        return float(copies + permuted + len(self.one) * 3 + merged)

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
            image=None if self.image is None else self.image.part(stripes),
        )


@lru_cache(maxsize=256)
def halo_program(
    source: Geometry,
    target: Geometry,
    window: Window,
    channels: int,
    stripe: tuple[int, int] = (1, 1),
    compact: bool = False,
    slots: tuple[int, ...] | None = None,
    strides: Strides | None = None,
    odd: bool = False,
) -> HaloProgram:
    """Plan how to build the windows of all panels of `target` from vectors of `source`, or from a plain image.

    The grid of a stripe is stored by phase (grid row modulo the stride), column after column, so that the vectors
    of a tile column are consecutive for every tap, stride and dilation.

    Parameters
    ----------
    source, target : Geometry
        Geometry of the input and of the output image; sets of the target hold whole sets of the source.
    window : Window
        The window; its output size must be the target's.
    channels : int
        Channels of the source tensor (panels are ``channels * vectors * lanes`` elements apart).
    stripe : tuple of int
        Panels down and across that share one grid; across they must divide the target's panels, and down the last
        stripe has fewer where they do not.
    compact : bool
        Whether grid rows and columns that no tap reads are left out of the buffer: less memory for windows of large
        dilation, but shorter runs of copies. Stripes are single panels then.
    slots : tuple of int, optional
        Where each panel of the source is stored, counted in panels; default: one after the other.
    strides : Strides, optional
        Strides of the plain images that are read instead of columns; `source` gives their size then.
    odd : bool
        Whether the columns of the grid are an odd number of vectors apart: those that one of several tiles reads then
        lie in all sets of a cache.

    Returns
    -------
    HaloProgram
        The program for one set of the target's images; the kernel repeats it for the batch.
    """
    if window.output_size(source.height, source.width) != (target.height, target.width):
        raise ValueError(f"{window} does not turn {source} into {target}")
    if target.panels_across % stripe[1]:
        raise ValueError(f"stripes of {stripe} panels do not divide {target}")
    if target.images % source.images:
        raise ValueError(f"sets of {target} hold no whole sets of {source}")
    if compact and stripe != (1, 1):
        raise ValueError("a compact grid serves a single panel")
    rows, columns = target.tile[0] * stripe[0], target.tile[1] * stripe[1]
    (kh, kw), (sy, sx), (dy, dx) = window.kernel, window.stride, window.dilation
    grid_h, grid_w = window.extent(rows, columns)
    phase_h = -(-grid_h // sy) | int(odd)
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
    down, across = -(-target.panels_down // stripe[0]), target.panels_across // stripe[1]
    py, px = (a.reshape(-1) for a in np.meshgrid(np.arange(down), np.arange(across), indexing="ij"))
    oy, ox = target.lane_origin
    # Row and column of every lane of every grid vector of every stripe: [stripes, grid vectors, lanes].
    y = ((py * rows)[:, None, None] + oy) * sy + gy[None, :, None] - window.padding[0]
    x = ((px * columns)[:, None, None] + ox) * sx + gx[None, :, None] - window.padding[1]
    inside = (y >= 0) & (y < source.height) & (x >= 0) & (x < source.width)
    panel, vector, lane = source.locate(np.where(inside, y, 0), np.where(inside, x, 0), target.lane_image)
    stored = np.where(inside, panel * source.vectors + vector, -1)
    if slots is not None:
        panel = np.asarray(slots, np.int64)[panel]
    position = (panel * channels * source.vectors + vector) * lanes
    shape = (len(grid_rows), len(grid_columns))
    builder = HaloOperations(lanes, target.tile, shape)
    destination = slot(gy, gx) * lanes
    unused = np.broadcast_to(oy < -(1 << 18), lane[0, 0].shape)
    # Grid rows that the panels of each row of stripes read.
    tiles_down = np.minimum(target.panels_down - np.arange(down) * stripe[0], stripe[0])
    read_rows = [window.extent(count * target.tile[0], columns)[0] for count in tiles_down.tolist()]
    for index in range(len(py)):
        builder.start_stripe()
        if strides is None:
            wanted = gy < read_rows[py[index]]
            builder.add_stripe(destination, stored[index], position[index], lane[index], inside[index], unused, wanted)
    operations, pointers = builder.finish()
    image = None
    if strides is not None:
        pixels = tuple(a.reshape(len(py), *shape, lanes) for a in (y, x))
        sizes = (channels, source.height, source.width)
        image = image_program(
            pixels, ~unused, target.lane_image, destination.reshape(shape), size * lanes, sizes, strides
        )

    ty, tx = (
        a.reshape(-1) for a in np.meshgrid(np.arange(stripe[0]), np.arange(stripe[1]), indexing="ij")
    )
    tile_buffer = (tx * target.tile[1] * pitch + ty * target.tile[0]) * lanes
    tile_panel = (py[:, None] * stripe[0] + ty) * target.panels_across + px[:, None] * stripe[1] + tx
    exists = ty < tiles_down[py][:, None]
    ky, kx = np.meshgrid(np.arange(kh) * dy, np.arange(kw) * dx, indexing="ij")
    return HaloProgram(
        **operations,
        pointers=pointers,
        lanes=np.asarray(builder.indices, np.int64).reshape(-1, lanes),
        tile_pointers=np.cumsum([0, *exists.sum(1)]),
        tile_buffer=np.broadcast_to(tile_buffer, exists.shape)[exists],
        tile_panel=tile_panel[exists],
        taps=slot(ky, kx) * lanes,
        pitch=pitch * lanes,
        size=size * lanes,
        tile=target.tile,
        image=image,
    )


def _used(count: int, stride: int, taps: int, dilation: int) -> tuple[np.ndarray, np.ndarray]:
    """Grid rows (or columns) that `count` outputs read, and by row its place: those of a phase follow each other."""
    used = np.unique(np.arange(count)[:, None] * stride + np.arange(taps) * dilation)
    place = np.zeros(used[-1] + 1, np.int64)
    place[used[np.lexsort((used, used % stride))]] = np.arange(len(used))
    return used, place
