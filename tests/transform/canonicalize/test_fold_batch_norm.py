import numpy as np
import pytest
from tvm import relax

from tvm_sparse.transform.canonicalize.fold_batch_norm import FoldBatchNorm

from .helpers import (
    assert_rewrites,
    assert_same_results,
    assert_unchanged,
    calls,
    constant,
    module,
    number,
    random,
    rewritten,
)

OP = relax.op


def batch_norm(x, channels, axis=1):
    gamma, beta, mean = (random(channels, seed=seed) for seed in (1, 2, 3))
    variance = random(channels, seed=4) ** 2 + 0.5
    arguments = [constant(array) for array in (gamma, beta, mean, variance)]
    return relax.TupleGetItem(OP.nn.batch_norm(x, *arguments, axis=axis, training=False), 0)


LAYERS = {
    "conv2d": (
        (1, 4, 8, 8),
        lambda x: OP.nn.conv2d(x, constant(random(6, 4, 3, 3)), padding=1),
        6,
        (1, 6, 1, 1),
    ),
    "grouped": (
        (1, 4, 8, 8),
        lambda x: OP.nn.conv2d(x, constant(random(6, 2, 3, 3)), groups=2),
        6,
        (1, 6, 1, 1),
    ),
    "conv1d": ((1, 4, 8), lambda x: OP.nn.conv1d(x, constant(random(6, 4, 3))), 6, (1, 6, 1)),
    "transposed": (
        (1, 4, 5, 5),
        lambda x: OP.nn.conv2d_transpose(x, constant(random(4, 3, 2, 2)), strides=2, groups=2),
        6,
        (1, 6, 1, 1),
    ),
    "linear": ((5, 4), lambda x: OP.matmul(x, constant(random(4, 6))), 6, (6,)),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("has_bias", [False, True])
def test_batch_norm_goes_into_the_layer(name, has_bias):
    shape, layer, channels, bias_shape = LAYERS[name]

    def body(x):
        y = layer(x)
        y = OP.add(y, constant(random(*bias_shape, seed=7))) if has_bias else y
        return OP.nn.relu(batch_norm(y, channels))

    before = module([shape], body)
    after = rewritten(before, FoldBatchNorm())
    assert len(calls(after)) == 3 and calls(after)[1:] == ["add", "nn.relu"]
    assert_same_results(before, after)


def test_batch_norm_without_a_layer_is_a_scale_and_a_shift():
    after = rewritten(module([(1, 6, 4, 4)], lambda x: OP.nn.relu(batch_norm(x, 6))), FoldBatchNorm())
    assert calls(after) == ["multiply", "add", "nn.relu"]
    assert_same_results(module([(1, 6, 4, 4)], lambda x: OP.nn.relu(batch_norm(x, 6))), after)


def test_exact_fold_of_written_out_constants():
    weight = random(6, 4, 1, 1)
    scale, shift = random(6, 1, 1, seed=1), random(6, 1, 1, seed=2)

    def body(x):
        return OP.subtract(OP.multiply(OP.nn.conv2d(x, constant(weight)), constant(scale)), constant(shift))

    def expected(x):
        return OP.add(OP.nn.conv2d(x, constant(weight * scale[..., None])), constant(-shift))

    assert_rewrites(module([(1, 4, 3, 3)], body), module([(1, 4, 3, 3)], expected), FoldBatchNorm())


def test_division_and_two_shifts_merge():
    def body(x):
        y = OP.add(OP.matmul(x, constant(random(4, 6))), constant(random(6)))
        return OP.add(OP.divide(y, number(4)), constant(random(6, seed=3)))

    before = module([(5, 4)], body)
    after = rewritten(before, FoldBatchNorm())
    assert calls(after) == ["matmul", "add"]
    assert_same_results(before, after)


def test_layer_that_others_read_stays():
    def body(x):
        y = OP.nn.conv2d(x, constant(random(6, 4, 1, 1)))
        return OP.multiply(y, constant(random(1, 6, 1, 1)))

    def shared(x):
        y = relax.BlockBuilder.current().emit(OP.nn.conv2d(x, constant(random(6, 4, 1, 1))))
        return OP.multiply(y, constant(random(1, 6, 1, 1))), OP.nn.relu(y)

    assert calls(rewritten(module([(1, 4, 3, 3)], body), FoldBatchNorm())) == ["nn.conv2d"]
    assert_unchanged(module([(1, 4, 3, 3)], shared), FoldBatchNorm())


def test_constants_that_differ_by_position_stay():
    def body(x):
        return OP.multiply(OP.nn.conv2d(x, constant(random(6, 4, 1, 1))), constant(random(1, 6, 3, 1)))

    def broadcasting(x):
        return OP.multiply(OP.nn.conv2d(x, constant(random(6, 4, 1, 1))), constant(random(2, 6, 1, 1)))

    assert_unchanged(module([(1, 4, 3, 3)], body), FoldBatchNorm())
    assert_unchanged(module([(1, 4, 3, 3)], broadcasting), FoldBatchNorm())


def test_zeros_of_a_pruned_weight_stay_zeros():
    weight = random(6, 4, 3, 3) * (random(6, 4, 3, 3, seed=5) > 1)
    after = rewritten(
        module([(1, 4, 8, 8)], lambda x: batch_norm(OP.nn.conv2d(x, constant(weight)), 6)), FoldBatchNorm()
    )
    folded = after["main"].body.blocks[0].bindings[0].value.args[1].value.numpy()
    np.testing.assert_array_equal(folded == 0, weight == 0)
