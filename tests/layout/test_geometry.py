"""Geometry: every pixel has one place, and columns turn back into the images that they were made of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.layout.strategies import LANES, geometries
from tvm_sparse.layout.geometry import Geometry, choose_geometry

# Vectors of the largest register tile.
MAX_VECTORS = 14


def pack_by_transposing(geometry: Geometry, images: np.ndarray, fill: float) -> np.ndarray:
    """Columns as the module's text describes them: sets, subimages, panels, tiles are axes of the padded images."""
    (down, across), (rows, columns) = geometry.grid, geometry.tile
    batch, channels = images.shape[:2]
    padded = np.full((batch, channels, down * geometry.sub_height, across * geometry.sub_width), fill, images.dtype)
    padded[:, :, : geometry.height, : geometry.width] = images
    axes = padded.reshape(
        batch // geometry.images, geometry.images, channels,
        down, geometry.panels_down, rows, across, geometry.panels_across, columns,
    )  # fmt: skip
    # [set, panel row, panel column, channel, tile column, tile row, image, subimage row, subimage column]
    used = down * across * geometry.images
    vectors = axes.transpose(0, 4, 7, 2, 8, 5, 1, 3, 6).reshape(-1, channels, geometry.vectors, used)
    unused = geometry.lanes - used
    return np.pad(vectors, [(0, 0)] * 3 + [(0, unused)], constant_values=fill)


@given(geometries(), st.integers(1, 3))
def test_columns_are_the_image_transposed(geometry, channels):
    shape = (geometry.batch, channels, geometry.height, geometry.width)
    images = np.arange(1, np.prod(shape) + 1, dtype="float32").reshape(shape)
    columns = geometry.pack(images, fill=-1.0)
    assert columns.shape == geometry.shape(channels)
    np.testing.assert_array_equal(columns, pack_by_transposing(geometry, images, -1.0))
    np.testing.assert_array_equal(geometry.unpack(columns), images)


@given(geometries())
def test_every_pixel_has_one_lane(geometry):
    sizes = (geometry.images, geometry.height, geometry.width)
    image, y, x = np.meshgrid(*(np.arange(size) for size in sizes), indexing="ij")
    panel, vector, lane = geometry.locate(y, x, image)
    places = (panel * geometry.vectors + vector) * geometry.lanes + lane
    assert len(np.unique(places)) == geometry.images * geometry.pixels
    assert places.min() >= 0 and places.max() < geometry.panels * geometry.vectors * geometry.lanes
    # The way back.
    np.testing.assert_array_equal(geometry.lane_image[lane], image)
    back_y, back_x = geometry.pixel(panel, vector)
    np.testing.assert_array_equal(np.take_along_axis(back_y, lane[..., None], -1)[..., 0], y)
    np.testing.assert_array_equal(np.take_along_axis(back_x, lane[..., None], -1)[..., 0], x)
    # Lanes with a pixel are those that a pixel is in.
    used = np.zeros(geometry.panels * geometry.vectors * geometry.lanes, bool)
    used[places.reshape(-1)] = True
    np.testing.assert_array_equal(geometry.used.reshape(-1), used)
    assert geometry.utilisation == pytest.approx(used.mean())
    # Panels of later sets follow those of this one.
    later, *rest = geometry.locate(y, x, image + geometry.images)
    np.testing.assert_array_equal(later, panel + geometry.panels)
    np.testing.assert_array_equal(rest, [vector, lane])


@given(geometries())
def test_subimages_cover_the_image(geometry):
    assert geometry.sub_height * geometry.grid[0] >= geometry.height
    assert geometry.sub_width * geometry.grid[1] >= geometry.width
    assert geometry.sub_height % geometry.tile[0] == 0 and geometry.sub_width % geometry.tile[1] == 0
    assert geometry.panels == geometry.panels_down * geometry.panels_across


@given(geometries())
def test_dtypes_are_kept(geometry):
    images = np.ones((geometry.batch, 1, geometry.height, geometry.width), np.int8)
    columns = geometry.pack(images)
    assert columns.dtype == np.int8 and columns.sum() == images.size
    assert geometry.unpack(columns).dtype == np.int8


