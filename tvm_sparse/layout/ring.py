"""Vectors around each panel of an image: where they are stored, and which of their lanes count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .geometry import Geometry
from .halo_operations import lane_index

# Farther than any lane.
_NO_SHIFT = -(1 << 20)


@dataclass(frozen=True)
class Place:
    """Where a vector around every panel comes from.

    Parameters
    ----------
    base : int
        Which of the panel's bases it is counted from.
    vector : int
        Vectors after the base.
    lane : int or None
        Which of the panel's lane indices brings its lanes to their place; None where they are there for every panel.
    shifted : bool
        Whether the base lies some lanes beside a vector, so that the lanes that are read are in their place: the lane
        index is then only a mask of those that count.
    """

    base: int
    vector: int
    lane: int | None
    shifted: bool = False


@dataclass(frozen=True)
class Ring:
    """Sources of the vectors around panels: what is the same for all panels, and what each panel has of its own.

    Parameters
    ----------
    places : tuple of Place
        By vector.
    panels, vectors, shifts : numpy.ndarray
        int64 ``[target panels, bases]``: panel of the source, vector within it and lanes beside it that each base is.
    indices : numpy.ndarray
        int64 ``[target panels, n]``: number of each lane index in `lanes`.
    lanes : numpy.ndarray
        int64 ``[k, lanes]``: the lane indices; lanes outside of the image stay as they are. Masks: -1 and 0.
    inner : numpy.ndarray
        bool ``[target panels]``: whether all lanes of the panel's vectors are in their place, as where no window
        leaves a subimage.
    """

    places: tuple[Place, ...]
    panels: np.ndarray
    vectors: np.ndarray
    shifts: np.ndarray
    indices: np.ndarray
    lanes: np.ndarray
    inner: np.ndarray


@lru_cache(maxsize=256)
def ring_of_panels(
    source: Geometry,
    target: Geometry,
    places: Sequence[tuple[int, int]],
    first: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    shifted: bool = False,
) -> Ring | None:
    """Find the vectors that every panel reads.

    Parameters
    ----------
    source, target : Geometry
        Geometry of the images that are read, and of those whose panels are written.
    places : sequence of tuple of int
        Rows and columns of the vectors, counted from `first`.
    first : tuple of int
        Row and column, relative to the pixel that a panel's first pixel reads, that `places` counts from.
    stride : tuple of int
        Rows and columns of the source for each of the target.
    shifted : bool
        Whether vectors are read beside where they are stored, instead of moving their lanes, where that is possible:
        all lanes move alike, and what is read belongs to the same panel and channel.

    Returns
    -------
    Ring or None
        None where the lanes of a vector come from several stored vectors, as in images that do not fill their
        subimages, or other images share them.
    """
    if source.images != target.images:
        return None
    panels = np.arange(target.panels)
    rows, columns = target.tile
    gy, gx = np.asarray(places, np.int64).reshape(-1, 2).T
    oy, ox = target.lane_origin
    y = ((panels // target.panels_across * rows)[:, None, None] + oy) * stride[0] + (gy + first[0])[None, :, None]
    x = ((panels % target.panels_across * columns)[:, None, None] + ox) * stride[1] + (gx + first[1])[None, :, None]
    inside = (y >= 0) & (y < source.height) & (x >= 0) & (x < source.width)
    # What lies outside for all lanes may come from anywhere: from near by, so that it does not stand out.
    near_y, near_x = (np.clip(a, 0, size - 1) for a, size in ((y, source.height), (x, source.width)))
    panel, vector, lane = source.locate(near_y, near_x, target.lane_image)
    count = inside | ~inside.any(2, keepdims=True)
    stored = panel * source.vectors + vector
    one = np.where(count, stored, -1).max(2)
    if not ((stored == one[..., None]) | ~inside).all():
        return None
    bases = _Columns()
    own_panel, own_vector = np.divmod(one, source.vectors)
    # Unused lanes of the target may hold anything; those whose pixel lies outside of the image must not.
    used = oy >= 0
    stays = ((inside & (lane == np.arange(target.lanes))) | ~used).all(2)
    in_place = stays.all(0)
    numbers: dict[tuple[int, ...], int] = {}
    index = np.zeros(one.shape, np.int64)
    shift = _shifts(lane, inside, source)
    first_lane = own_vector * source.lanes + shift
    beside = shifted & ((first_lane >= 0) & (first_lane <= (source.vectors - 1) * source.lanes) & (shift != _NO_SHIFT))
    by_shift = beside.all(0) & ~in_place
    for at in np.ndindex(one.shape):
        mask = tuple(-inside[at].astype(np.int64))
        key = mask if by_shift[at[1]] else lane_index(lane[at], inside[at])
        index[at] = numbers.setdefault(key, len(numbers))
    moves = _Columns()
    found = []
    for i in range(one.shape[1]):
        fixed = (own_vector[:, i] == own_vector[0, i]).all()
        begin = np.zeros_like(own_vector[:, i]) if fixed else own_vector[:, i]
        lanes_beside = shift[:, i] if by_shift[i] else np.zeros_like(begin)
        base = bases.add(np.stack([own_panel[:, i], begin, lanes_beside], 1))
        move = None if in_place[i] else moves.add(index[:, i : i + 1])
        found.append(Place(base, int(own_vector[0, i]) if fixed else 0, move, bool(by_shift[i])))
    of_bases = bases.stacked(len(panels), 3)
    return Ring(
        tuple(found),
        of_bases[:, :, 0],
        of_bases[:, :, 1],
        of_bases[:, :, 2],
        moves.stacked(len(panels), 1)[:, :, 0],
        np.asarray(list(numbers), np.int64).reshape(-1, source.lanes),
        stays.all(1),
    )


def _shifts(lane: np.ndarray, inside: np.ndarray, source: Geometry) -> np.ndarray:
    """How far the lanes of each vector move, 0 where none is inside of the image; `_NO_SHIFT` where not all alike."""
    distance = lane - np.arange(source.lanes)
    least = np.where(inside, distance, source.lanes).min(2)
    most = np.where(inside, distance, -source.lanes).max(2)
    return np.where(inside.any(2), np.where(least == most, least, _NO_SHIFT), 0)


class _Columns:
    """Numbers equal columns alike."""

    def __init__(self) -> None:
        self._known: dict[bytes, int] = {}
        self._columns: list[np.ndarray] = []

    def add(self, column: np.ndarray) -> int:
        """Number of a column ``[panels, n]``."""
        key = np.ascontiguousarray(column).tobytes()
        if key not in self._known:
            self._known[key] = len(self._columns)
            self._columns.append(column)
        return self._known[key]

    def stacked(self, panels: int, width: int) -> np.ndarray:
        """All columns, ``[panels, columns, n]``."""
        return np.stack(self._columns, 1) if self._columns else np.zeros((panels, 0, width), np.int64)
