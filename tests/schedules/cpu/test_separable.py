"""Depth-wise convolutions computed with the 1x1 convolution that reads them, against numpy."""

from dataclasses import replace

import numpy as np
import pytest

from tvm_sparse.layout.geometry import Geometry
from tvm_sparse.layout.halo import Window
from tvm_sparse.plan.layer import Convolution
from tvm_sparse.plan.pack_separable import pack_separable
from tvm_sparse.plan.work import count_work
from tvm_sparse.schedules.cpu.epilogue import Activation

from .compiled import TILED, call_layer, every_tiled_isa, isa_of
from .convolutions import GRIDS, IDENTITY, Case, weights
from .reference import EPS, activate, assert_within, convolution_bound, convolve

if not TILED:
    pytest.skip("no instruction set has the depth-wise tile", allow_module_level=True)

SAME = Window((3, 3), padding=(1, 1, 1, 1))
POINT = Window((1, 1))
RELU6 = Activation("clip", (0.0, 6.0))
# Image [batch, channels, height, width] with 16 lanes, window, outputs, tile.
CASES = {
    "one panel": ((1, 5, 8, 8), SAME, 7, (2, 2)),
    "several panels": ((1, 6, 32, 24), SAME, 4, (4, 3)),
    "parts of a panel": ((1, 3, 16, 56), SAME, 5, (2, 7)),
    "several K-blocks": ((1, 301, 8, 8), SAME, 9, (2, 2)),
    "one channel": ((1, 1, 8, 8), SAME, 3, (2, 2)),
    "one output": ((1, 5, 8, 8), SAME, 1, (2, 2)),
    "not filled": ((1, 6, 7, 7), SAME, 5, (2, 2)),
    "batch": ((3, 4, 16, 16), SAME, 6, (2, 2)),
    "stride 2": ((1, 5, 32, 32), Window((3, 3), (2, 2), padding=(1, 1, 1, 1)), 6, (2, 2)),
    "5x5": ((1, 4, 16, 16), Window((5, 5), padding=(2, 2, 2, 2)), 6, (4, 1)),
}


def layers(lanes, name, zeros, first=RELU6, second=IDENTITY, residual=False):
    """Both layers of a case, and the geometry of the input and the output: of as many panels with fewer lanes."""
    (batch, channels, height, width), window, outputs, tile = CASES[name]
    image = (batch, channels, height * lanes // 16, width)
    rng = np.random.default_rng(2)
    depthwise = Convolution(
        weights(Case(image, channels, window, channels), "none"), rng.standard_normal(channels).astype("float32"),
        window, channels, first,
    )  # fmt: skip
    pointwise = Convolution(
        weights(Case(image, outputs, POINT), zeros, 1), rng.standard_normal(outputs).astype("float32"), POINT, 1,
        second, residual=residual,
    )  # fmt: skip
    size = window.output_size(*image[2:])
    source_tile = tuple(t * s for t, s in zip(tile, window.stride, strict=True))
    source = Geometry(batch, *image[2:], lanes, GRIDS[lanes], source_tile)
    return depthwise, pointwise, source, Geometry(batch, *size, lanes, GRIDS[lanes], tile)


def check(isa_name, name, format_, zeros="80 %", **options):
    """Pack and run both layers on random images; unused lanes hold NaN."""
    isa = replace(isa_of(isa_name), tasks=1)
    depthwise, pointwise, source, target = layers(isa.lanes, name, zeros, **options)
    packed = pack_separable(depthwise, pointwise, format_, source, target, isa)
    assert packed is not None
    rng = np.random.default_rng(3)
    x = rng.standard_normal((source.batch, depthwise.groups, source.height, source.width)).astype("float32")
    between = convolve(x, depthwise.weight, depthwise.window, depthwise.groups) + depthwise.bias[:, None, None]
    error = convolution_bound(x, depthwise.weight, depthwise.window, depthwise.groups)
    between = activate(depthwise.activation.kind, between, depthwise.activation.parameters)
    want = convolve(between, pointwise.weight, POINT) + pointwise.bias[:, None, None]
    bound = convolve(error + 8 * EPS * abs(between), abs(pointwise.weight), POINT) + 8 * EPS
    inputs = [source.pack(x, fill=np.nan)]
    if pointwise.residual:
        other = rng.standard_normal(want.shape).astype("float32")
        inputs.append(target.pack(other, fill=np.nan))
        want = want + other
    want = activate(pointwise.activation.kind, want, pointwise.activation.parameters)
    out = call_layer(packed, isa_name, inputs, target.shape(len(pointwise.weight)))
    assert_within(target.unpack(out), want, bound + 8 * EPS * abs(want))
    return packed


@every_tiled_isa
@pytest.mark.parametrize("format_", ["unstructured", "dense"])
@pytest.mark.parametrize("name", CASES)
def test_against_numpy(isa_name, name, format_):
    check(isa_name, name, format_)


@every_tiled_isa
@pytest.mark.parametrize("format_", ["unstructured", "dense"])
@pytest.mark.parametrize("zeros", ["none", "all", "one full row", "every count"])
def test_patterns_of_zeros(isa_name, zeros, format_):
    check(isa_name, "several panels", format_, zeros)


@every_tiled_isa
@pytest.mark.parametrize("format_", ["unstructured", "dense"])
def test_residual_and_activations(isa_name, format_):
    for first, second in ((Activation(), RELU6), (Activation("hard_swish"), Activation("silu"))):
        packed = check(isa_name, "several K-blocks", format_, first=first, second=second, residual=True)
        assert packed.kernel.shared_argument == 1


@every_tiled_isa
def test_what_is_left_to_kernels_of_their_own(isa_name):
    isa = replace(isa_of(isa_name), tasks=1)
    depthwise, pointwise, source, target = layers(isa.lanes, "several panels", "80 %")

    def fits(first=depthwise, format_="unstructured", isa=isa):
        return pack_separable(first, pointwise, format_, source, target, isa) is not None

    assert fits()
    assert not fits(format_="block 4x1")
    assert not fits(replace(depthwise, window=replace(SAME, dilation=(2, 2), padding=(2, 2, 2, 2))))
    assert not fits(isa=replace(isa_of("generic"), lanes=isa.lanes, tasks=1))
    # Cores that share a panel would each compute its depth-wise convolution.
    depthwise, pointwise, source, target = layers(isa.lanes, "one panel", "none")
    outputs = 32 * isa.lanes
    many = replace(pointwise, weight=np.ones((outputs, 5, 1, 1), "float32"), bias=np.zeros(outputs, "float32"))
    assert pack_separable(depthwise, many, "unstructured", source, target, isa) is not None
    assert pack_separable(depthwise, many, "unstructured", source, target, replace(isa, tasks=2)) is None


@every_tiled_isa
def test_work_of_both_layers(isa_name):
    isa = isa_of(isa_name)
    depthwise, pointwise, source, target = layers(isa.lanes, "several panels", "80 %")
    packed = pack_separable(depthwise, pointwise, "unstructured", source, target, isa)
    both = count_work(pointwise, packed, isa, source, target, depthwise=depthwise)
    nonzeros = sum(int(np.count_nonzero(layer.weight)) for layer in (depthwise, pointwise))
    pixels = 2 * isa.lanes * 24
    assert both.macs == nonzeros * pixels
    assert both.lane_macs >= both.macs and both.read > 4 * source.batch * 6 * pixels
