import math

import numpy as np
import pytest
import tvm
from tvm import relax

from tvm_sparse.transform.fuse_layers import FuseLayers
from tvm_sparse.transform.ops import CONV2D, LINEAR, make_layer

from .canonicalize.helpers import assert_rewrites, assert_unchanged, calls, constant, module, number, random, rewritten

OP = relax.op
NN = relax.op.nn
IMAGE, TOKENS = (2, 4, 9, 8), (2, 5, 6)
KERNEL, MATRIX, BIAS = random(8, 4, 3, 3), random(6, 8), random(8, seed=1)
CHANNELS = (1, 8, 1, 1)
LIMIT = float(np.finfo("float32").max)


def layer(kind, arguments, residual=0, slopes=0, activation="clip", parameters=(-LIMIT, LIMIT), **attributes):
    """A layer as the pass writes it."""
    attributes |= {"activation": activation, "parameters": [float(p) for p in parameters]}
    return make_layer(kind, arguments, {**attributes, "residual": residual, "slopes": slopes})


def conv_layer(x, bias=BIAS, *more, weight=KERNEL, number=0, **attributes):
    window = {"strides": [1, 1], "padding": [1, 1, 1, 1], "dilation": [1, 1], "groups": 1}
    window |= {name: attributes.pop(name) for name in list(attributes) if name in window}
    arguments = [x, constant(weight), constant(bias), *more]
    return layer(CONV2D, arguments, name=f"conv{number}", **window, **attributes)


def linear_layer(x, bias=BIAS, *more, number=0, **attributes):
    arguments = [x, constant(np.ascontiguousarray(MATRIX.T)), constant(bias), *more]
    return layer(LINEAR, arguments, name=f"linear{number}", **attributes)


def conv(x, **options):
    return NN.conv2d(x, constant(KERNEL), **{"padding": 1, **options})


def biased(x):
    return OP.add(conv(x), constant(BIAS.reshape(CHANNELS)))


def linear(x):
    return OP.add(OP.matmul(x, constant(MATRIX)), constant(BIAS))


