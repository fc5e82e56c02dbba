import math

import numpy as np
import pytest
import tvm
from tvm import relax

from tvm_sparse.transform.canonicalize.hard_ops import hard_sigmoid, hard_swish
from tvm_sparse.transform.canonicalize.recognize_activations import RecognizeActivations
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
SHAPE = (2, 4, 5, 6)
ROOT = math.sqrt(2 / math.pi)


def cubic(x):
    return OP.multiply(OP.add(x, OP.multiply(OP.power(x, number(3)), number(0.044715))), number(ROOT))


def cubic_factored(x):
    inner = OP.add(number(1), OP.multiply(number(0.044715), OP.multiply(x, x)))
    return OP.multiply(OP.multiply(x, number(ROOT)), inner)


FORMS = {
    "gelu of opset 13": (
        lambda x: OP.multiply(
            OP.multiply(x, OP.add(OP.erf(OP.divide(x, number(math.sqrt(2)))), number(1))), number(0.5)
        ),
        OP.nn.gelu,
    ),
    "gelu, half first": (
        lambda x: OP.multiply(
            OP.multiply(number(0.5), x), OP.add(number(1), OP.erf(OP.multiply(x, number(math.sqrt(0.5)))))
        ),
        OP.nn.gelu,
    ),
    "gelu, half inside": (
        lambda x: OP.multiply(
            x, OP.add(OP.multiply(OP.erf(OP.divide(x, number(math.sqrt(2)))), number(0.5)), number(0.5))
        ),
        OP.nn.gelu,
    ),
    "gelu_tanh": (
        lambda x: OP.multiply(OP.multiply(x, number(0.5)), OP.add(OP.tanh(cubic(x)), number(1))),
        OP.nn.gelu_tanh,
    ),
    "gelu_tanh, factored": (
        lambda x: OP.multiply(number(0.5), OP.multiply(x, OP.add(number(1), OP.tanh(cubic_factored(x))))),
        OP.nn.gelu_tanh,
    ),
    "silu": (lambda x: OP.multiply(OP.sigmoid(x), x), OP.nn.silu),
    "sigmoid": (lambda x: OP.divide(number(1), OP.add(number(1), OP.exp(OP.negative(x)))), OP.sigmoid),
    "hard_sigmoid of ONNX": (
        lambda x: OP.clip(OP.add(OP.multiply(number(1 / 6), x), number(0.5)), 0, 1),
        hard_sigmoid,
    ),
    "hard_sigmoid by clip": (
        lambda x: OP.divide(OP.clip(OP.add(x, number(3)), 0.0, 6.0), number(6)),
        hard_sigmoid,
    ),
    "hard_swish": (
        lambda x: OP.multiply(x, OP.clip(OP.add(OP.multiply(x, number(1 / 6)), number(0.5)), 0, 1)),
        hard_swish,
    ),
    "hard_swish, divided last": (
        lambda x: OP.divide(OP.multiply(x, OP.clip(OP.add(x, number(3)), 0, 6)), number(6)),
        hard_swish,
    ),
    "hard_swish, gate scaled": (
        lambda x: OP.multiply(x, OP.multiply(OP.clip(OP.add(x, number(3)), 0, 6), number(1 / 6))),
        hard_swish,
    ),
    "leakyrelu": (
        lambda x: OP.where(OP.greater(x, number(0)), x, OP.multiply(x, number(0.25))),
        lambda x: OP.nn.leakyrelu(x, 0.25),
    ),
    "prelu": (
        lambda x: OP.where(OP.greater(x, number(0)), x, OP.multiply(x, constant(random(1, 4, 1, 1)))),
        lambda x: OP.nn.prelu(x, constant(random(4)), axis=1),
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_form_is_recognised(name):
    write, activation = FORMS[name]
    before = module([SHAPE], write)
    after = assert_rewrites(before, module([SHAPE], activation), Simplify(), RecognizeActivations())
    assert_same_results(before, after)


STAYS = {
    "gelu of another slope": lambda x: OP.multiply(
        OP.multiply(x, OP.add(OP.erf(OP.multiply(x, number(0.7))), number(1))), number(0.5)
    ),
    "gelu without half": lambda x: OP.multiply(x, OP.add(OP.erf(OP.divide(x, number(2**0.5))), number(1))),
    "quick gelu": lambda x: OP.multiply(x, OP.sigmoid(OP.multiply(x, number(1.702)))),
    "sigmoid of another tensor": lambda x: OP.multiply(x, OP.sigmoid(OP.nn.relu(x))),
    "hard sigmoid of another slope": lambda x: OP.clip(
        OP.add(OP.multiply(x, number(0.2)), number(0.5)), 0, 1
    ),
    "slopes by row": lambda x: OP.where(
        OP.greater(x, number(0)), x, OP.multiply(x, constant(random(1, 1, 5, 1)))
    ),
    "threshold": lambda x: OP.where(OP.greater(x, number(1)), x, OP.multiply(x, number(0.1))),
}


@pytest.mark.parametrize("name", STAYS)
def test_near_misses_stay(name):
    before = module([SHAPE], STAYS[name])
    assert calls(rewritten(before, RecognizeActivations())) == calls(before)


def test_hard_operators_compute_and_print_and_parse():
    mod = module([(9,)], lambda x: (hard_swish(x), hard_sigmoid(x)))
    x = np.array([-9, -3, -2.5, -1, 0, 0.5, 2.9, 3, 20], "float32")
    gate = np.clip(x + 3, 0, 6) / 6
    swish, sigmoid = outputs(mod, [x])
    np.testing.assert_allclose(swish, x * gate, rtol=1e-6)
    np.testing.assert_allclose(sigmoid, gate, rtol=1e-6)
    tvm.ir.assert_structural_equal(tvm.script.from_source(mod.script(show_meta=True)), mod)
