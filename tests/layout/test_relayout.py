"""Index tables of relayouts, applied with numpy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.layout.strategies import LANES, geometries
from tvm_sparse.layout.geometry import Geometry
from tvm_sparse.layout.relayout import column_elements, count_sets, image_pixels, pixels_from_columns, pixels_from_image


@given(geometries(), st.booleans())
def test_image_to_columns(geometry, channels_last):
    rng = np.random.default_rng(0)
    height, width, channels = geometry.height, geometry.width, 3
    image = rng.standard_normal((geometry.images, channels, height, width)).astype("float32")
    if channels_last:
        plain, strides, step = image.transpose(0, 2, 3, 1).reshape(-1), (width * channels, channels), 1
    else:
        plain, strides, step = image.reshape(-1), (width, 1), height * width
    index = pixels_from_image(geometry, channels * height * width, *strides)
    assert index.shape == (geometry.panels, geometry.vectors, geometry.lanes)
    # Lanes without a pixel are read too: they must lie inside.
    assert index.min() >= 0 and index.max() + (channels - 1) * step < image.size
    columns = np.stack([plain[index + c * step] for c in range(channels)], 1)
    np.testing.assert_array_equal(replace(geometry, batch=geometry.images).unpack(columns), image)


@given(geometries())
def test_columns_to_image(geometry):
    channels = 3
    images = np.random.default_rng(0).standard_normal((geometry.batch, channels, geometry.height, geometry.width))
    stored = geometry.pack(images).reshape(geometry.sets, -1)
    index = image_pixels(geometry, channels)
    step = geometry.vectors * geometry.lanes
    got = np.stack([stored[:, index + c * step] for c in range(channels)], 2)
    np.testing.assert_array_equal(got.reshape(images.shape), images)


@settings(max_examples=60)
@given(st.data(), LANES)
def test_columns_to_columns(data, lanes):
    source = data.draw(geometries(batch=4, lanes=lanes, limit=20))
    target = data.draw(geometries(batch=4, lanes=lanes, limit=20))
    channels = 2
    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    # Any pixel may read any other one.
    y = rng.integers(0, source.height, (target.height, target.width))
    x = rng.integers(0, source.width, (target.height, target.width))
    images = rng.standard_normal((4, channels, source.height, source.width))
    sets_in, sets_out = count_sets(source, target)
    stored = source.pack(images, fill=np.nan).reshape(source.sets // sets_in, -1)
    index = pixels_from_columns(target, source, channels, y, x)
    assert index.shape == (sets_out * target.panels, target.vectors, target.lanes)
    step = source.vectors * source.lanes
    columns = np.stack([stored[:, index + c * step] for c in range(channels)], 2).reshape(target.shape(channels))
    # Lanes without a pixel repeat one, so that no garbage is computed with.
    assert not np.isnan(columns).any()
    np.testing.assert_array_equal(target.unpack(columns), images[:, :, y, x])


def test_elements_count_the_channels_between_panels():
    geometry = Geometry(1, 8, 8, 4, (2, 2), (1, 2))
    first, second = np.array([0, 1]), np.array([0, 0])
    at = column_elements(geometry, 5, first, second)
    # The next row is two panels further: two panels of 5 channels of 2 vectors of 4 lanes.
    assert (at[1] - at[0]).item() == geometry.panels_across * 5 * 2 * 4
