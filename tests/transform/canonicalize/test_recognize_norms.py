import numpy as np
import pytest
from tvm import relax

from tvm_sparse.transform.canonicalize.recognize_norms import RecognizeNorms
from tvm_sparse.transform.canonicalize.simplify import Simplify

from .helpers import (
    assert_rewrites,
    assert_same_results,
    calls,
    constant,
    module,
    number,
    ones,
    random,
    rewritten,
)

OP = relax.op
SHAPE = (2, 5, 16)
EPSILON = 1e-5


def mean(x, axes=(-1,)):
    return OP.mean(x, axis=list(axes), keepdims=True)


def opset_13(x, axes=(-1,)):
    centred = relax.BlockBuilder.current().emit(OP.subtract(x, mean(x, axes)))
    variance = mean(OP.power(centred, number(2)), axes)
    return OP.divide(centred, OP.sqrt(OP.add(variance, number(EPSILON))))


def two_differences(x):
    square = OP.subtract(x, mean(x))
    root = OP.divide(number(1), OP.sqrt(OP.add(number(EPSILON), mean(OP.multiply(square, square)))))
    return OP.multiply(OP.subtract(x, mean(x)), root)


def by_variance(x):
    variance = OP.variance(x, axis=[-1], keepdims=True)
    return OP.multiply(OP.subtract(x, mean(x)), OP.rsqrt(OP.add(variance, number(EPSILON))))


@pytest.mark.parametrize("write", [opset_13, by_variance])
def test_layer_norm_is_recognised(write):
    def expected(x):
        zeros = constant(np.zeros(16, "float32"))
        return OP.nn.layer_norm(x, ones(16), zeros, axes=[-1], epsilon=float(np.float32(EPSILON)))

    before = module([SHAPE], write)
    after = assert_rewrites(before, module([SHAPE], expected), Simplify(), RecognizeNorms())
    assert_same_results(before, after)


@pytest.mark.parametrize("shape", [(16,), (1, 1, 16), (1,)])
def test_scale_and_shift_become_parameters(shape):
    def body(x):
        return OP.add(OP.multiply(opset_13(x), constant(random(*shape))), constant(random(*shape, seed=1)))

    before = module([SHAPE], body)
    after = rewritten(before, Simplify(), RecognizeNorms())
    assert calls(after) == ["nn.layer_norm"]
    assert_same_results(before, after)


def test_several_axes():
    before = module([SHAPE], lambda x: opset_13(x, (1, 2)))
    after = rewritten(before, Simplify(), RecognizeNorms())
    assert calls(after) == ["nn.layer_norm"]
    assert_same_results(before, after)


def test_rms_norm_is_recognised():
    def body(x):
        root = OP.sqrt(OP.add(mean(OP.power(x, number(2))), number(EPSILON)))
        return OP.multiply(constant(random(16)), OP.multiply(x, OP.divide(number(1), root)))

    before = module([SHAPE], body)
    after = rewritten(before, Simplify(), RecognizeNorms())
    assert calls(after) == ["nn.rms_norm"]
    assert_same_results(before, after)


def test_softmax_is_recognised():
    def body(x):
        power = relax.BlockBuilder.current().emit(OP.exp(OP.subtract(x, OP.max(x, axis=[1], keepdims=True))))
        return OP.divide(power, OP.sum(power, axis=[1], keepdims=True))

    before = module([SHAPE], body)
    expected = module([SHAPE], lambda x: OP.nn.softmax(x, axis=1))
    assert_same_results(before, assert_rewrites(before, expected, RecognizeNorms()))


STAYS = {
    "other axis": lambda x: opset_13(x, (1,)),
    "mean of another tensor": lambda x: OP.divide(
        OP.subtract(x, mean(OP.nn.relu(x))), OP.sqrt(OP.add(mean(OP.multiply(x, x)), number(EPSILON)))
    ),
    "sums over other axes": lambda x: OP.divide(
        OP.exp(OP.subtract(x, OP.max(x, axis=[1], keepdims=True))),
        OP.sum(OP.exp(OP.subtract(x, OP.max(x, axis=[1], keepdims=True))), axis=[2], keepdims=True),
    ),
}


@pytest.mark.parametrize("name", STAYS)
def test_near_misses_stay(name):
    before = module([SHAPE], STAYS[name])
    after = rewritten(before, RecognizeNorms())
    assert not {"nn.layer_norm", "nn.rms_norm", "nn.softmax"} & set(calls(after))


def test_written_with_two_differences():
    before = module([SHAPE], two_differences)
    assert_same_results(before, rewritten(before, Simplify(), RecognizeNorms()))