ZEROS = np.zeros(8, "float32")
CONVOLUTIONS = {
    "alone": (conv, lambda x: conv_layer(x, ZEROS)),
    "bias": (biased, conv_layer),
    "bias on the left": (lambda x: OP.add(constant(BIAS.reshape(8, 1, 1)), conv(x)), conv_layer),
    "two biases": (lambda x: OP.add(biased(x), constant(BIAS.reshape(CHANNELS))), lambda x: conv_layer(x, 2 * BIAS)),
    "one number": (lambda x: OP.add(conv(x), number(0.5)), lambda x: conv_layer(x, ZEROS + np.float32(0.5))),
    "window": (
        lambda x: conv(x, strides=(2, 1), padding=(0, 1, 2, 1), dilation=(1, 2)),
        lambda x: conv_layer(x, ZEROS, strides=[2, 1], padding=[0, 1, 2, 1], dilation=[1, 2]),
    ),
    "groups": (
        lambda x: NN.conv2d(x, constant(random(8, 2, 3, 3)), padding=(1, 1), groups=2),
        lambda x: conv_layer(x, ZEROS, weight=random(8, 2, 3, 3), groups=2),
    ),
    "relu": (lambda x: NN.relu(biased(x)), lambda x: conv_layer(x, parameters=(0, LIMIT))),
    "relu6": (lambda x: OP.clip(biased(x), 0, 6), lambda x: conv_layer(x, parameters=(0, 6))),
    "leaky": (
        lambda x: NN.leakyrelu(biased(x), 0.25),
        lambda x: conv_layer(x, activation="leaky_relu", parameters=(0.25,)),
    ),
    "prelu": (
        lambda x: NN.prelu(biased(x), constant(random(8, seed=3)), axis=1),
        lambda x: conv_layer(x, BIAS, constant(random(8, seed=3)), slopes=1, activation="prelu", parameters=()),
    ),
    "prelu of one slope": (
        lambda x: NN.prelu(biased(x), constant(np.array([0.25], "float32")), axis=1),
        lambda x: conv_layer(
            x, BIAS, constant(np.full(8, 0.25, "float32")), slopes=1, activation="prelu", parameters=()
        ),
    ),
    **{
        name: (
            lambda x, make=make: make(biased(x)),
            lambda x, name=name: conv_layer(x, activation=name, parameters=()),
        )
        for name, make in {
            "gelu": NN.gelu, "gelu_tanh": NN.gelu_tanh, "silu": NN.silu, "sigmoid": OP.sigmoid, "tanh": OP.tanh
        }.items()
    },
    "relu comes last": (
        lambda x: OP.add(NN.relu(conv(x)), constant(BIAS.reshape(CHANNELS))),
        lambda x: OP.add(conv_layer(x, ZEROS, parameters=(0, LIMIT)), constant(BIAS.reshape(CHANNELS))),
    ),
    "one activation": (
        lambda x: OP.tanh(NN.relu(biased(x))),
        lambda x: OP.tanh(conv_layer(x, parameters=(0, LIMIT))),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution_and_what_follows(name):
    before, expected = CONVOLUTIONS[name]
    assert_rewrites(module([IMAGE], before), module([IMAGE], expected), FuseLayers())


LINEARS = {
    "alone": (lambda x: OP.matmul(x, constant(MATRIX)), lambda x: linear_layer(x, ZEROS)),
    "bias": (linear, linear_layer),
    "gelu": (lambda x: NN.gelu(linear(x)), lambda x: linear_layer(x, activation="gelu", parameters=())),
    "bias per token stays": (
        lambda x: OP.add(linear(x), constant(random(5, 8))),
        lambda x: OP.add(linear_layer(x), constant(random(5, 8))),
    ),
    "prelu along the tokens stays": (
        lambda x: NN.prelu(linear(x), constant(random(5)), axis=1),
        lambda x: NN.prelu(linear_layer(x), constant(random(5)), axis=1),
    ),
}


@pytest.mark.parametrize("name", LINEARS)
def test_matmul_and_what_follows(name):
    before, expected = LINEARS[name]
    assert_rewrites(module([TOKENS], before), module([TOKENS], expected), FuseLayers())


def test_prelu_along_as_many_tokens_as_channels_stays():
    square, slopes = random(6, 5), constant(random(5))
    body = lambda x: NN.prelu(OP.matmul(x, constant(square)), slopes, axis=1)  # noqa: E731
    assert calls(rewritten(module([TOKENS], body), FuseLayers())) == [LINEAR, "nn.prelu"]


OUT = (2, 8, 9, 8)


def test_residual_and_activation():
    before = module([IMAGE, OUT], lambda x, y: NN.relu(OP.add(y, biased(x))))
    expected = module([IMAGE, OUT], lambda x, y: conv_layer(x, BIAS, y, residual=1, parameters=(0, LIMIT)))
    assert_rewrites(before, expected, FuseLayers())


def test_only_one_residual():
    before = module([IMAGE, OUT, OUT], lambda x, y, z: OP.add(OP.add(biased(x), y), z))
    expected = module([IMAGE, OUT, OUT], lambda x, y, z: OP.add(conv_layer(x, BIAS, y, residual=1), z))
    assert_rewrites(before, expected, FuseLayers())


def test_constant_after_the_residual_stays():
    # It could only be added to the bias if no activation came between; the pass leaves it.
    shift = constant(BIAS.reshape(CHANNELS))
    before = module([IMAGE, OUT], lambda x, y: OP.add(OP.add(conv(x), y), shift))
    expected = module([IMAGE, OUT], lambda x, y: OP.add(conv_layer(x, ZEROS, y, residual=1), shift))
    assert_rewrites(before, expected, FuseLayers())


def test_residual_of_another_shape_stays():
    before = module([IMAGE, (1, 8, 9, 8)], lambda x, y: OP.add(biased(x), y))
    expected = module([IMAGE, (1, 8, 9, 8)], lambda x, y: OP.add(conv_layer(x), y))
    assert_rewrites(before, expected, FuseLayers())


def test_residual_with_slopes():
    slopes = constant(random(8, seed=3))
    before = module([IMAGE, OUT], lambda x, y: NN.prelu(OP.add(biased(x), y), slopes, axis=1))
    expected = module(
        [IMAGE, OUT],
        lambda x, y: conv_layer(x, BIAS, y, slopes, residual=1, slopes=1, activation="prelu", parameters=()),
    )
    assert_rewrites(before, expected, FuseLayers())


def test_sum_of_two_layers_is_the_residual_of_one():
    def body(x):
        emit = relax.BlockBuilder.current().emit
        return OP.add(emit(biased(x)), emit(biased(x)))

    after = rewritten(module([IMAGE], body), FuseLayers())
    assert calls(after) == [CONV2D, CONV2D]
    residuals = [int(b.value.attrs["residual"]) for b in after["main"].body.blocks[0].bindings]
    assert sorted(residuals) == [0, 1]


def test_layer_added_to_itself_stays():
    def body(x):
        y = relax.BlockBuilder.current().emit(biased(x))
        return OP.add(y, y)

    after = rewritten(module([IMAGE], body), FuseLayers())
    assert calls(after) == [CONV2D, "add"]


def test_value_with_two_readers_ends_the_layer():
    def body(x):
        y = relax.BlockBuilder.current().emit(biased(x))
        return OP.multiply(NN.relu(y), OP.exp(y))

    assert calls(rewritten(module([IMAGE], body), FuseLayers())) == [CONV2D, "nn.relu", "exp", "multiply"]


def test_output_ends_the_layer():
    def body(x):
        y = relax.BlockBuilder.current().emit(biased(x))
        return (y, NN.relu(y))

    after = rewritten(module([IMAGE], body), FuseLayers())
    assert calls(after)[:2] == [CONV2D, "nn.relu"]


def test_layers_are_numbered_in_order():
    def body(x):
        return OP.matmul(OP.matmul(x, constant(random(6, 6))), constant(random(6, 6, seed=1)))

    after = rewritten(module([TOKENS], body), FuseLayers())
    names = [str(b.value.attrs["name"]) for b in after["main"].body.blocks[0].bindings]
    assert names == ["linear0", "linear1"]


STAYS = {
    "weights that are no constants": ([IMAGE, (8, 4, 3, 3)], lambda x, w: NN.conv2d(x, w)),
    "channels last": (
        [(2, 9, 8, 4)],
        lambda x: NN.conv2d(x, constant(random(3, 3, 4, 8)), data_layout="NHWC", kernel_layout="HWIO"),
    ),
    "other types": ([((2, 5, 6), "float64")], lambda x: OP.matmul(x, constant(MATRIX.astype("float64")))),
    "matrices by batch": ([TOKENS], lambda x: OP.matmul(x, constant(random(2, 6, 8)))),
    "matrix on the left": ([(2, 6, 5)], lambda x: OP.matmul(constant(random(8, 6)), x)),
    "a vector": ([(6,)], lambda x: OP.matmul(x, constant(MATRIX))),
    "nothing": ([IMAGE], NN.relu),
}


@pytest.mark.parametrize("name", STAYS)
def test_other_operators_stay(name):
    specs, body = STAYS[name]
    assert_unchanged(module(specs, body), FuseLayers())


def test_parameters_survive_as_text():
    # Infinite limits are written as the largest float32: as text they could not be read again.
    after = rewritten(module([IMAGE], conv), FuseLayers())
    parameters = after["main"].body.blocks[0].bindings[0].value.attrs["parameters"]
    assert all(math.isfinite(float(p)) for p in parameters)


def test_other_functions_are_rewritten_too():
    mod = module([IMAGE], biased)
    mod["second"] = mod["main"].with_attr("global_symbol", "second")
    after = FuseLayers()(mod)
    tvm.ir.assert_structural_equal(after["second"].body, after["main"].body, map_free_vars=True)
