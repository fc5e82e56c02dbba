"""Where dense layers have their output channels in the lanes, and how they are cut."""

import numpy as np
import pytest

from tvm_sparse.layout.geometry import Geometry, choose_geometry
from tvm_sparse.layout.halo import Window
from tvm_sparse.layout.table import TableValues
from tvm_sparse.plan.choose import dense_cycles
from tvm_sparse.plan.layer import Convolution
from tvm_sparse.plan.pack import pack_layer
from tvm_sparse.plan.pack_pixels import computed_pixels, pack_pixels, suits_pixels
from tvm_sparse.schedules.cpu.dense_columns import DenseColumnsKernel
from tvm_sparse.schedules.cpu.dense_pixels import FIELDS, SUMS_ELEMENTS, DensePixels, group_sizes
from tvm_sparse.schedules.cpu.isa import AVX2, AVX512


def layer(outputs, channels=8, groups=1):
    weight = np.ones((outputs, channels // groups, 1, 1), np.float32)
    return Convolution(weight, np.zeros(outputs, np.float32), Window((1, 1)), groups)


@pytest.mark.parametrize(
    ("size", "outputs", "groups", "isa", "kernel"),
    [
        (7, 64, 1, AVX512, DensePixels),
        (14, 64, 1, AVX512, DensePixels),
        (7, 64, 1, AVX2, DensePixels),
        (28, 64, 1, AVX512, DenseColumnsKernel),  # the pixels fill the lanes
        (7, 60, 1, AVX512, DenseColumnsKernel),  # the output channels do not
        (7, 64, 2, AVX512, DenseColumnsKernel),
    ],
)
def test_kernel_of_an_image(size, outputs, groups, isa, kernel):
    geometry = choose_geometry(1, size, size, isa.lanes)
    packed = pack_layer("dense", layer(outputs, groups=groups), geometry, geometry, isa)
    assert isinstance(packed.kernel, kernel)


def test_estimate_counts_the_pixels_that_are_computed():
    geometry = choose_geometry(1, 7, 7, 16)
    assert computed_pixels(geometry, AVX512) == 49 and geometry.vectors * 16 == 64
    wide, odd = layer(64), layer(63)
    assert suits_pixels(wide, geometry, AVX512) and not suits_pixels(odd, geometry, AVX512)
    ratio = dense_cycles(wide, geometry, geometry, AVX512) / dense_cycles(odd, geometry, geometry, AVX512)
    assert ratio == pytest.approx(49 / 64 * 64 / 63)


@pytest.mark.parametrize("isa", [AVX2, AVX512], ids=str)
def test_groups_of_two_sizes_leave_no_rest(isa):
    large, small = group_sizes(isa)
    for pixels in range(1, 100):
        vectors = -(-pixels // isa.lanes)
        panel = Geometry(1, 1, pixels, isa.lanes, (1, isa.lanes), (1, vectors))
        computed = computed_pixels(panel, isa)
        # The fewest groups that hold them, and no pixel more than groups of the two sizes can help.
        groups = -(-pixels // large)
        assert computed == max(pixels, groups * small)
        if pixels >= large * small - large - small + 1:
            assert computed == pixels


@pytest.mark.parametrize("outputs", [16, 48, 80, 2048, 2064, 4096])
def test_chunks_hold_whole_vectors_and_fit_the_sums(outputs):
    geometry = choose_geometry(1, 7, 7, 16)
    packed = pack_pixels(layer(outputs), geometry, geometry, AVX512)
    table = TableValues(FIELDS, packed.arrays[-1])
    assert table.scalar("chunks") * table.scalar("chunk_vectors") * 16 == outputs
    assert 49 * table.scalar("sums_pixel") <= SUMS_ELEMENTS
    # Rows of sums that lie a power of two apart would share a few sets of the cache.
    assert table.scalar("sums_pixel") == table.scalar("chunk_vectors") * 16 + 16
