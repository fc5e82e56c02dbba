import math

import numpy as np
import pytest
from tvm import relax

from tvm_sparse.transform.canonicalize.attention_form import AttentionForm
from tvm_sparse.transform.canonicalize.fold_constants import FoldConstants
from tvm_sparse.transform.canonicalize.merge_views import MergeViews
from tvm_sparse.transform.canonicalize.simplify import Simplify

from .helpers import (
    assert_rewrites,
    assert_same_results,
    calls,
    constant,
    module,
    number,
    outputs,
    random,
    rewritten,
)

OP = relax.op
B, T, H, D = 2, 7, 3, 4
TOKENS = (B, T, H * D)
SCALE = 1 / math.sqrt(D)
PASSES = (FoldConstants(), Simplify(), MergeViews(), AttentionForm())


def heads(x, axes=(0, 2, 1, 3)):
    return OP.permute_dims(OP.reshape(x, (B, T, H, D)), list(axes))


def joined(x):
    return OP.reshape(OP.permute_dims(x, [0, 2, 1, 3]), TOKENS)


def softmax(x):
    return OP.nn.softmax(x, axis=-1)


def scores(q, k):
    return OP.matmul(heads(q), heads(k, (0, 2, 3, 1)))


def scale_on_scores(q, k, v):
    return joined(OP.matmul(softmax(OP.multiply(scores(q, k), number(SCALE))), heads(v)))


def divided_scores(q, k, v):
    return joined(OP.matmul(softmax(OP.divide(scores(q, k), number(math.sqrt(D)))), heads(v)))


def scale_on_queries(q, k, v):
    queries = OP.multiply(heads(q), constant(np.array([SCALE], "float32")))
    keys = OP.permute_dims(heads(k), [0, 1, 3, 2])
    return joined(OP.matmul(softmax(OP.matmul(queries, keys)), heads(v)))


def roots_on_both(q, k, v):
    root = number(math.sqrt(SCALE))
    keys = OP.multiply(heads(k, (0, 2, 3, 1)), root)
    return joined(OP.matmul(softmax(OP.matmul(OP.multiply(heads(q), root), keys)), heads(v)))


def scale_before_heads(q, k, v):
    return scale_on_scores(OP.multiply(q, number(1.0)), OP.multiply(k, number(1.0)), v)


def merged_batch_and_heads(q, k, v):
    queries, values = (OP.reshape(heads(x), (B * H, T, D)) for x in (OP.multiply(q, number(SCALE)), v))
    keys = OP.permute_dims(OP.reshape(heads(k), (B * H, T, D)), [0, 2, 1])
    out = OP.matmul(softmax(OP.matmul(queries, keys)), values)
    return joined(OP.reshape(out, (B, H, T, D)))


def merged_around_the_products(q, k, v):
    product = OP.matmul(
        OP.reshape(heads(q), (B * H, T, D)), OP.reshape(heads(k, (0, 2, 3, 1)), (B * H, D, T))
    )
    weights = softmax(OP.multiply(OP.reshape(product, (B, H, T, T)), number(SCALE)))
    out = OP.matmul(OP.reshape(weights, (B * H, T, T)), OP.reshape(heads(v), (B * H, T, D)))
    return joined(OP.reshape(out, (B, H, T, D)))


@pytest.mark.parametrize(
    "write",
    [
        scale_on_scores,
        divided_scores,
        scale_on_queries,
        roots_on_both,
        scale_before_heads,
        merged_batch_and_heads,
        merged_around_the_products,
    ],
)
def test_form_without_mask(write):
    before = module([TOKENS] * 3, write)
    after = rewritten(before, *PASSES)
    assert calls(after) == ["reshape"] * 3 + ["nn.attention", "reshape"]
    attention = after["main"].body.blocks[0].bindings[3].value
    assert math.isclose(attention.attrs.scale.value, SCALE, rel_tol=1e-5)
    assert_same_results(before, after)


def test_exact_result():
    def expected(q, k, v):
        q, k, v = (OP.reshape(x, (B, T, H, D)) for x in (q, k, v))
        return OP.reshape(OP.nn.attention(q, k, v, None, float(np.float32(SCALE))), TOKENS)

    assert_rewrites(module([TOKENS] * 3, scale_on_scores), module([TOKENS] * 3, expected), *PASSES)


def test_sequence_first_heads():
    def body(q, k, v):  # [T, B, H * D], batch and heads in one axis
        q, k, v = (OP.permute_dims(OP.reshape(x, (T, B * H, D)), [1, 0, 2]) for x in (q, k, v))
        out = OP.matmul(softmax(OP.matmul(q, OP.permute_dims(k, [0, 2, 1]))), v)
        return OP.reshape(OP.permute_dims(out, [1, 0, 2]), (T, B, H * D))

    before = module([(T, B, H * D)] * 3, body)
    after = rewritten(before, *PASSES)
    assert calls(after) == ["reshape"] * 3 + ["nn.attention", "reshape"]
    assert_same_results(before, after)


