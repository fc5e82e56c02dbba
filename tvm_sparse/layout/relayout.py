"""Index tables of the relayout kernels: which element of a tensor each lane reads."""

from __future__ import annotations

import numpy as np

from .geometry import Geometry


def pixels_from_image(geometry: Geometry, image_stride: int, row_stride: int, column_stride: int) -> np.ndarray:
    """Element of every lane within one channel of a set of plain images (or token matrices).

    Parameters
    ----------
    geometry : Geometry
        Geometry to fill.
    image_stride, row_stride, column_stride : int
        Elements between images, between rows and between columns.

    Returns
    -------
    numpy.ndarray
        int64 ``[panels, vectors, lanes]``; lanes without a pixel repeat one of the image.
    """
    y, x = geometry.nearest_pixel
    return geometry.lane_image * image_stride + y * row_stride + x * column_stride


def count_sets(source: Geometry, target: Geometry) -> tuple[int, int]:
    """Sets of the source and of the target, as few as possible, that hold the same images.

    Raises
    ------
    ValueError
        If the sets of neither hold whole sets of the other.
    """
    images = max(source.images, target.images)
    if images % source.images or images % target.images:
        raise ValueError(f"sets of neither {source} nor {target} hold whole sets of the other")
    return images // source.images, images // target.images


def pixels_from_columns(
    target: Geometry, source: Geometry, channels: int, y: np.ndarray, x: np.ndarray
) -> np.ndarray:
    """Element of every lane within one channel of as many sets of a tensor in columns as `count_sets` says.

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
        int64 ``[sets * panels, vectors, lanes]``, those of the target.
    """
    _, sets = count_sets(source, target)
    at = target.nearest_pixel
    image = np.arange(sets)[:, None, None, None] * target.images + target.lane_image
    elements = column_elements(source, channels, y[at], x[at], image)
    return elements.reshape(sets * target.panels, target.vectors, target.lanes)


def column_elements(
    source: Geometry, channels: int, y: np.ndarray, x: np.ndarray, image: np.ndarray | int = 0
) -> np.ndarray:
    """Element of pixels within the first channel of a tensor in columns; arguments as of `Geometry.locate`."""
    panel, vector, lane = source.locate(y, x, image)
    return (panel * channels * source.vectors + vector) * source.lanes + lane


def image_pixels(source: Geometry, channels: int) -> np.ndarray:
    """Element of every pixel of a set, row by row, int64 ``[images, height * width]``."""
    sizes = (source.images, source.height, source.width)
    image, y, x = np.meshgrid(*(np.arange(size) for size in sizes), indexing="ij")
    return column_elements(source, channels, y, x, image).reshape(source.images, -1)
