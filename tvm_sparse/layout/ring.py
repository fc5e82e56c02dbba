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
    geometry: Geometry, places: Sequence[tuple[int, int]], channels: int, first: tuple[int, int]
) -> Ring | None:
    """Find the vectors around every panel.

    Parameters
    ----------
    geometry : Geometry
        Geometry of the images.
    places : sequence of tuple of int
        Rows and columns of the vectors, counted from `first`.
    channels : int
        Channels of the tensor.
    first : tuple of int
        Row and column, relative to a panel's first pixel, that `places` counts from.

    Returns
    -------
    Ring or None
        None where the lanes of a vector come from several stored vectors, as in images that do not fill their
        subimages.
    """
    panels = np.arange(geometry.panels)
    rows, columns = geometry.tile
    gy, gx = np.asarray(places, np.int64).reshape(-1, 2).T
    oy, ox = geometry.lane_origin
    y = (panels // geometry.panels_across * rows)[:, None, None] + (gy + first[0])[None, :, None] + oy
    x = (panels % geometry.panels_across * columns)[:, None, None] + (gx + first[1])[None, :, None] + ox
    inside = (y >= 0) & (y < geometry.height) & (x >= 0) & (x < geometry.width)
    panel, vector, lane = geometry.locate(np.where(inside, y, 0), np.where(inside, x, 0))
    element = (panel * channels * geometry.vectors + vector) * geometry.lanes
    source = np.where(inside, element, -1).max(2)
    if not ((element == source[..., None]) | ~inside).all():
        return None
    indices: dict[tuple[int, ...], int] = {}
    index = np.zeros(source.shape, np.int64)
    for at in np.ndindex(source.shape):
        index[at] = indices.setdefault(lane_index(lane[at], inside[at]), len(indices))
    sources = np.stack([np.maximum(source, 0), index * geometry.lanes], -1)
    return Ring(sources, np.asarray(list(indices), np.int64).reshape(-1, geometry.lanes))
