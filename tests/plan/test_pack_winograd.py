"""Which dense layers fast algorithms compute, and the limits of their buffers."""

from dataclasses import replace

import numpy as np
import pytest

from tvm_sparse.layout.geometry import choose_geometry
from tvm_sparse.layout.halo import Window
from tvm_sparse.layout.table import TableValues
from tvm_sparse.plan.choose import choose_format, dense_cycles, faster_winograd
from tvm_sparse.plan.layer import Convolution
from tvm_sparse.plan.pack import pack_layer
from tvm_sparse.plan.pack_winograd import winograd_kernel
from tvm_sparse.plan.plan import Plan
from tvm_sparse.schedules.cpu.isa import AVX2, AVX512, NEON
from tvm_sparse.schedules.cpu.winograd_columns import COMBINED_ELEMENTS, FIELDS, WinogradKernel, register_tile


def layer(outputs, channels, kernel=3, stride=1, dilation=1, groups=1):
    weight = np.ones((outputs, channels // groups, kernel, kernel), np.float32)
    reach = (kernel - 1) * dilation
    before, after = (reach // 2,) * 2, (reach - reach // 2,) * 2
    window = Window((kernel,) * 2, (stride,) * 2, (dilation,) * 2, (*before, *after))
    return Convolution(weight, np.zeros(outputs, np.float32), window, groups)


@pytest.mark.parametrize("isa", [AVX512, AVX2, NEON], ids=lambda isa: isa.name)
@pytest.mark.parametrize(
    ("size", "convolution", "fast"),
    [
        (56, layer(64, 64), True),
        (28, layer(128, 128), True),
        (112, layer(64, 3, 7, 2), True),
        (56, layer(64, 64, 1), False),  # nothing to combine
        (112, layer(32, 3, 3, 2), False),  # combining costs more than it saves
        (56, layer(64, 64, dilation=2), False),
        (56, layer(64, 64, groups=2), False),
        (56, layer(0, 64), False),
    ],
    ids=str,
)
def test_layers_that_gain(isa, size, convolution, fast):
    stride = convolution.window.stride[0]
    source, target = (choose_geometry(1, n, n, isa.lanes) for n in (size * stride, size))
    kernel = faster_winograd(convolution, target, isa)
    assert (kernel is not None) == fast
    if convolution.weight.size:
        packed = pack_layer("dense", convolution, source, target, isa)
        assert isinstance(packed.kernel, WinogradKernel) == fast
    if fast:
        alone = replace(convolution, weight=np.full_like(convolution.weight, np.inf))
        assert dense_cycles(convolution, source, target, isa) < dense_cycles(alone, source, target, isa) / 1.15


def test_infinite_weights_are_multiplied_as_they_are():
    convolution = layer(64, 64)
    convolution.weight[3, 2, 1, 1] = -np.inf
    assert winograd_kernel(convolution, choose_geometry(1, 56, 56, 16), AVX512) is None


def test_sparse_must_be_faster_than_the_fast_algorithm():
    geometry = choose_geometry(1, 56, 56, 16)
    pruned, row = layer(64, 64), layer(64, 64, 1)
    choices = {}
    for convolution in (pruned, row):
        order = np.random.default_rng(0).permutation(convolution.weight.size)
        convolution.weight.reshape(-1)[order[: round(0.5 * order.size)]] = 0
        choice = choose_format(Plan(), "layer", convolution, geometry, geometry, AVX512)
        choices[convolution.window.kernel] = choice.format
    assert choices == {(3, 3): "dense", (1, 1): "unstructured"}


@pytest.mark.parametrize("isa", [AVX512, AVX2], ids=lambda isa: isa.name)
@pytest.mark.parametrize("vectors", range(1, 15))
def test_register_tile_fits(isa, vectors):
    rows, width = register_tile(isa, vectors)
    # Sums, the vectors of a step, a weight.
    assert rows >= 4 and rows * width + width + 1 <= isa.registers


def test_channels_of_a_block_fit_their_buffer():
    geometry = choose_geometry(1, 56, 56, 16)
    packed = pack_layer("dense", layer(64, 512), geometry, geometry, AVX512)
    down, across = packed.kernel.axes
    table = TableValues(FIELDS, packed.arrays[-1])
    blocks = int(table.array("block_pointers", table.scalar("chunks") + 1)[-1])
    channels = table.array("block", 4 * blocks).reshape(-1, 4)[:, 1]
    assert channels.sum() == 512 * table.scalar("chunks") and blocks > table.scalar("chunks")
    assert channels.max() * down.products * across.products * packed.kernel.vectors * 16 <= COMBINED_ELEMENTS
