import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from tests.schedules.cpu.compiled import WIDEST
from tests.schedules.cpu.pipeline import context_for, run_module
from tvm_sparse.transform.depth_to_space_form import DepthToSpaceForm
from tvm_sparse.transform.ops import DEPTH_TO_SPACE, make_layer

from .canonicalize.helpers import assert_rewrites, assert_unchanged, calls, module, outputs, random, rewritten

OP = relax.op
SHAPE = (2, 24, 3, 5)


@I.ir_module
class Dcr:
    @R.function
    def main(x: R.Tensor((2, 24, 3, 5), "float32")) -> R.Tensor((2, 4, 6, 15), "float32"):
        with R.dataflow():
            split = R.reshape(x, (2, 2, 3, 4, 3, 5))
            moved = R.permute_dims(split, axes=[0, 3, 4, 1, 5, 2])
            out = R.reshape(moved, (2, 4, 6, 15))
            R.output(out)
        return out


@I.ir_module
class Crd:
    @R.function
    def main(x: R.Tensor((2, 24, 3, 5), "float32")) -> R.Tensor((2, 4, 6, 15), "float32"):
        with R.dataflow():
            split = R.reshape(x, (2, 4, 2, 3, 3, 5))
            moved = R.permute_dims(split, axes=[0, 1, 4, 2, 5, 3])
            out = R.reshape(moved, (2, 4, 6, 15))
            R.output(out)
        return out


ORDERS = {"DCR": Dcr, "CRD": Crd}


def moved(x, split, axes, shape):
    return OP.reshape(OP.permute_dims(OP.reshape(x, split), axes), shape)


@pytest.mark.parametrize("order", ORDERS)
def test_becomes_one_operator(order):
    def expected(x):
        emit = relax.BlockBuilder.current().emit
        if order == "DCR":  # the old values stay, for other readers; dead code is another pass's work
            emit(OP.permute_dims(emit(OP.reshape(x, (2, 2, 3, 4, 3, 5))), [0, 3, 4, 1, 5, 2]))
        else:
            emit(OP.permute_dims(emit(OP.reshape(x, (2, 4, 2, 3, 3, 5))), [0, 1, 4, 2, 5, 3]))
        attributes = {"block": [2, 3], "order": order, "crop": [0, 0], "size": [6, 15]}
        return make_layer(DEPTH_TO_SPACE, [x], attributes)

    before = tvm.IRModule({"main": ORDERS[order]["main"]})
    assert_rewrites(before, module([SHAPE], expected), DepthToSpaceForm())


@pytest.mark.parametrize("order", ORDERS)
def test_same_results(order):
    x = random(*SHAPE)
    context = context_for(WIDEST)
    (got,) = run_module(ORDERS[order], context, [x])
    (want,) = outputs(ORDERS[order], [x])
    np.testing.assert_array_equal(got, want)
    assert any("to_columns" in symbol for symbol in context.kernels), "moved as columns"


STAYS = {
    "other order of the axes": lambda x: moved(x, (2, 2, 3, 4, 3, 5), [0, 3, 1, 4, 5, 2], (2, 4, 6, 15)),
    "block beside the width": lambda x: moved(x, (2, 4, 2, 3, 3, 5), [0, 1, 4, 3, 5, 2], (2, 4, 9, 10)),
    "other result": lambda x: moved(x, (2, 2, 3, 4, 3, 5), [0, 3, 4, 1, 5, 2], (2, 8, 3, 15)),
    "pixels are split too": lambda x: moved(x, (2, 2, 3, 4, 5, 3), [0, 3, 4, 1, 5, 2], (2, 4, 10, 9)),
    "space to depth": lambda x: moved(
        OP.reshape(x, (2, 6, 6, 10)), (2, 6, 3, 2, 5, 2), [0, 1, 3, 5, 2, 4], (2, 24, 3, 5)
    ),
    "only a transposition": lambda x: OP.permute_dims(OP.reshape(x, (2, 2, 3, 4, 3, 5)), [0, 3, 4, 1, 5, 2]),
}


@pytest.mark.parametrize("name", STAYS)
def test_other_reshapes_stay(name):
    assert_unchanged(module([SHAPE], STAYS[name]), DepthToSpaceForm())


def test_integers_stay():
    body = lambda x: moved(x, (2, 2, 3, 4, 3, 5), [0, 3, 4, 1, 5, 2], (2, 4, 6, 15))  # noqa: E731
    assert_unchanged(module([(SHAPE, "int32")], body), DepthToSpaceForm())


def test_transposed_tensor_with_another_reader():
    def body(x):
        emit = relax.BlockBuilder.current().emit
        y = emit(OP.permute_dims(emit(OP.reshape(x, (2, 2, 3, 4, 3, 5))), [0, 3, 4, 1, 5, 2]))
        return (OP.reshape(y, (2, 4, 6, 15)), y)

    after = rewritten(module([SHAPE], body), DepthToSpaceForm())
    assert calls(after)[:3] == ["reshape", "permute_dims", DEPTH_TO_SPACE]
