"""Only what is read of a value is computed: structure, and values against the module before."""

import numpy as np
import pytest
from tvm import relax

from tvm_sparse.transform.canonicalize.narrow_to_slices import NarrowToSlices

from . import helpers
from .helpers import arrays_for, assert_rewrites, assert_unchanged, calls, constant, outputs, random, rewritten

OP, NN = relax.op, relax.op.nn
PASS = NarrowToSlices()


def module(specs, body):
    """A module with one call a binding, as the passes before leave it."""
    return relax.transform.Normalize()(helpers.module(specs, body))


def first(x, axis=1, count=1):
    return OP.strided_slice(x, [axis], [0], [count])


def same_values(before, *names):
    """Check that the pass changes no value; the calls it leaves must include the names."""
    after = rewritten(before, PASS)
    arrays = arrays_for(before)
    for want, got in zip(outputs(before, arrays), outputs(after, arrays), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    assert set(names) <= set(calls(after))
    return after


def shapes(mod, name):
    """Shapes of the results of an operator, in order."""
    values = [binding.value for block in mod["main"].body.blocks for binding in block.bindings]
    return [
        tuple(int(e) for e in v.ty.shape) for v in values if isinstance(v, relax.Call) and v.op.name == f"relax.{name}"
    ]


WEIGHT = random(6, 8)


def test_slice_moves_past_a_linear_layer():
    before = module([(2, 9, 6)], lambda x: first(NN.gelu(OP.add(OP.matmul(x, constant(WEIGHT)), constant(WEIGHT[0])))))
    after = module([(2, 9, 6)], lambda x: NN.gelu(OP.add(OP.matmul(strided(x), constant(WEIGHT)), constant(WEIGHT[0]))))
    assert_rewrites(before, after, PASS)


def strided(x):
    return OP.strided_slice(x, [1], [0], [1], [1])


@pytest.mark.parametrize("axis, extent", [(0, 4), (1, 9)])
def test_every_axis_of_rows(axis, extent):
    before = module([(4, 9, 6)], lambda x: first(OP.matmul(x, constant(WEIGHT)), axis, extent // 2))
    after = same_values(before)
    want = [4, 9, 8]
    want[axis] = extent // 2
    assert shapes(after, "matmul") == [tuple(want)]


def test_take_of_constant_indices():
    indices = constant(np.array([7, 0, 3]))
    before = module([(2, 9, 6)], lambda x: OP.take(OP.matmul(x, constant(WEIGHT)), indices, axis=1))
    assert shapes(same_values(before, "take"), "matmul") == [(2, 3, 8)]


def encoder_layer(x, heads=2):
    """Attention, residual, norm, feed-forward layer, residual, norm."""
    batch, tokens, width = (int(e) for e in x.ty.shape)
    emit = relax.BlockBuilder.current().emit

    def dense(y, out, seed):
        weight = random(int(y.ty.shape[-1]), out, seed=seed) * 0.3
        return emit(OP.add(emit(OP.matmul(y, constant(weight.astype("float32")))), constant(random(out, seed=seed))))

    def norm(y):
        return emit(NN.layer_norm(y, constant(random(width, seed=8)), constant(random(width, seed=9)), axes=[-1]))

    q, k, v = (emit(OP.reshape(dense(x, width, i), (batch, tokens, heads, width // heads))) for i in range(3))
    out = emit(OP.reshape(emit(NN.attention(q, k, v)), (batch, tokens, width)))
    y = norm(emit(OP.add(x, dense(out, width, 3))))
    up = emit(NN.gelu(dense(y, 2 * width, 4)))
    return norm(emit(OP.add(y, dense(up, width, 5))))


@pytest.mark.parametrize("layers", [1, 2])
def test_last_layer_of_an_encoder(layers):
    def body(x):
        x = relax.BlockBuilder.current().emit(NN.relu(x))
        for _ in range(layers):
            x = encoder_layer(x)
        return first(x)

    after = same_values(module([(2, 9, 6)], body))
    assert shapes(after, "nn.attention")[-1] == (2, 1, 2, 3)
    whole = [shape for shape in shapes(after, "matmul") if shape[1] == 9]
    # Of the last layer only keys and values are whole.
    assert len(whole) == 6 * (layers - 1) + 2
    assert [shape[1] for shape in shapes(after, "nn.layer_norm")] == [9] * 2 * (layers - 1) + [1, 1]


def test_another_reader_of_the_whole():
    def body(x):
        y = relax.BlockBuilder.current().emit(OP.matmul(x, constant(WEIGHT)))
        return first(y), OP.sum(y)

    assert_unchanged(module([(2, 9, 6)], body), PASS)


def test_other_slices_of_the_same_value():
    def body(x):
        y = relax.BlockBuilder.current().emit(OP.matmul(x, constant(WEIGHT)))
        return OP.strided_slice(y, [1], [0], [2]), OP.strided_slice(y, [1], [3], [5])

    assert_unchanged(module([(2, 9, 6)], body), PASS)


def test_two_readers_of_the_same_slice():
    def body(x):
        emit = relax.BlockBuilder.current().emit
        y = emit(OP.matmul(x, constant(WEIGHT)))
        return NN.relu(emit(first(y))), OP.exp(emit(first(y)))

    assert shapes(same_values(module([(2, 9, 6)], body)), "matmul") == [(2, 1, 8)]


@pytest.mark.parametrize(
    "body",
    [
        lambda x: first(OP.matmul(x, constant(WEIGHT)), 2, 3),  # outputs of the layer: its weights would change
        lambda x: first(NN.softmax(OP.matmul(x, constant(WEIGHT)), axis=1)),  # over the sliced axis
        lambda x: first(OP.matmul(x, constant(WEIGHT)), 1, 5),  # most of it
        lambda x: first(NN.relu(x)),  # nothing costly
        lambda x: first(OP.cumsum(OP.matmul(x, constant(WEIGHT)), axis=1)),  # mixes rows
    ],
)
def test_left_as_it_is(body):
    assert_unchanged(module([(2, 9, 6)], body), PASS)


def test_operands_that_are_broadcast():
    bias, rows = random(8), random(9, 8, seed=1)
    before = module(
        [(2, 9, 6)],
        lambda x: first(OP.add(OP.add(OP.matmul(x, constant(WEIGHT)), constant(rows)), constant(bias)), 1, 2),
    )
    assert shapes(same_values(before), "matmul") == [(2, 2, 8)]


def test_mask_of_queries():
    def body(x, mask):
        emit = relax.BlockBuilder.current().emit
        q, k, v = (emit(OP.reshape(emit(OP.matmul(x, constant(random(6, 6, seed=i)))), (2, 9, 2, 3))) for i in range(3))
        return first(emit(NN.attention(q, k, v, mask)))

    for mask in [(2, 1, 9, 9), (2, 1, 1, 9)]:
        after = same_values(module([(2, 9, 6), mask], body))
        assert sorted(shape[1] for shape in shapes(after, "matmul")) == [1, 9, 9]


@pytest.mark.parametrize("axis, stride", [(0, 1), (2, 1), (3, 1), (2, 2), (3, 2)])
def test_pixels_of_a_pointwise_convolution(axis, stride):
    weight = constant(random(8, 6, 1, 1))
    before = module([(4, 6, 12, 12)], lambda x: first(NN.conv2d(x, weight, strides=stride), axis, 2))
    want = [4, 8, 12 // stride, 12 // stride]
    want[axis] = 2
    if stride == 2 and axis > 1:
        want[5 - axis] = 6
    assert shapes(same_values(before), "nn.conv2d") == [tuple(want)]


def test_wide_convolution_mixes_pixels():
    weight = constant(random(8, 6, 3, 3))
    assert_unchanged(module([(2, 6, 12, 12)], lambda x: first(NN.conv2d(x, weight, padding=1), 2, 2)), PASS)
    assert_unchanged(module([(2, 6, 12, 12)], lambda x: first(NN.conv2d(x, weight), 2, 2)), PASS)