@settings(max_examples=60)
@given(st.integers(1, 4), st.integers(1, 40), st.integers(1, 40), LANES)
def test_choice(batch, height, width, lanes):
    geometry = choose_geometry(batch, height, width, lanes)
    assert (geometry.batch, geometry.height, geometry.width, geometry.lanes) == (batch, height, width, lanes)
    assert geometry.vectors <= MAX_VECTORS
    # No lane is without a subimage where the image has pixels enough, and none waste more than they need.
    assert geometry.grid[0] <= height and geometry.grid[1] <= width
    if height * width >= 16 * lanes:
        assert geometry.utilisation > 0.5
    # Whole images of one size share their geometry, whatever their number.
    alone, other = (choose_geometry(n, height, width, lanes, most_images=1) for n in (1, batch))
    assert (alone.grid, alone.tile) == (other.grid, other.tile)


@pytest.mark.parametrize("lanes", [8, 16])
def test_small_images_share_vectors(lanes):
    for size in (7, 14):
        geometry, alone = (choose_geometry(16, size, size, lanes, most_images=most) for most in (None, 1))
        assert geometry.images > 1 and geometry.utilisation > alone.utilisation
    assert choose_geometry(16, 28, 28, lanes).images == 1
    # As many as divide the batch.
    assert choose_geometry(6, 3, 3, lanes).images == 2 and choose_geometry(5, 3, 3, lanes).images == 1
    # Sequences stay apart.
    assert choose_geometry(16, 1, 49, lanes, tokens=True).images == 1


@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_usual_images_waste_nothing_and_keep_their_lanes(lanes):
    chosen = [choose_geometry(1, size, size, lanes) for size in (112, 56, 28)]
    assert [geometry.utilisation for geometry in chosen] == [1.0] * 3
    assert len({geometry.grid for geometry in chosen}) == 1


def test_tokens_are_an_image_of_one_row():
    geometry = choose_geometry(1, 1, 128, 8, tokens=True)
    assert geometry.utilisation == 1.0 and geometry.tile[0] == 1 and geometry.grid[0] == 1


@pytest.mark.parametrize("width", [200, 400, 1000, 3000])
def test_images_of_one_row_have_long_tiles(width):
    """What the outputs of a tile read around them would else be many times the tile."""
    image, tokens = (choose_geometry(1, 1, width, 16, tokens) for tokens in (False, True))
    assert image.vectors > tokens.vectors and image.vectors >= 9


def test_a_single_pixel():
    geometry = choose_geometry(1, 1, 1, 16)
    assert (geometry.panels, geometry.vectors) == (1, 1)
    columns = geometry.pack(np.full((1, 2, 1, 1), 7.0, np.float32))
    np.testing.assert_array_equal(columns[0, :, 0], [[7.0] + [0.0] * 15] * 2)


@pytest.mark.parametrize("position", range(7))
def test_sizes_must_be_positive(position):
    sizes = [1, 4, 4, 8, (2, 2), (1, 1), 1]
    sizes[position] = (0, 1) if position in (4, 5) else 0
    with pytest.raises(ValueError, match="at least 1"):
        Geometry(*sizes)


def test_grid_must_fit_the_lanes():
    assert Geometry(1, 8, 8, 8, (2, 4), (1, 1)).panels == 8
    with pytest.raises(ValueError, match="more than 8 lanes"):
        Geometry(1, 8, 8, 8, (3, 3), (1, 1))


def test_images_must_fit_the_lanes_and_the_batch():
    assert Geometry(6, 8, 8, 8, (2, 2), (1, 1), 2).sets == 3
    with pytest.raises(ValueError, match="of 4 images needs more than 8 lanes"):
        Geometry(4, 8, 8, 8, (2, 2), (1, 1), 4)
    with pytest.raises(ValueError, match="sets of 2 images do not divide a batch of 3"):
        Geometry(3, 8, 8, 8, (2, 2), (1, 1), 2)


def test_tensors_of_another_size_are_refused():
    geometry = choose_geometry(2, 6, 7, 8)
    for shape in ((1, 3, 6, 7), (2, 3, 7, 6), (2, 3, 6, 8)):
        with pytest.raises(ValueError, match="do not fit"):
            geometry.pack(np.zeros(shape, np.float32))
    panels, channels, vectors, lanes = geometry.shape(3)
    for shape in (
        (panels + 1, channels, vectors, lanes),
        (panels, channels, vectors + 1, lanes),
        (panels, channels, vectors, lanes * 2),
    ):
        with pytest.raises(ValueError, match="do not fit"):
            geometry.unpack(np.zeros(shape, np.float32))
