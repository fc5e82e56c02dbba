import numpy as np
import pytest
from tvm import relax

from tvm_sparse.transform.canonicalize.simplify import Simplify

from .helpers import (
    assert_rewrites,
    assert_same_results,
    assert_unchanged,
    constant,
    module,
    number,
    rewritten,
)

OP = relax.op
SHAPE = (2, 3, 4)

NOTHING = {
    "astype": lambda x: OP.astype(x, "float32"),
    "reshape": lambda x: OP.reshape(x, SHAPE),
    "permute": lambda x: OP.permute_dims(x, [0, 1, 2]),
    "broadcast": lambda x: OP.broadcast_to(x, SHAPE),
    "slice": lambda x: OP.strided_slice(x, [1], [0], [3]),
    "pad": lambda x: OP.nn.pad(x, [0] * 6),
    "concat": lambda x: OP.concat([x], axis=1),
    "add": lambda x: OP.add(number(0), x),
    "subtract": lambda x: OP.subtract(x, constant(np.zeros(1, "float32"))),
    "multiply": lambda x: OP.multiply(x, number(1)),
    "divide": lambda x: OP.divide(x, number(1)),
    "dropout": lambda x: relax.TupleGetItem(OP.nn.dropout(x), 0),
}


@pytest.mark.parametrize("name", NOTHING)
def test_operator_without_effect_vanishes(name):
    before = module([SHAPE], lambda x: OP.negative(NOTHING[name](x)))
    assert_rewrites(before, module([SHAPE], OP.negative), Simplify())


FORMS = {
    "expand": (lambda x: OP.expand_dims(x, [1]), lambda x: OP.reshape(x, (2, 1, 3, 4))),
    "squeeze": (lambda x: OP.squeeze(OP.reshape(x, (2, 12, 1)), [2]), None),
    "flatten": (OP.flatten, lambda x: OP.reshape(x, (24,))),
    "take": (
        lambda x: OP.take(x, constant(np.array(-1, "int64")), axis=1, mode="wrap"),
        lambda x: OP.reshape(OP.strided_slice(x, [1], [2], [3]), (2, 4)),
    ),
    "split": (
        lambda x: relax.TupleGetItem(OP.split(x, [1, 3], axis=2), 1),
        lambda x: OP.strided_slice(x, [2], [1], [3]),
    ),
    "relu": (lambda x: OP.maximum(x, number(0)), OP.nn.relu),
    "relu6": (lambda x: OP.nn.relu6(OP.maximum(x, number(1))), lambda x: OP.clip(x, 1.0, 6.0)),
    "min_max": (lambda x: OP.minimum(OP.maximum(x, number(-1)), number(2)), lambda x: OP.clip(x, -1.0, 2.0)),
    "clip_relu": (lambda x: OP.clip(OP.nn.relu(x), 0, 6), lambda x: OP.clip(x, 0.0, 6.0)),
    "square": (lambda x: OP.power(x, number(2)), lambda x: OP.multiply(x, x)),
    "root": (lambda x: OP.divide(number(1), OP.power(x, number(0.5))), OP.rsqrt),
    "constant_right": (lambda x: OP.multiply(number(3), x), lambda x: OP.multiply(x, number(3))),
}


@pytest.mark.parametrize("name", [name for name, (_, after) in FORMS.items() if after])
def test_normal_form(name):
    before, after = FORMS[name]
    assert_rewrites(module([SHAPE], before), module([SHAPE], after), Simplify())


@pytest.mark.parametrize("name", [name for name in FORMS if name != "root"])  # random inputs are negative too
def test_normal_form_computes_the_same(name):
    before = module([SHAPE], FORMS[name][0])
    assert_same_results(before, rewritten(before, Simplify()))


def test_what_has_an_effect_stays():
    def body(x):
        wider = OP.add(number(0), OP.nn.relu(x))
        sliced = OP.strided_slice(x, [1], [0], [3], [2])
        return OP.add(wider, constant(np.zeros((5, 2, 3, 4), "float32"))), sliced, OP.clip(x, -1.0, 1.0)

    after = rewritten(module([SHAPE], body), Simplify())
    assert_same_results(module([SHAPE], body), after)
    assert tuple(after["main"].ret_ty.fields[0].shape) == (5, 2, 3, 4)
    assert tuple(after["main"].ret_ty.fields[1].shape) == (2, 2, 4)


def test_disjoint_clips_stay():
    assert_unchanged(module([SHAPE], lambda x: OP.clip(OP.clip(x, 0.0, 1.0), 2.0, 3.0)), Simplify())
