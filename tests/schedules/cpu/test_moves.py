"""Moving and blending pixels between random geometries, and plain tensors of random sizes to columns and back."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from tvm_sparse.layout import relayout, resample
from tvm_sparse.layout.geometry import Geometry, choose_geometry
from tvm_sparse.plan.pack_moves import pack_blend, pack_images, pack_move
from tvm_sparse.plan.pack_plain import Strides, pack_from_columns, pack_to_columns

from .compiled import call, every_isa, isa_of

SIZES = (1, 2, 3, 5, 7, 8, 14, 15, 20, 33, 56)
# What lanes without a pixel hold: nothing may come of it.
NOWHERE = 1e30


def geometry_of(rng: np.random.Generator, batch: int, height: int, width: int, lanes: int) -> Geometry:
    """The chosen geometry, or any other."""
    if rng.random() < 0.6:
        return choose_geometry(batch, height, width, lanes)
    images = int(rng.choice([n for n in (1, 2, 4) if batch % n == 0]))
    down = int(rng.integers(1, lanes // images + 1))
    across = int(rng.integers(1, lanes // images // down + 1))
    tile = (int(rng.integers(1, 5)), int(rng.integers(1, 4)))
    return Geometry(batch, height, width, lanes, (down, across), tile, images)


def pair(rng: np.random.Generator, lanes: int) -> tuple[Geometry, Geometry, np.ndarray]:
    """Two geometries, half of the time of one size, and images for the first."""
    batch, channels = int(rng.integers(1, 5)), int(rng.integers(1, 25))
    height, width, new_height, new_width = (int(size) for size in rng.choice(SIZES, 4))
    if rng.random() < 0.5:
        new_height, new_width = height, width
    source = geometry_of(rng, batch, height, width, lanes)
    target = geometry_of(rng, batch, new_height, new_width, lanes)
    return source, target, rng.standard_normal((batch, channels, height, width)).astype("float32")


@every_isa
@pytest.mark.parametrize("seed", range(4))
def test_any_pixels_move(isa_name, seed):
    rng, isa = np.random.default_rng(seed), isa_of(isa_name)
    for _ in range(8):
        source, target, images = pair(rng, isa.lanes)
        channels = images.shape[1]
        y = rng.integers(0, source.height, (target.height, target.width))
        x = rng.integers(0, source.width, (target.height, target.width))
        if (target.height, target.width) == (source.height, source.width) and rng.random() < 0.5:
            y, x = np.mgrid[: source.height, : source.width]
        pixels = relayout.pixels_from_columns(target, source, channels, y, x)
        packed = pack_move(pixels, source, target, channels, channels, isa)
        got = call(packed.kernel, isa_name, [source.pack(images), *packed.arrays], target.shape(channels))
        assert np.isfinite(got).all()
        np.testing.assert_array_equal(target.unpack(got), images[:, :, y, x])


@every_isa
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("mode", ["half_pixel", "align_corners", "asymmetric"])
def test_linear_resizing(isa_name, mode, residual):
    rng, isa = np.random.default_rng(0), isa_of(isa_name)
    for _ in range(10):
        source, target, images = pair(rng, isa.lanes)
        channels = images.shape[1]
        sizes = ((source.height, target.height), (source.width, target.width))
        axes = [resample.linear(resample.source_positions(*size, mode), size[0]) for size in sizes]
        pixels, weights = [], []
        for down, across in product(range(2), repeat=2):
            y, x = np.meshgrid(axes[0][0][down], axes[1][0][across], indexing="ij")
            pixels.append(relayout.pixels_from_columns(target, source, channels, y, x))
            weight = np.outer(axes[0][1][down], axes[1][1][across]).astype("float32")
            packed_weight = target.pack(np.broadcast_to(weight, (target.batch, 1, *weight.shape)))
            weights.append(packed_weight[: target.panels, 0])
        packed = pack_blend(np.stack(pixels, 2), np.stack(weights, 2), source, target, channels, isa, residual)
        stored = [source.pack(images, NOWHERE)]
        other = rng.standard_normal((target.batch, channels, target.height, target.width)).astype("float32")
        if residual:
            stored.append(target.pack(other, NOWHERE))
        got = call(packed.kernel, isa_name, [*stored, *packed.arrays], target.shape(channels))
        # Both axes as matrices, in double precision.
        matrices = [np.zeros((new, old)) for old, new in sizes]
        for matrix, (at, weight) in zip(matrices, axes, strict=True):
            for tap in range(2):
                np.add.at(matrix, (np.arange(len(matrix)), at[tap]), weight[tap])
        expected = np.einsum("yi,ncij,xj->ncyx", matrices[0], images.astype("float64"), matrices[1], optimize=True)
        expected = expected + other if residual else expected
        np.testing.assert_allclose(target.unpack(got), expected, rtol=1e-5, atol=2e-6)


@every_isa
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_plain_tensors_and_back(isa_name, channels_last, seed):
    rng, isa = np.random.default_rng(seed), isa_of(isa_name)
    for _ in range(10):
        geometry, _, images = pair(rng, isa.lanes)
        batch, channels, height, width = images.shape
        plain = np.ascontiguousarray(images.transpose(0, 2, 3, 1)) if channels_last else images
        strides = Strides(width * channels, channels, 1) if channels_last else Strides(width, 1, height * width)
        packed = pack_to_columns(geometry, channels, strides, 4)
        got = call(packed.kernel, isa_name, [plain, *packed.arrays], geometry.shape(channels))
        assert np.isfinite(got).all()
        np.testing.assert_array_equal(geometry.unpack(got), images)
        packed = pack_from_columns(geometry, channels, strides, 4, isa)
        back = call(packed.kernel, isa_name, [geometry.pack(images, NOWHERE), *packed.arrays], plain.shape)
        np.testing.assert_array_equal(back, plain)


@every_isa
@pytest.mark.parametrize("size", [(4, 4), (7, 7), (14, 3), (1, 40), (24, 24)])
def test_images_merged_from_columns(isa_name, size):
    isa = isa_of(isa_name)
    geometry = choose_geometry(2, *size, isa.lanes)
    images = np.random.default_rng(0).standard_normal((2, 19, *size)).astype("float32")
    packed = pack_images(geometry, 19, isa)
    got = call(packed.kernel, isa_name, [geometry.pack(images, NOWHERE), *packed.arrays], images.shape)
    np.testing.assert_array_equal(got, images)
