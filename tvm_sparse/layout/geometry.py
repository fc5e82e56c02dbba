"""Where a pixel lives: the geometry of activations stored in columns.

An activation ``[N, C, H, W]`` is stored as ``[sets * panels, C, vectors, lanes]`` ("columns"). The lanes of a vector
are *far apart*: the image is cut into ``grid = (LY, LX)`` subimages of ``sub_height x sub_width`` pixels, and lane
``ly * LX + lx`` belongs to subimage ``(ly, lx)``. A panel is one register tile of ``tile = (R, V)`` pixels of every
subimage at once; its vectors are numbered down the rows first, ``vector = v * R + r``. So each tap of a convolution
is an aligned load of another vector, and only the borders between subimages need permuted lanes.

Images of a batch that are too small to fill so many subimages share vectors: the lanes of each image of a *set* follow
those of the one before, and the first axis counts the panels of all sets. No window reads lanes of another image.

Tokens and batch items are images of height 1. This is the only place that knows where a pixel lives.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from math import log2

import numpy as np

# Origin of lanes that hold no subimage: far outside of every image, also after scaling by a stride.
_UNUSED = -(1 << 20)

# What an image may lose by cutting its only panel in two, in terms of the estimate below, which counts the windows of
# small panels for more than they cost.
_SINGLE_PANEL = 1.11
# What images that share vectors must gain for each doubling of their number: larger images do not share any, and where
# one size follows another each vector is merged from several.
_SHARED_VECTORS = 2e-2
# Fewer vectors are not worth a panel of their own.
_MIN_PANEL = 5
# Accumulators of one register tile: fewer starve the two FMA units (latency 4), more do not fit 16 registers.
MAX_TILE = 14


@dataclass(frozen=True)
class Geometry:
    """Geometry of a batch of images in columns.

    Parameters
    ----------
    batch, height, width : int
        Size of the logical tensor ``[batch, C, height, width]``.
    lanes : int
        float32 elements of a vector.
    grid : tuple of int
        Subimages down and across, ``LY * LX <= lanes``.
    tile : tuple of int
        Rows and columns ``(R, V)`` of a panel within each subimage.
    images : int
        Images side by side in the lanes of a vector (a set), ``images * LY * LX <= lanes``; they divide the batch.
    """

    batch: int
    height: int
    width: int
    lanes: int
    grid: tuple[int, int]
    tile: tuple[int, int]
    images: int = 1

    def __post_init__(self) -> None:
        if min(self.batch, self.height, self.width, self.lanes, *self.grid, *self.tile, self.images) < 1:
            raise ValueError(f"every size of a geometry must be at least 1: {self}")
        if self.images * self.image_lanes > self.lanes:
            raise ValueError(f"grid {self.grid} of {self.images} images needs more than {self.lanes} lanes")
        if self.batch % self.images:
            raise ValueError(f"sets of {self.images} images do not divide a batch of {self.batch}")

    @property
    def image_lanes(self) -> int:
        """Lanes of one image."""
        return self.grid[0] * self.grid[1]

    @property
    def sets(self) -> int:
        """Sets of images that share their vectors."""
        return self.batch // self.images

    @cached_property
    def sub_height(self) -> int:
        """Rows of a subimage, a multiple of the tile's."""
        return _round_up(-(-self.height // self.grid[0]), self.tile[0])

    @cached_property
    def sub_width(self) -> int:
        """Columns of a subimage, a multiple of the tile's."""
        return _round_up(-(-self.width // self.grid[1]), self.tile[1])

    @property
    def panels_down(self) -> int:
        """Panels from top to bottom of a subimage."""
        return self.sub_height // self.tile[0]

    @property
    def panels_across(self) -> int:
        """Panels from left to right of a subimage."""
        return self.sub_width // self.tile[1]

    @property
    def panels(self) -> int:
        """Panels of one set of images."""
        return self.panels_down * self.panels_across

    @property
    def vectors(self) -> int:
        """Vectors of a panel for one channel."""
        return self.tile[0] * self.tile[1]

    @property
    def pixels(self) -> int:
        """Useful pixels of one image."""
        return self.height * self.width

    @property
    def utilisation(self) -> float:
        """Share of lanes that hold a pixel."""
        return self.images * self.pixels / (self.panels * self.vectors * self.lanes)

    def set_bytes(self, channels: int) -> int:
        """Bytes of so many float32 channels of a set of images."""
        return 4 * channels * self.panels * self.vectors * self.lanes

    def shape(self, channels: int) -> tuple[int, int, int, int]:
        """Shape ``[sets * panels, channels, vectors, lanes]`` of a tensor with that many channels."""
        return (self.sets * self.panels, channels, self.vectors, self.lanes)

    @cached_property
    def lane_origin(self) -> tuple[np.ndarray, np.ndarray]:
        """Row and column of each lane's subimage, int64 ``[lanes]`` each; far outside where a lane is unused."""
        lane = np.arange(self.lanes)
        of_image = lane % self.image_lanes
        used = lane < self.images * self.image_lanes
        return (
            np.where(used, of_image // self.grid[1] * self.sub_height, _UNUSED),
            np.where(used, of_image % self.grid[1] * self.sub_width, _UNUSED),
        )

    @cached_property
    def lane_image(self) -> np.ndarray:
        """Image of its set that each lane belongs to, int64 ``[lanes]``; the last one where a lane is unused."""
        return np.minimum(np.arange(self.lanes) // self.image_lanes, self.images - 1)

    def locate(
        self, y: np.ndarray, x: np.ndarray, image: np.ndarray | int = 0
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Panel, vector and lane of pixels.

        Parameters
        ----------
        y, x : numpy.ndarray
            Rows and columns inside the image, any equal shape.
        image : numpy.ndarray or int
            Number of the image, of any shape that broadcasts with `y`'s.

        Returns
        -------
        tuple of numpy.ndarray
            Panel (counted from the first one of the first set), vector (of the panel) and lane; their shapes broadcast
            to that of all pixels.
        """
        rows, columns = self.tile
        sub_y, sub_x = y % self.sub_height, x % self.sub_width
        panel = sub_y // rows * self.panels_across + sub_x // columns + image // self.images * self.panels
        vector = sub_x % columns * rows + sub_y % rows
        lane = y // self.sub_height * self.grid[1] + x // self.sub_width + image % self.images * self.image_lanes
        return panel, vector, lane

    def pixel(self, panel: np.ndarray, vector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns ``[..., lanes]`` of the pixels of vectors; outside of the image where there is none."""
        rows, columns = self.tile
        y = panel // self.panels_across * rows + vector % rows
        x = panel % self.panels_across * columns + vector // rows
        return y[..., None] + self.lane_origin[0], x[..., None] + self.lane_origin[1]

    @cached_property
    def used(self) -> np.ndarray:
        """Whether a lane holds a pixel, bool ``[panels, vectors, lanes]``."""
        y, x = self._lane_pixels
        return (y >= 0) & (y < self.height) & (x >= 0) & (x < self.width)

    @cached_property
    def nearest_pixel(self) -> tuple[np.ndarray, np.ndarray]:
        """Row and column of every lane's pixel, ``[panels, vectors, lanes]`` each; of one near by where it has none."""
        y, x = self._lane_pixels
        return np.clip(y, 0, self.height - 1), np.clip(x, 0, self.width - 1)

    def pack(self, images: np.ndarray, fill: float = 0.0) -> np.ndarray:
        """Store ``[batch, C, height, width]`` in columns; unused lanes hold `fill`."""
        channels = images.shape[1]
        if images.shape != (self.batch, channels, self.height, self.width):
            raise ValueError(f"images of shape {images.shape} do not fit {self}")
        out = np.full(self.shape(channels), fill, images.dtype)
        panel, vector, lane = self._all_pixels()
        out[panel, :, vector, lane] = images.transpose(0, 2, 3, 1)
        return out

    def unpack(self, columns: np.ndarray) -> np.ndarray:
        """Inverse of `pack`: ``[batch, C, height, width]``."""
        channels = columns.shape[1]
        if columns.shape != self.shape(channels):
            raise ValueError(f"columns of shape {columns.shape} do not fit {self}")
        panel, vector, lane = self._all_pixels()
        return np.ascontiguousarray(columns[panel, :, vector, lane].transpose(0, 3, 1, 2))

    @cached_property
    def _lane_pixels(self) -> tuple[np.ndarray, np.ndarray]:
        """Row and column of every lane's pixel, also outside of the image: ``[panels, vectors, lanes]`` each."""
        panel, vector = np.meshgrid(np.arange(self.panels), np.arange(self.vectors), indexing="ij")
        return self.pixel(panel, vector)

    def _all_pixels(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where all pixels of all images are, ``[batch, height, width]`` each."""
        sizes = (self.batch, self.height, self.width)
        image, y, x = np.meshgrid(*(np.arange(size) for size in sizes), indexing="ij")
        return self.locate(y, x, image)


@cache
def choose_geometry(
    batch: int, height: int, width: int, lanes: int, tokens: bool = False, most_images: int | None = None
) -> Geometry:
    """Choose lanes and tile for images of a size.

    The choice depends on nothing else, so tensors of one size share their geometry and elementwise operators need
    no relayout. Small images share vectors where that fills them better. Cycles per useful pixel of an image are
    estimated as FMA issue (two a cycle, latency 4, one broadcast a nonzero) over the lane utilisation, plus the halo
    that a convolution of three taps along each axis would build; those of tokens were measured with linear layers of
    80 and 90 % zeros.

    Parameters
    ----------
    batch, height, width : int
        Size of the images.
    lanes : int
        float32 elements of a vector.
    tokens : bool
        Whether the width counts tokens, which no window spans.
    most_images : int, optional
        Most images that may share vectors; default: as many as a vector has lanes, and one sequence of tokens.

    Returns
    -------
    Geometry
        The cheapest geometry.
    """
    if most_images is None:
        most_images = 1 if tokens else lanes
    alone, *shared = (
        min(_geometries(batch, height, width, lanes, images), key=lambda geometry: _cost(geometry, tokens))
        for images in _set_sizes(batch, min(lanes, most_images))
    )
    few = alone.panels * alone.vectors < MAX_TILE
    fuller = [geometry for geometry in shared if few or geometry.utilisation > alone.utilisation]
    return min([alone, *fuller], key=lambda geometry: _cost(geometry, tokens))


def _geometries(batch: int, height: int, width: int, lanes: int, images: int) -> Iterator[Geometry]:
    """All geometries with sets of so many images."""
    for down in range(1, min(lanes // images, height) + 1):
        for across in range(1, min(lanes // images // down, width) + 1):
            for tile in _tiles(-(-height // down), -(-width // across)):
                yield Geometry(batch, height, width, lanes, (down, across), tile, images)


def _set_sizes(batch: int, most: int) -> list[int]:
    """Images of a set: powers of two, so that of two geometries' sets one holds whole ones of the other."""
    return [1 << n for n in range(most.bit_length()) if 1 << n <= most and batch % (1 << n) == 0]


def _tiles(rows: int, columns: int) -> list[tuple[int, int]]:
    """Tiles of a subimage; those of few rows come first, so that among equals an image has many rows of panels."""
    return [
        (r, v)
        for r in range(1, min(rows, MAX_TILE) + 1)
        for v in range(1, min(columns, MAX_TILE // r) + 1)
        if v <= 7 or rows == 1
    ]


def _cost(geometry: Geometry, tokens: bool) -> float:
    rows, columns = geometry.tile
    vectors = geometry.vectors
    # Rather one grid for all sizes, even for some per cent: images halved by a stride then keep their lanes, and
    # strided depth-wise layers take a third of the time.
    habit = 3e-2 * abs(log2(geometry.grid[0]) - (log2(geometry.lanes) + 1) // 2)
    habit += _SHARED_VECTORS * log2(geometry.images)
    if tokens:
        # A weight's broadcast costs as much as half a vector, and the more vectors a panel has,
        # the fewer channels fit the first-level cache, and the more often sums are stored and read again.
        return (0.6 + 0.53 / vectors + 0.046 * vectors) / geometry.utilisation + habit
    issue = max((vectors + 1) / 2, 4.0) + 0.1 * vectors
    halo = (rows + 2 if geometry.height > 1 else 1) * (columns + 2) / vectors
    # Two panels of seven vectors are as fast as one of fourteen, and two cores need not share them.
    shared = _SINGLE_PANEL if geometry.panels == 1 and vectors >= 2 * _MIN_PANEL else 1.0
    return (issue / vectors * 2 + 0.06 * halo) * shared / geometry.utilisation + habit


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
