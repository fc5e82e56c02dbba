"""Packed layers, run in numpy, against convolutions written out."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.layout.halo_in_numpy import windows_in_numpy
from tests.layout.strategies import geometries, windows
from tests.plan.columns_in_numpy import convolve, run_columns
from tests.plan.panels_in_numpy import run_pool
from tests.sparsity.weights import pruned
from tvm_sparse.errors import TvmSparseError
from tvm_sparse.layout.geometry import Geometry, choose_geometry
from tvm_sparse.layout.halo import Window
from tvm_sparse.plan.layer import Convolution
from tvm_sparse.plan.pack_blocks import pack_blocks
from tvm_sparse.plan.pack_columns import pack_dense, pack_sparse
from tvm_sparse.plan.pack_pool import pack_max_pool
from tvm_sparse.plan.places import part_size
from tvm_sparse.schedules.cpu.epilogue import Activation
from tvm_sparse.schedules.cpu.isa import AVX2, AVX512, GENERIC, Isa
from tvm_sparse.schedules.cpu.pool_columns import MaxPoolPanels

INFINITY = float("inf")
ACTIVATIONS = [
    Activation(),
    Activation("clip", (0.0, INFINITY)),
    Activation("clip", (0.0, 0.5)),
    Activation("leaky_relu", (0.1,)),
    Activation("prelu"),
]
# A first-level cache of that many bytes cuts small layers into K-blocks too.
ISAS = st.builds(
    lambda isa, l1_bytes: replace(isa, l1_bytes=l1_bytes),
    st.sampled_from([AVX2, AVX512, GENERIC]),
    st.sampled_from([512, 2048, 32768]),
)
FINITE = ("random", "zero", "dense", "one full row", "one nonzero", "empty rows")


# Groups, input channels and output channels of a group.
SIZES = [(1, 1, 1), (1, 3, 7), (1, 16, 5), (1, 40, 3), (2, 3, 2), (3, 2, 1), (5, 1, 1), (9, 1, 1), (4, 1, 2)]


@st.composite
def layers(draw, window: Window) -> Convolution:
    groups, per_group, rows = draw(st.sampled_from(SIZES))
    weight = draw(pruned((rows * groups, per_group, *window.kernel), FINITE))
    rng = np.random.default_rng(1)
    activation = draw(st.sampled_from(ACTIVATIONS))
    return Convolution(
        weight,
        rng.standard_normal(len(weight)).astype("float32"),
        window,
        groups,
        activation,
        rng.random(len(weight)).astype("float32") if activation.kind == "prelu" else None,
        draw(st.booleans()),
    )


def check(layer: Convolution, source: Geometry, target: Geometry, isa: Isa, pack) -> None:
    rng = np.random.default_rng(2)
    channels, rows = layer.weight.shape[1] * layer.groups, len(layer.weight)
    x = rng.standard_normal((source.batch, channels, source.height, source.width))
    residual = rng.standard_normal((target.batch, rows, target.height, target.width)) if layer.residual else None
    packed = pack(layer, source, target, isa)
    wanted = convolve(layer, x, residual)
    # What lanes without a pixel hold must reach no other lane.
    columns = source.pack(x, fill=np.nan)
    added = None if residual is None else target.pack(residual)
    for shared in (False, True)[: 1 + layer.residual]:
        y = run_columns(packed, layer, columns, target.shape(rows), isa, added, shared)
        np.testing.assert_allclose(target.unpack(y), wanted, rtol=1e-5, atol=1e-5)


BLOCKS = [partial(pack_blocks, shape=shape) for shape in ((4, 1), (8, 1), (1, 4))]
PACKERS = st.sampled_from([pack_sparse, pack_dense, *BLOCKS])


@settings(max_examples=60)
@given(st.data(), windows(), ISAS, PACKERS)
def test_convolutions(data, window, isa, pack):
    source = data.draw(geometries(batch=data.draw(st.sampled_from([1, 2, 4])), lanes=isa.lanes, limit=9))
    size = window.output_size(source.height, source.width)
    assume(min(size) > 0)
    target = choose_geometry(source.batch, *size, isa.lanes)
    assume(target.images % source.images == 0)
    check(data.draw(layers(window)), source, target, isa, pack)


@settings(max_examples=60)
@given(st.data(), ISAS, PACKERS)
def test_layers_on_single_pixels(data, isa, pack):
    """1x1 convolutions and linear layers read panels in place."""
    geometry = data.draw(geometries(lanes=isa.lanes, limit=12))
    check(data.draw(layers(Window((1, 1)))), geometry, geometry, isa, pack)


@pytest.mark.parametrize("pack", [pack_sparse, pack_dense, *BLOCKS])
@pytest.mark.parametrize("isa", [AVX2, AVX512, GENERIC])
@pytest.mark.parametrize(("groups", "per_group"), [(1, 24), (24, 1), (2, 12)])
def test_usual_sizes(pack, isa, groups, per_group):
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((24, per_group, 3, 3)).astype("float32")
    weight[rng.random(weight.shape) < 0.8] = 0
    layer = Convolution(weight, np.zeros(24, np.float32), Window((3, 3), (2, 2), (1, 1), (0, 0, 1, 1)), groups)
    check(layer, choose_geometry(1, 24, 24, isa.lanes), choose_geometry(1, 12, 12, isa.lanes), isa, pack)


@pytest.mark.parametrize("pack", [pack_sparse, pack_dense, *BLOCKS])
@pytest.mark.parametrize("groups", [1, 8])
def test_blocks_fit_the_buffer_whatever_the_cache(pack, groups):
    isa = replace(AVX512, l1_bytes=1 << 20)
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((8, 64 // groups, 3, 3)).astype("float32")
    weight[rng.random(weight.shape) < 0.8] = 0
    layer = Convolution(weight, np.zeros(8, np.float32), Window((3, 3), padding=(1, 1, 1, 1)), groups)
    geometry = choose_geometry(1, 14, 14, 16)
    check(layer, geometry, geometry, isa, pack)


@settings(max_examples=40)
@given(st.data(), windows(), ISAS, st.sampled_from([1, 3, 20]))
def test_max_pool(data, window, isa, channels):
    window = replace(window, dilation=(1, 1))
    source = data.draw(geometries(batch=2, lanes=isa.lanes, limit=9))
    size = window.output_size(source.height, source.width)
    assume(min(size) > 0)
    target = choose_geometry(2, *size, isa.lanes)
    assume(target.images % source.images == 0)
    x = np.random.default_rng(0).standard_normal((2, channels, source.height, source.width))
    packed = pack_max_pool(window, source, target, channels, isa)
    stored, shape = source.pack(x, fill=np.nan), target.shape(channels)
    if isinstance(packed.kernel, MaxPoolPanels):
        y = run_pool(packed, stored, shape, isa.registers)
    else:
        y = run_columns(packed, None, stored, shape, isa)
    lowest = float(np.finfo(np.float32).min)
    np.testing.assert_array_equal(target.unpack(y), windows_in_numpy(x, window, lowest).max((0, 1)))


def test_parts_divide_the_panel_and_keep_the_units_busy():
    for vectors in range(1, 60):
        for limit in (1, 4, 10, 100):
            part = part_size(vectors, limit)
            assert vectors % part == 0
            if part != vectors:
                assert part <= limit
                assert not any(vectors % d == 0 for d in range(part + 1, min(vectors, limit) + 1))
    assert (part_size(14), part_size(12), part_size(16)) == (7, 6, 8)
    assert (part_size(11), part_size(13)) == (11, 13)  # a prime number of vectors stays whole


def test_sparse_layers_are_small():
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((256, 256, 1, 1)).astype("float32")
    weight[rng.random(weight.shape) < 0.9] = 0
    layer = Convolution(weight, np.zeros(256, np.float32), Window((1, 1)))
    geometry = choose_geometry(1, 14, 14, 8)
    sparse, dense = (pack(layer, geometry, geometry, AVX2).nbytes for pack in (pack_sparse, pack_dense))
    assert sparse < 0.3 * dense


@pytest.mark.parametrize("pack", [pack_sparse, pack_dense])
@pytest.mark.parametrize(
    ("size", "window", "groups"),
    [
        (41, Window((3, 3), dilation=(24, 24), padding=(24, 24, 24, 24)), 1),
        (41, Window((31, 31), padding=(15, 15, 15, 15)), 2),
        (64, Window((16, 16), (16, 16)), 1),  # patches of a transformer
        (70, Window((32, 32), (32, 32), padding=(0, 1, 0, 1)), 1),
    ],
)
def test_windows_beyond_the_buffer_take_parts_of_panels(pack, size, window, groups):
    source = choose_geometry(1, size, size, 16)
    target = choose_geometry(1, *window.output_size(size, size), 16)
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((2, 2 // groups, *window.kernel)).astype("float32")
    weight[rng.random(weight.shape) < 0.8] = 0
    layer = Convolution(weight, np.ones(2, np.float32), window, groups, residual=True)
    check(layer, source, target, AVX512, pack)


def test_pooling_windows_beyond_the_buffer():
    window = Window((24, 24), (8, 8))
    source, target = choose_geometry(1, 64, 64, 16), choose_geometry(1, 6, 6, 16)
    x = np.random.default_rng(0).standard_normal((1, 2, 64, 64))
    packed = pack_max_pool(window, source, target, 2, AVX512)
    y = run_columns(packed, None, source.pack(x), target.shape(2), AVX512)
    np.testing.assert_array_equal(target.unpack(y), windows_in_numpy(x, window, 0.0).max((0, 1)))


@pytest.mark.parametrize("kind", ["pool", "sparse", "dense"])
def test_windows_that_never_fit_are_refused(kind):
    window = Window((46, 46))
    source, target = choose_geometry(1, 46, 46, 16), choose_geometry(1, 1, 1, 16)
    with pytest.raises(TvmSparseError, match=r"window of \(46, 46\) pixels is too large"):
        if kind == "pool":
            pack_max_pool(window, source, target, 2, AVX512)
        else:
            layer = Convolution(np.ones((1, 1, 46, 46), np.float32), np.zeros(1, np.float32), window)
            (pack_sparse if kind == "sparse" else pack_dense)(layer, source, target, AVX512)
