"""Vectors around each panel of an image: where they are stored, and which of their lanes count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .geometry import Geometry
from .halo import lane_index


@dataclass(frozen=True)
class Ring:
    """Sources of the vectors around panels.

    Parameters
    ----------
    sources : numpy.ndarray
        int64 ``[panels, places, 2]``: element of the stored vector within the first channel of its image, and element
        of its lane index in `lanes`.
    lanes : numpy.ndarray
        int64 ``[k, lanes]``: the lane indices; lanes outside of the image stay as they are.
    """

    sources: np.ndarray
    lanes: np.ndarray


@lru_cache(maxsize=256)
def ring_of_panels(
    source: Geometry,
    target: Geometry,
    places: Sequence[tuple[int, int]],
    channels: int,
    first: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    slots: tuple[int, ...] | None = None,
) -> Ring | None:
    """Find the vectors that lie around what every panel reads.

    Parameters
    ----------
    source, target : Geometry
        Geometry of the images that are read, and of those whose panels are written.
    places : sequence of tuple of int
        Rows and columns of the vectors, counted from `first`.
    channels : int
        Channels of the tensor.
    first : tuple of int
        Row and column, relative to the pixel that a panel's first pixel reads, that `places` counts from.
    stride : tuple of int
        Rows and columns of the source for each of the target.
    slots : tuple of int, optional
        Where each panel of the source is stored, counted in panels; default: one after the other.

    Returns
    -------
    Ring or None
        None where the lanes of a vector come from several stored vectors, as in images that do not fill their
        subimages.
    """
    panels = np.arange(target.panels)
    rows, columns = target.tile
    gy, gx = np.asarray(places, np.int64).reshape(-1, 2).T
    oy, ox = target.lane_origin
    y = ((panels // target.panels_across * rows)[:, None, None] + oy) * stride[0] + (gy + first[0])[None, :, None]
    x = ((panels % target.panels_across * columns)[:, None, None] + ox) * stride[1] + (gx + first[1])[None, :, None]
    inside = (y >= 0) & (y < source.height) & (x >= 0) & (x < source.width)
    panel, vector, lane = source.locate(np.where(inside, y, 0), np.where(inside, x, 0))
    if slots is not None:
        panel = np.asarray(slots, np.int64)[panel]
    element = (panel * channels * source.vectors + vector) * source.lanes
    stored = np.where(inside, element, -1).max(2)
    if not ((element == stored[..., None]) | ~inside).all():
        return None
    indices: dict[tuple[int, ...], int] = {}
    index = np.zeros(stored.shape, np.int64)
    for at in np.ndindex(stored.shape):
        index[at] = indices.setdefault(lane_index(lane[at], inside[at]), len(indices))
    sources = np.stack([np.maximum(stored, 0), index * source.lanes], -1)
    return Ring(sources, np.asarray(list(indices), np.int64).reshape(-1, source.lanes))