def masked(mask, combine):
    """A module whose last input, or constant, masks the scores."""

    def body(q, k, v, *rest):
        shifted = combine(OP.multiply(scores(q, k), number(SCALE)), rest[0] if rest else constant(mask))
        return joined(OP.matmul(softmax(shifted), heads(v)))

    return body


def fill(value):
    return lambda s, mask: OP.where(mask, number(value), s)


CAUSAL = np.triu(np.ones((T, T), bool), 1)


@pytest.mark.parametrize("shape", [(B, 1, 1, T), (1, 1, T, T), (T, T), (T,), (B, H, T, T), (B, 1, T, 1)])
def test_added_mask(shape):
    before = module([*[TOKENS] * 3, shape], masked(None, OP.add))
    after = rewritten(before, *PASSES)
    assert "nn.attention_bias" in calls(after) and "nn.softmax" not in calls(after)
    assert_same_results(before, after)


@pytest.mark.parametrize("value", [-1e4, -1e9, -math.inf, float(np.finfo(np.float32).min)])
def test_constant_causal_fill(value):
    before = module([TOKENS] * 3, masked(CAUSAL, fill(value)))
    after = rewritten(before, *PASSES, FoldConstants())
    assert calls(after) == ["reshape"] * 3 + ["nn.attention_bias", "reshape"]
    bias = after["main"].body.blocks[0].bindings[3].value.args[3].value.numpy()
    assert np.isfinite(bias).all()
    assert_same_results(before, after)


def test_fill_of_a_mask_given_at_run_time():
    before = module([*[TOKENS] * 3, ((B, 1, 1, T), "int64")], masked(None, _fill_where_zero))
    after = rewritten(before, *PASSES)
    assert "nn.attention_bias" in calls(after)
    assert_same_results(before, after)


def _fill_where_zero(s, mask):
    return OP.where(OP.equal(mask, constant(np.array(0, "int64"))), number(-1e9), s)


def _small_fill_where_zero(s, mask):
    return OP.where(OP.equal(mask, constant(np.array(0, "int64"))), number(-1e4), s)


def guard_by_nan(_scores, weights):
    return OP.where(OP.isnan(weights), number(0), weights)


def guard_by_infinity(s, weights):
    finite = OP.astype(OP.logical_not(OP.equal(s, number(-math.inf))), "int8")
    dead = OP.logical_not(OP.astype(OP.max(finite, axis=[-1], keepdims=True), "bool"))
    return OP.where(dead, OP.full_like(weights, number(0)), weights)


@pytest.mark.parametrize("guard", [guard_by_nan, guard_by_infinity])
def test_guard_against_rows_without_keys(guard):
    def body(q, k, v, mask):
        emit = relax.BlockBuilder.current().emit
        bias = OP.where(OP.astype(mask, "bool"), number(0), number(-math.inf))
        s = emit(OP.add(OP.multiply(scores(q, k), number(SCALE)), bias))
        return joined(OP.matmul(guard(s, emit(softmax(s))), heads(v)))

    before = module([*[TOKENS] * 3, ((B, 1, T, T), "int64")], body)
    after = rewritten(before, *PASSES)
    assert "nn.attention_bias" in calls(after) and "nn.softmax" not in calls(after)
    mask = np.random.default_rng(0).integers(0, 2, (B, 1, T, T))
    mask[0, 0, 3], mask[1, 0, 0] = 0, 1
    arrays = [random(*TOKENS, seed=seed) for seed in range(3)] + [mask]
    (wanted,), (found,) = outputs(before, arrays), outputs(after, arrays)
    assert not wanted[0, 3].any() and np.isfinite(wanted).all()
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def _weights_returned(q, k, v):
    weights = relax.BlockBuilder.current().emit(softmax(scores(q, k)))
    return joined(OP.matmul(weights, heads(v))), weights


def _softmax_over_queries(q, k, v):
    return joined(OP.matmul(OP.nn.softmax(scores(q, k), axis=2), heads(v)))


def _scaled_by_head(q, k, v):
    return joined(OP.matmul(softmax(OP.multiply(scores(q, k), constant(random(1, H, 1, 1)))), heads(v)))


def _mask_scaled_too(q, k, v):
    shifted = OP.multiply(OP.add(scores(q, k), constant(random(T, T))), number(SCALE))
    return joined(OP.matmul(softmax(shifted), heads(v)))


@pytest.mark.parametrize(
    "write", [_weights_returned, _softmax_over_queries, _scaled_by_head, _mask_scaled_too]
)
def test_other_products_stay(write):
    after = rewritten(module([TOKENS] * 3, write), *PASSES)
    assert "nn.softmax" in calls(after)


def test_small_fill_of_a_mask_given_at_run_time_stays():
    before = module([*[TOKENS] * 3, ((B, 1, 1, T), "int64")], masked(None, _small_fill_where_zero))
    assert "nn.softmax" in calls(rewritten(before, *PASSES))
