"""Index tables of the relayout kernels: which element of a tensor each lane reads."""

from __future__ import annotations

import numpy as np

from .geometry import Geometry


def pixels_from_image(geometry: Geometry, row_stride: int, column_stride: int) -> np.ndarray:
    """Element of every lane within one channel of a plain image (or token matrix).

    Parameters
    ----------
    geometry : Geometry
        Geometry to fill.
    row_stride, column_stride : int
        Elements between rows and between columns of the image.

    Returns
    -------
    numpy.ndarray
        int64 ``[panels, vectors, lanes]``; lanes without a pixel repeat one of the image.
    """
    panel, vector = np.meshgrid(np.arange(geometry.panels), np.arange(geometry.vectors), indexing="ij")
    y, x = geometry.pixel(panel, vector)
    y, x = np.clip(y, 0, geometry.height - 1), np.clip(x, 0, geometry.width - 1)
    return y * row_stride + x * column_stride


def pixels_from_columns(
    target: Geometry, source: Geometry, channels: int, y: np.ndarray, x: np.ndarray
) -> np.ndarray:
    """Element of every lane within one channel of a tensor in columns.

    Parameters
    ----------
    target, source : Geometry
        Geometries written and read.
    channels : int
        Channels of the tensor that is read.
    y, x : numpy.ndarray
        Row and column of the source that each pixel of the target reads, ``[height, width]``.

    Returns
    -------
    numpy.ndarray
        int64 ``[panels, vectors, lanes]``.
    """
    panel, vector = np.meshgrid(np.arange(target.panels), np.arange(target.vectors), indexing="ij")
    at_y, at_x = target.pixel(panel, vector)
    at_y, at_x = np.clip(at_y, 0, target.height - 1), np.clip(at_x, 0, target.width - 1)
    return column_elements(source, channels, y[at_y, at_x], x[at_y, at_x])


def column_elements(source: Geometry, channels: int, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Element of pixels within the first channel of one image in columns, in the shape of `y`."""
    panel, vector, lane = source.locate(y, x)
    return (panel * channels * source.vectors + vector) * source.lanes + lane


def image_pixels(source: Geometry, channels: int) -> np.ndarray:
    """Element of every pixel, row by row, int64 ``[height * width]``."""
    y, x = np.meshgrid(np.arange(source.height), np.arange(source.width), indexing="ij")
    return column_elements(source, channels, y, x).reshape(-1)
