"""Vectors around panels: read as a ring says, they hold the pixels of the padded image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_sparse.layout.geometry import Geometry
from tvm_sparse.layout.merge import TAKE
from tvm_sparse.layout.ring import Ring, ring_of_panels


def read(ring: Ring, images: np.ndarray, source: Geometry, target: Geometry) -> np.ndarray:
    """``[panels, places, lanes]`` as the kernels read them, of one channel; what stays out of the image is zero."""
    stored = source.pack(images, fill=np.nan)[:, 0]
    out = np.zeros((target.panels, len(ring.places), source.lanes))
    for panel in range(target.panels):
        for number, place in enumerate(ring.places):
            of_base = (a[panel, place.base] for a in (ring.panels, ring.vectors, ring.shifts))
            stored_panel, first, shift = (int(number) for number in of_base)
            begin = (first + place.vector) * source.lanes + shift
            assert shift == 0 or place.shifted
            # Never beyond the panel of a channel, whose end may be that of the memory.
            vector = stored[stored_panel].reshape(-1)[begin : begin + source.lanes]
            assert begin >= 0 and len(vector) == source.lanes
            if place.lane is None or ring.inner[panel]:
                out[panel, number] = vector
                continue
            index = ring.lanes[ring.indices[panel, place.lane]]
            taken = (index & TAKE) != 0
            if place.shifted:
                assert set(index.tolist()) <= {0, -1}
                index = np.arange(source.lanes)
            out[panel, number] = np.where(taken, vector[index & (source.lanes - 1)], 0.0)
    return out


def expected(images, source, target, places, first, stride):
    """The same pixels from the padded images."""
    top, left = (max(0, -f) for f in first)
    far = 8 + 2 * max(source.sub_height * source.grid[0], source.sub_width * source.grid[1]) * max(stride)
    padded = np.pad(images[:, 0], ((0, 0), (top, far), (left, far)))
    out = np.zeros((target.panels, len(places), source.lanes))
    rows, columns = target.tile
    for panel in range(target.panels):
        py, px = divmod(panel, target.panels_across)
        for number, (gy, gx) in enumerate(places):
            for lane in range(target.images * target.image_lanes):
                oy, ox = (int(o[lane]) for o in target.lane_origin)
                y = (py * rows + oy) * stride[0] + gy + first[0] + top
                x = (px * columns + ox) * stride[1] + gx + first[1] + left
                out[panel, number, lane] = padded[target.lane_image[lane], y, x]
    return out


# With the number of images that share the 16 lanes.
GRIDS_OF_IMAGES = [
    *(((4, 4), 1), ((2, 8), 1), ((7, 2), 1), ((1, 16), 1), ((3, 5), 1)),
    *(((2, 3), 2), ((1, 2), 8), ((1, 1), 16)),
]


@given(
    st.sampled_from(GRIDS_OF_IMAGES),
    st.tuples(st.integers(1, 3), st.integers(1, 4)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.sampled_from([(1, 1), (2, 2), (2, 1)]),
    st.tuples(st.integers(-2, 0), st.integers(-2, 0)),
    st.tuples(st.integers(0, 1), st.integers(0, 1)),
    st.booleans(),
)
def test_reads_the_padded_images(grid_of_images, tile, panels, stride, first, short, shifted):
    grid, count = grid_of_images
    size = tuple(g * t * p for g, t, p in zip(grid, tile, panels, strict=True))
    # An image that does not fill the last subimages, too.
    height, width = (max(1, s - less) for s, less in zip(size, short, strict=True))
    target = Geometry(count, height, width, 16, grid, tile, count)
    source_tile = tuple(t * s for t, s in zip(tile, stride, strict=True))
    source = Geometry(count, height * stride[0], width * stride[1], 16, grid, source_tile, count)
    places = tuple((gy, gx) for gy in range(source_tile[0] + 2) for gx in range(source_tile[1] + 2))
    images = np.random.default_rng(0).uniform(1, 2, (count, 1, source.height, source.width))
    ring = ring_of_panels(source, target, places, first, stride, shifted)
    if ring is None:
        # Only where the image does not fill its subimages.
        assert short != (0, 0)
        return
    used = np.arange(16) < target.images * target.image_lanes
    got, want = (a[..., used] for a in (read(ring, images, source, target),
                                        expected(images, source, target, places, first, stride)))  # fmt: skip
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("grid, tile, size, bases, moves", [
    ((4, 4), (1, 7), (28, 28), 3, 8),  # the panel with those above and below
    ((7, 2), (1, 7), (14, 14), 2, 8),
    ((4, 4), (2, 2), (7, 7), 1, 15),
])  # fmt: skip
def test_panels_share_bases_and_moves(grid, tile, size, bases, moves):
    geometry = Geometry(1, *size, 16, grid, tile)
    places = tuple((gy, gx) for gy in range(tile[0] + 2) for gx in range(tile[1] + 2))
    ring = ring_of_panels(geometry, geometry, places, (-1, -1))
    assert ring.panels.shape == (geometry.panels, bases) and ring.indices.shape == (geometry.panels, moves)


@pytest.mark.parametrize("tile, moved", [((4, 4), 0), ((2, 2), 0), ((1, 4), 4), ((4, 1), 4)])
def test_vectors_are_read_beside_their_place(tile, moved):
    """Lanes are moved only where what lies beside a vector is not of its panel and channel."""
    geometry = Geometry(1, 32, 32, 16, (4, 4), tile)
    places = tuple((gy, gx) for gy in range(tile[0] + 2) for gx in range(tile[1] + 2))
    ring = ring_of_panels(geometry, geometry, places, (-1, -1), shifted=True)
    outside = [p for p in ring.places if p.lane is not None]
    assert len(outside) == len(places) - tile[0] * tile[1]
    assert sum(not p.shifted for p in outside) == moved
    assert not any(p.shifted for p in ring_of_panels(geometry, geometry, places, (-1, -1)).places)


@pytest.mark.parametrize("size, stride, inner", [
    ((48, 64), (1, 1), [[0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]),
    ((48, 64), (2, 2), [[0, 0, 0, 0], [0, 1, 1, 1], [0, 1, 1, 1]]),  # windows reach no row and column after theirs
    ((47, 64), (1, 1), [[0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]),
    ((16, 16), (1, 1), [[0]]),
])  # fmt: skip
def test_inner_panels_move_no_lanes(size, stride, inner):
    tile = (4, 4)
    target = Geometry(1, *size, 16, (4, 4), tile)
    source_tile = tuple(t * s for t, s in zip(tile, stride, strict=True))
    source = Geometry(1, size[0] * stride[0], size[1] * stride[1], 16, (4, 4), source_tile)
    extent = tuple((t - 1) * s + 3 for t, s in zip(tile, stride, strict=True))
    places = tuple((gy, gx) for gy in range(extent[0]) for gx in range(extent[1]))
    ring = ring_of_panels(source, target, places, (-1, -1), stride)
    np.testing.assert_array_equal(ring.inner.reshape(target.panels_down, target.panels_across), inner)


def test_lanes_of_several_vectors():
    source, target = Geometry(1, 14, 14, 16, (7, 2), (1, 7)), Geometry(1, 7, 7, 16, (4, 4), (2, 2))
    assert ring_of_panels(source, target, ((0, 0),), (-1, -1), (2, 2)) is None
