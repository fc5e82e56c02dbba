import numpy as np
from tvm import relax

from tvm_sparse.transform.canonicalize.linear_form import LinearForm

from .helpers import (
    assert_rewrites,
    assert_same_results,
    assert_unchanged,
    calls,
    constant,
    module,
    random,
    rewritten,
)

OP = relax.op
WEIGHT, BIAS = random(6, 8), random(8, seed=1)


def test_flattening_around_a_layer_vanishes():
    def body(x):
        y = OP.add(OP.matmul(OP.reshape(x, (10, 6)), constant(WEIGHT)), constant(BIAS))
        return OP.nn.gelu(OP.reshape(y, (2, 5, 8)))

    def expected(x):
        return OP.nn.gelu(OP.add(OP.matmul(x, constant(WEIGHT)), constant(BIAS)))

    before = module([(2, 5, 6)], body)
    assert_same_results(before, assert_rewrites(before, module([(2, 5, 6)], expected), LinearForm()))


def test_swapped_batch_and_time_cancel():
    def body(x):
        y = OP.add(OP.matmul(OP.permute_dims(x, [1, 0, 2]), constant(WEIGHT)), constant(BIAS))
        return OP.permute_dims(OP.nn.relu(y), [1, 0, 2])

    before = module([(2, 5, 6)], body)
    after = rewritten(before, LinearForm())
    assert calls(after) == ["matmul", "add", "nn.relu"]
    assert_same_results(before, after)


def test_merged_heads_keep_batch_and_time():
    def body(x):  # [B, T, H, D]
        y = OP.add(OP.matmul(OP.reshape(x, (10, 6)), constant(WEIGHT)), constant(BIAS))
        return OP.reshape(y, (2, 5, 8))

    def expected(x):
        return OP.add(OP.matmul(OP.reshape(x, (2, 5, 6)), constant(WEIGHT)), constant(BIAS))

    before = module([(2, 5, 3, 2)], body)
    assert_same_results(before, assert_rewrites(before, module([(2, 5, 3, 2)], expected), LinearForm()))


def test_residual_sum_of_flattened_tensors():
    def body(x, z):
        y = OP.matmul(OP.reshape(x, (10, 6)), constant(random(6, 6)))
        total = OP.add(y, OP.reshape(z, (10, 6)))
        norm = OP.nn.layer_norm(total, constant(random(6)), constant(random(6)), axes=[1])
        return OP.reshape(norm, (2, 5, 6))

    before = module([(2, 5, 6), (2, 5, 6)], body)
    after = rewritten(before, LinearForm())
    assert calls(after) == ["matmul", "add", "nn.layer_norm"]
    assert_same_results(before, after)


def test_broadcast_weight_is_one_matrix():
    def body(x):
        return OP.matmul(x, OP.broadcast_to(constant(WEIGHT), (2, 6, 8)))

    def folded(x):
        return OP.matmul(x, constant(np.broadcast_to(WEIGHT, (2, 6, 8)).copy()))

    expected = module([(2, 5, 6)], lambda x: OP.matmul(x, constant(WEIGHT)))
    assert_rewrites(module([(2, 5, 6)], body), expected, LinearForm())
    assert_rewrites(module([(2, 5, 6)], folded), expected, LinearForm())


def test_weights_that_differ_by_batch_stay():
    assert_unchanged(module([(2, 5, 6)], lambda x: OP.matmul(x, constant(random(2, 6, 8)))), LinearForm())


def test_flattened_image_stays():
    body = lambda x: OP.matmul(OP.reshape(x, (2, 6)), constant(WEIGHT))  # noqa: E731
    assert_unchanged(module([(2, 3, 2, 1)], body), LinearForm())


def test_bias_that_differs_by_row_stays():
    body = lambda x: OP.add(OP.reshape(x, (10, 6)), constant(random(10, 6)))  # noqa: E731
    assert_unchanged(module([(2, 5, 6)], body), LinearForm())
