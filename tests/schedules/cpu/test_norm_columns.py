"""Normalisation over the channels of columns, through the pipeline, against numpy in float64."""

import numpy as np
import pytest
from tvm import relax

from tests.transform.canonicalize.helpers import constant, module, random

from .compiled import RUNNABLE, WIDEST
from .pipeline import context_for, kernel_kinds, run_module

OP, NN = relax.op, relax.op.nn
EPSILON = 1e-5

# Tokens make panels of one to many vectors; channels fewer and more than those of the provisional mean.
SIZES = {
    "one channel": (1, 31, 1),
    "few channels": (1, 31, 5),
    "two vectors": (2, 31, 24),
    "three vectors": (1, 47, 9),
    "five vectors": (1, 79, 9),
    "seven vectors": (1, 111, 9),
    "panels": (1, 300, 17),
    "images": (2, 9, 13, 12),
}


def run(shape, build, matrix, isa_name=WIDEST, seed=3):
    """A linear layer brings the tokens to columns; returns them as float64 with the result."""
    mod = module([shape], lambda x: build(OP.matmul(x, constant(matrix))))
    x = random(*shape, seed=seed)
    context = context_for(isa_name)
    (got,) = run_module(mod, context, [x])
    assert "NormColumns" in kernel_kinds(context)
    return x.astype("float64") @ matrix, got


def layer_norm(y, scale=1.0, shift=0.0):
    return (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + EPSILON) * scale + shift


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("isa_name", RUNNABLE)
def test_layer_norm(isa_name, name):
    *tokens, channels = SIZES[name]
    scale, shift = random(channels, seed=1), random(channels, seed=2)
    norm = lambda y: NN.layer_norm(y, constant(scale), constant(shift), axes=[-1], epsilon=EPSILON)  # noqa: E731
    y, got = run((*tokens, 6), norm, random(6, channels), isa_name)
    np.testing.assert_allclose(got, layer_norm(y, scale, shift), rtol=0, atol=2e-5)


@pytest.mark.parametrize("centre, scaled", [(False, True), (True, False), (False, False)])
def test_without_scale_or_shift(centre, scaled):
    scale, shift = random(24, seed=1), random(24, seed=2)
    norm = lambda y: NN.layer_norm(  # noqa: E731
        y, constant(scale), constant(shift), axes=[-1], epsilon=EPSILON, center=centre, scale=scaled
    )
    y, got = run((1, 31, 6), norm, random(6, 24))
    np.testing.assert_allclose(got, layer_norm(y, scale if scaled else 1, shift if centre else 0), rtol=0, atol=2e-5)


def test_root_mean_square():
    scale = random(24, seed=1)
    y, got = run((1, 131, 6), lambda y: NN.rms_norm(y, constant(scale), axes=[-1], epsilon=EPSILON), random(6, 24))
    want = y / np.sqrt((y**2).mean(-1, keepdims=True) + EPSILON) * scale
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-5)


@pytest.mark.parametrize("outlier", [None, 0, 40])
def test_means_far_above_the_deviations(outlier):
    # Every channel has about the same large value, or one has a very large one: sums of squares would lose all digits.
    matrix = np.tile(random(6, 1), (1, 64)) * 1000 + random(6, 64, seed=1)
    if outlier is not None:
        matrix[:, outlier] *= 30
    matrix = matrix.astype("float32")
    one = np.ones(64, "float32")
    norm = lambda y: NN.layer_norm(y, constant(one), constant(0 * one), axes=[-1], epsilon=EPSILON)  # noqa: E731
    y, got = run((1, 31, 6), norm, matrix)
    # The products themselves are rounded to a few units in the last place of the mean.
    tolerance = 1e-3 if outlier is None else 1e-4
    np.testing.assert_allclose(got, layer_norm(y), rtol=0, atol=tolerance * np.abs(layer_norm(y)).max())


def test_equal_channels_give_the_shift():
    shift = random(24, seed=2)
    norm = lambda y: NN.layer_norm(y, constant(random(24)), constant(shift), axes=[-1], epsilon=EPSILON)  # noqa: E731
    _, got = run((1, 31, 6), norm, np.zeros((6, 24), "float32"))
    np.testing.assert_array_equal(got, np.broadcast_to(shift, got.shape))
