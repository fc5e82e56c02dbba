from itertools import product

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from tests.schedules.cpu.compiled import WIDEST
from tests.schedules.cpu.pipeline import context_for, run_module
from tvm_sparse.transform.decompose_transposed import DecomposeTransposedConvolution, phase_weights
from tvm_sparse.transform.ops import DEPTH_TO_SPACE, make_layer

from .canonicalize.helpers import assert_rewrites, calls, constant, module, random, rewritten

OP = relax.op
NN = relax.op.nn


def transposed(x, weight, strides, padding, dilation=(1, 1), groups=1, output_padding=(0, 0)):
    """Transposed convolution in float64: every pixel adds its multiple of the kernel to the output."""
    batch, channels, height, width = x.shape
    per_group, kh, kw = weight.shape[1:]
    top, left, bottom, right = padding
    full = np.zeros(
        (
            batch,
            groups * per_group,
            (height - 1) * strides[0] + (kh - 1) * dilation[0] + 1 + output_padding[0],
            (width - 1) * strides[1] + (kw - 1) * dilation[1] + 1 + output_padding[1],
        )
    )
    split = x.astype("float64").reshape(batch, groups, -1, height, width)
    weights = weight.astype("float64").reshape(groups, channels // groups, per_group, kh, kw)
    for ky, kx in product(range(kh), range(kw)):
        terms = np.einsum("bgchw,gcm->bgmhw", split, weights[..., ky, kx])
        rows = slice(ky * dilation[0], ky * dilation[0] + (height - 1) * strides[0] + 1, strides[0])
        columns = slice(kx * dilation[1], kx * dilation[1] + (width - 1) * strides[1] + 1, strides[1])
        full[:, :, rows, columns] += terms.reshape(batch, -1, height, width)
    return full[:, :, top : full.shape[2] - bottom, left : full.shape[3] - right]


CASES = {
    "2x2, stride 2": ((1, 3, 4, 5), (3, 4, 2, 2), {"strides": (2, 2)}),
    "4x4, stride 2, padding 1": ((2, 3, 4, 5), (3, 2, 4, 4), {"strides": (2, 2), "padding": (1, 1, 1, 1)}),
    "3x3, stride 2, output padding": (
        (1, 3, 5, 4), (3, 4, 3, 3), {"strides": (2, 2), "padding": (1, 1, 1, 1), "output_padding": (1, 1)}),
    "stride 1": ((1, 3, 5, 4), (3, 4, 3, 3), {"strides": (1, 1), "padding": (1, 1, 1, 1)}),
    "stride larger than the kernel": ((1, 2, 3, 4), (2, 3, 2, 1), {"strides": (3, 4), "output_padding": (1, 3)}),
    "different strides": ((1, 2, 5, 3), (2, 3, 3, 5), {"strides": (1, 3), "padding": (0, 2, 1, 1)}),
    "asymmetric padding": ((1, 2, 5, 6), (2, 3, 5, 5), {"strides": (2, 3), "padding": (0, 3, 2, 1)}),
    "groups": ((1, 6, 4, 4), (6, 2, 3, 3), {"strides": (2, 2), "groups": 3}),
    "depth-wise": ((1, 5, 4, 3), (5, 1, 4, 4), {"strides": (2, 2), "padding": (1, 1, 1, 1), "groups": 5}),
    "dilation": ((1, 2, 4, 5), (2, 3, 3, 2), {"strides": (2, 2), "dilation": (2, 3)}),
    "one pixel": ((1, 7, 1, 1), (7, 3, 4, 4), {"strides": (1, 1)}),
    "one channel": ((3, 1, 3, 3), (1, 1, 2, 2), {"strides": (2, 2)}),
}  # fmt: skip


def build(name):
    shape, weight_shape, options = CASES[name]
    weight = random(*weight_shape)
    options = {"padding": (0, 0, 0, 0), **options}
    return module([shape], lambda x: NN.conv2d_transpose(x, constant(weight), **options)), weight, options


@pytest.mark.parametrize("name", CASES)
def test_same_results(name):
    mod, weight, options = build(name)
    assert calls(rewritten(mod, DecomposeTransposedConvolution())) == ["nn.conv2d", "tvm_sparse.depth_to_space"]
    x = random(*CASES[name][0], seed=5)
    (got,) = run_module(mod, context_for(WIDEST), [x])
    want = transposed(x, weight, **options)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_becomes_a_convolution_and_a_depth_to_space():
    weight = random(3, 4, 4, 4)
    phases, taps = phase_weights(weight, [2, 2], 1)
    assert taps == (2, 2) and phases.shape == (16, 3, 2, 2)

    def expected(x):
        convolved = relax.BlockBuilder.current().emit(NN.conv2d(x, constant(phases), padding=(1, 1, 1, 1)))
        attributes = {"block": [2, 2], "order": "CRD", "crop": [1, 1], "size": [8, 10]}
        return make_layer(DEPTH_TO_SPACE, [convolved], attributes)

    before = module([(1, 3, 4, 5)], lambda x: NN.conv2d_transpose(x, constant(weight), strides=2, padding=1))
    assert_rewrites(before, module([(1, 3, 4, 5)], expected), DecomposeTransposedConvolution())


def test_phases_hold_every_weight_once_and_zeros():
    weight = random(4, 3, 5, 3)
    phases, taps = phase_weights(weight, [2, 2], 1)
    assert taps == (3, 2) and phases.shape == (12, 4, 3, 2)
    assert np.sort(phases[phases != 0]).tolist() == np.sort(weight.reshape(-1)).tolist()
    # Output pixel 0 reads tap 0, which is the last of the first remainder's flipped kernel.
    np.testing.assert_array_equal(phases[0, :, -1, -1], weight[:, 0, 0, 0])


@I.ir_module
class VariableWeight:
    @R.function
    def main(x: R.Tensor((1, 3, 4, 5), "float32"), w: R.Tensor((3, 4, 2, 2), "float32")):
        with R.dataflow():
            y = R.nn.conv2d_transpose(x, w, strides=2)
            R.output(y)
        return y


def test_weights_that_are_no_constants_stay():
    tvm.ir.assert_structural_equal(DecomposeTransposedConvolution()(VariableWeight), VariableWeight)


def test_other_operators_stay():
    mod = module([(1, 3, 4, 5)], lambda x: NN.conv2d(x, constant(random(2, 3, 3, 3))))
    tvm.ir.assert_structural_equal(DecomposeTransposedConvolution()(mod), mod)
