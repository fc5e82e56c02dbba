import numpy as np
from tvm import relax

from tvm_sparse.transform.canonicalize.merge_parallel_linears import MergeParallelLinears

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
WEIGHTS = [random(6, 8, seed=seed) for seed in range(3)]
BIASES = [random(8, seed=seed) for seed in range(3, 6)]


def heads(x):
    return OP.reshape(x, (2, 5, 2, 4))


def linear(x, number, has_bias=True):
    y = OP.matmul(x, constant(WEIGHTS[number]))
    return OP.add(y, constant(BIASES[number])) if has_bias else y


def attention(x, *has_bias):
    return OP.nn.attention(*[heads(linear(x, i, flag)) for i, flag in enumerate(has_bias)], None, 0.5)


def test_query_key_value_become_one_layer():
    def expected(x):
        emit = relax.BlockBuilder.current().emit
        merged = emit(
            OP.add(OP.matmul(x, constant(np.concatenate(WEIGHTS, 1))), constant(np.concatenate(BIASES)))
        )
        pieces = [heads(OP.strided_slice(merged, [2], [8 * i], [8 * i + 8])) for i in range(3)]
        return OP.nn.attention(*pieces, None, 0.5)

    before = module([(2, 5, 6)], lambda x: attention(x, True, True, True))
    assert_same_results(
        before, assert_rewrites(before, module([(2, 5, 6)], expected), MergeParallelLinears())
    )


def test_missing_biases_are_zero():
    before = module([(2, 5, 6)], lambda x: attention(x, True, False, True))
    after = rewritten(before, MergeParallelLinears())
    assert calls(after)[:2] == ["matmul", "add"] and calls(after).count("matmul") == 1
    assert_same_results(before, after)


def test_without_biases():
    before = module([(2, 5, 6)], lambda x: attention(x, False, False, False))
    after = rewritten(before, MergeParallelLinears())
    assert calls(after).count("matmul") == 1 and "add" not in calls(after)
    assert_same_results(before, after)


def test_layers_with_activations_stay():
    body = lambda x: OP.multiply(OP.nn.silu(linear(x, 0)), linear(x, 1))  # noqa: E731
    assert_unchanged(module([(2, 5, 6)], body), MergeParallelLinears())


def test_layers_of_other_tensors_stay():
    body = lambda x, y: (heads(linear(x, 0)), heads(linear(y, 1)))  # noqa: E731
    assert_unchanged(module([(2, 5, 6)] * 2, body), MergeParallelLinears())


def test_layers_of_very_different_density_stay():
    sparse = WEIGHTS[0] * (random(6, 8, seed=9) > 1.5)

    def body(x):
        return heads(OP.matmul(x, constant(sparse.astype("float32")))), heads(linear(x, 1, False))

    assert_unchanged(module([(2, 5, 6)], body), MergeParallelLinears())


def test_outputs_stay():
    body = lambda x: (linear(x, 0), linear(x, 1))  # noqa: E731
    assert_unchanged(module([(2, 5, 6)], body), MergeParallelLinears())
