"""Outputs in memory of their own: allocated by the run, alone in their storage, returned once."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax

import tvm_sparse
from tests.models.graph import Graph
from tests.schedules.cpu.compiled import WIDEST
from tests.schedules.cpu.pipeline import context_for
from tests.transform.canonicalize.helpers import constant, random
from tvm_sparse.transform.find_own_outputs import FindOwnOutputs

SHAPE = (2, 3)


def found(body) -> set[int]:
    """What the pass finds in a function of `body(alloc, emit, parameter)`."""
    parameter = relax.Var("x", relax.TensorType(SHAPE, "float32"))
    builder = relax.BlockBuilder()

    def storage():
        return builder.emit(relax.op.memory.alloc_storage(relax.ShapeExpr([64]), 0, "global", "float32"))

    def alloc(where=None):
        return builder.emit(
            relax.op.memory.alloc_tensor(storage() if where is None else where, 0, relax.ShapeExpr(SHAPE), "float32")
        )

    alloc.storage = storage
    with builder.function("main", [parameter]):
        builder.emit_func_output(body(alloc, builder.emit, parameter))
    module, context = builder.get(), context_for(WIDEST)
    tvm.ir.assert_structural_equal(FindOwnOutputs(context)(module), module)
    return context.own_outputs


def test_one_output():
    assert found(lambda alloc, emit, x: alloc()) == {0}
    assert found(lambda alloc, emit, x: x) == set()
    assert found(lambda alloc, emit, x: emit(constant(random(*SHAPE)))) == set()


def test_other_names_and_tuples():
    assert found(lambda alloc, emit, x: emit(emit(alloc()))) == {0}
    assert found(lambda alloc, emit, x: emit(relax.Tuple([alloc(), x, alloc()]))) == {0, 2}


def test_returned_twice():
    def body(alloc, emit, _x):
        tensor = alloc()
        return relax.Tuple([tensor, alloc(), emit(tensor)])

    assert found(body) == {1}


def test_other_tensors_in_the_storage():
    def body(alloc, _emit, _x):
        storage = alloc.storage()
        return relax.Tuple([alloc(storage), alloc(storage), alloc()])

    assert found(body) == {2}


def test_views_are_copied():
    """The view of an output is no output's memory of its own; the output itself is."""

    def body(alloc, emit, _x):
        tensor = alloc()
        return relax.Tuple([tensor, emit(relax.op.reshape(tensor, (3, 2)))])

    assert found(body) == {0}


def test_tuples_of_tuples():
    def body(alloc, emit, x):
        inner = emit(relax.Tuple([alloc(), x, alloc()]))
        return relax.Tuple([inner, alloc()])

    assert found(body) == {0, 2, 3}


def test_tuples_from_elsewhere():
    """Their fields are counted, and copied."""
    pair = relax.TupleType([relax.TensorType(SHAPE, "float32")] * 2)

    def body(alloc, emit, x):
        call = relax.Call(relax.ExternFunc("pair"), [x], ty_args=[pair])
        return relax.Tuple([emit(call), alloc()])

    assert found(body) == {2}


@pytest.mark.parametrize("readonly", [False, True], ids=["writable", "read-only"])
def test_compiled_model(monkeypatch, readonly):
    """Whatever the caller does with outputs, no later run changes them or is changed by them."""
    graph = Graph()
    x = graph.input(2, 8, 12, 12)
    y = graph.conv(x, 8, 3)
    package = tvm_sparse.compile(graph.model(y, graph.op("Relu", y), graph.op("Identity", y)))
    # The first and the last are one tensor.
    assert [spec.own for spec in package.outputs] == [False, True, False]
    if readonly:
        # As numpy before 2.1 hands out tensors.
        hand_out = np.from_dlpack

        def read_only(tensor):
            array = hand_out(tensor)
            array.flags.writeable = False
            return array

        monkeypatch.setattr(np, "from_dlpack", read_only)
    module, values = package.load(), random(2, 8, 12, 12)
    name = module.inputs[0].name
    first = list(module.run({name: values}).values())
    kept = [array.copy() for array in first]
    second = list(module.run({name: values * 2}).values())
    assert all(array.flags.writeable for array in first)
    for array, before, after in zip(first, kept, second, strict=True):
        np.testing.assert_array_equal(array, before)
        assert not np.array_equal(array, after) and not any(np.shares_memory(array, other) for other in second)
        array[...] = 7
    for array, before in zip(module.run({name: values}).values(), kept, strict=True):
        np.testing.assert_array_equal(array, before)
