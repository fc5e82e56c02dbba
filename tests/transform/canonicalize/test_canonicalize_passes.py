"""The whole list of passes, on modules like those of the front ends."""

import time

import numpy as np
import pytest
from tvm import relax

from tvm_sparse.transform.canonicalize import canonicalize_passes

from .helpers import (
    assert_same_results,
    assert_unchanged,
    calls,
    constant,
    module,
    number,
    ones,
    random,
    rewritten,
)

OP = relax.op
T, H, D, WIDTH = 6, 2, 4, 8


def linear(x, rows, inputs, outputs, seed):
    flat = OP.reshape(x, (rows, inputs))
    y = OP.matmul(flat, OP.permute_dims(constant(random(outputs, inputs, seed=seed)), [1, 0]))
    return OP.reshape(OP.add(constant(random(outputs, seed=seed)), y), (1, rows, outputs))


def layer_norm(x):
    centred = relax.BlockBuilder.current().emit(OP.subtract(x, OP.mean(x, [-1], keepdims=True)))
    variance = OP.mean(OP.power(centred, number(2)), [-1], keepdims=True)
    normed = OP.divide(centred, OP.sqrt(OP.add(variance, number(1e-5))))
    return OP.add(OP.multiply(normed, constant(random(WIDTH))), constant(random(WIDTH, seed=1)))


def encoder_layer(x, seed=0):
    emit = relax.BlockBuilder.current().emit
    q, k, v = (
        OP.permute_dims(OP.reshape(linear(x, T, WIDTH, WIDTH, seed + i), (1, T, H, D)), axes)
        for i, axes in enumerate([[0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]])
    )
    weights = OP.nn.softmax(OP.multiply(OP.matmul(q, k), number(0.5)), axis=-1)
    joined = OP.reshape(OP.permute_dims(OP.matmul(weights, v), [0, 2, 1, 3]), (1, T, WIDTH))
    x = emit(layer_norm(OP.add(x, linear(joined, T, WIDTH, WIDTH, seed + 3))))
    up = emit(linear(x, T, WIDTH, 16, seed + 4))
    gelu = OP.multiply(OP.multiply(up, OP.add(OP.erf(OP.divide(up, number(2**0.5))), number(1))), number(0.5))
    return emit(layer_norm(OP.add(x, linear(gelu, T, 16, WIDTH, seed + 5))))


def test_encoder_layer():
    before = module([(1, T, WIDTH)], encoder_layer)
    after = rewritten(before, *canonicalize_passes())
    assert calls(after) == [
        *["matmul", "add"],
        *["strided_slice"] * 3,
        *["reshape"] * 3,
        *["nn.attention", "reshape", "matmul", "add", "add", "nn.layer_norm"],
        *["matmul", "add", "nn.gelu", "matmul", "add", "add", "nn.layer_norm"],
    ]
    assert_same_results(before, after)


def mobile_block(x):
    emit = relax.BlockBuilder.current().emit

    def norm(y, channels, seed):
        values = [random(channels, seed=seed + i) for i in range(3)] + [
            random(channels, seed=seed) ** 2 + 0.5
        ]
        arguments = [constant(value) for value in values]
        return relax.TupleGetItem(OP.nn.batch_norm(y, *arguments, axis=1, training=False), 0)

    y = emit(norm(OP.nn.conv2d(x, constant(random(8, 4, 1, 1))), 8, 1))
    y = OP.multiply(y, OP.divide(OP.clip(OP.add(y, number(3)), 0, 6), number(6)))
    y = OP.nn.pad(y, [0, 0, 0, 0, 0, 1, 0, 1])
    y = emit(
        OP.minimum(
            OP.maximum(
                norm(OP.nn.conv2d(y, constant(random(8, 1, 3, 3)), strides=2, groups=8), 8, 5), number(0)
            ),
            number(6),
        )
    )
    gate = OP.nn.conv2d(OP.mean(y, [2, 3], keepdims=True), constant(random(8, 8, 1, 1)))
    gate = OP.clip(OP.add(OP.multiply(number(1 / 6), gate), number(0.5)), 0, 1)
    return norm(OP.nn.conv2d(OP.multiply(y, gate), constant(random(4, 8, 1, 1))), 4, 9)


def test_mobile_block():
    before = module([(1, 4, 8, 8)], mobile_block)
    after = rewritten(before, *canonicalize_passes())
    assert calls(after) == [
        *["nn.conv2d", "add", "tvm_sparse.hard_swish"],
        *["nn.conv2d", "add", "clip"],
        *["mean", "nn.conv2d", "tvm_sparse.hard_sigmoid", "multiply"],
        *["nn.conv2d", "add"],
    ]
    assert_same_results(before, after)


def test_second_run_changes_nothing():
    after = rewritten(module([(1, T, WIDTH)], encoder_layer), *canonicalize_passes())
    assert_unchanged(after, *canonicalize_passes())


def test_long_module_is_quick():
    def body(x):
        for i in range(24):
            x = encoder_layer(x, i)
        return x

    mod = module([(1, T, WIDTH)], body)
    assert len(calls(mod)) > 1000
    for each in canonicalize_passes():
        start = time.perf_counter()
        mod = each(mod)
        assert time.perf_counter() - start < 2, each.info.name
    assert len(calls(mod)) < 550


@pytest.mark.parametrize("name", ["passed through", "twice", "constant", "tuple", "integers"])
def test_odd_graphs(name):
    bodies = {
        "passed through": lambda x: (x, OP.reshape(x, (2, 4))),
        "twice": lambda x: (lambda y: (y, y))(relax.BlockBuilder.current().emit(OP.nn.relu(x))),
        "constant": lambda x: (OP.nn.relu(x), OP.permute_dims(constant(random(2, 3)), [1, 0])),
        "tuple": lambda x: relax.TupleGetItem(OP.split(OP.nn.relu(x), 2, axis=1), 1),
        "integers": lambda x: OP.add(OP.astype(x, "int32"), constant(np.array([1, 2, 3, 4], "int32"))),
    }
    before = module([(2, 4)], bodies[name])
    assert_same_results(before, rewritten(before, *canonicalize_passes()))


def test_unused_values_vanish():
    def body(x):
        relax.BlockBuilder.current().emit(OP.exp(x))
        return OP.add(OP.nn.relu(x), ones(4))

    assert calls(rewritten(module([(2, 4)], body), *canonicalize_passes())) == ["nn.relu", "add"]
