"""Inputs that need no alignment: those that only relayouts to columns read, and layers of plain images."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from onnx.reference import ReferenceEvaluator
from tvm import relax

import tvm_sparse
from tests.models.graph import Graph
from tests.schedules.cpu.compiled import TARGETS, WIDEST, every_isa
from tests.schedules.cpu.pipeline import context_for
from tests.transform.canonicalize.helpers import constant, module, random, rewritten
from tvm_sparse.runtime.arrays import aligned_empty
from tvm_sparse.transform.batch import CopyViews, SplitBatch
from tvm_sparse.transform.columns import ToColumns
from tvm_sparse.transform.find_unaligned_inputs import FindUnalignedInputs
from tvm_sparse.transform.fuse_layers import FuseLayers

SHAPE = (4, 3, 24, 24)


def model(kind: str):
    """A model of one input."""
    graph = Graph()
    x = graph.input(*SHAPE)
    outputs = []
    if kind != "read by a loop alone":
        outputs.append(graph.conv(x, 8, 3))
    if kind != "alone":
        outputs.append(graph.op("Transpose", x, perm=[3, 2, 1, 0]))
    return graph.model(*outputs)


def found(specs, body, batch: bool = False) -> set[int]:
    """What the pass finds in a module of one function."""
    context = context_for(WIDEST)
    split = [SplitBatch(context, 1)] if batch else []
    passes = [FuseLayers(), *split, ToColumns(context), CopyViews(context), FindUnalignedInputs(context)]
    before = rewritten(module(specs, body), *passes[:-1])
    tvm.ir.assert_structural_equal(rewritten(before, passes[-1]), before)
    return context.unaligned_inputs


def conv(x):
    return relax.op.nn.conv2d(x, constant(random(8, 16, 3, 3)))


@pytest.mark.parametrize("batch", [False, True], ids=["whole", "items of a batch"])
def test_inputs_of_layers_are_found(batch):
    assert found([(3, 16, 8, 8)], conv, batch) == {0}


def test_readers_of_all_kinds_count():
    assert found([(3, 16, 8, 8)], relax.op.exp) == set()
    assert found([(3, 16, 8, 8), (3, 16, 8, 8)], lambda x, y: relax.Tuple([conv(x), relax.op.exp(y)])) == {0}
    # Who is handed an input may do anything with it.
    assert found([(3, 16, 8, 8)], lambda x: relax.Tuple([x])) == set()


def at_element(array: np.ndarray, element: int) -> np.ndarray:
    """The array again, so many elements after an address that is aligned."""
    room = aligned_empty((array.size + element,), array.dtype)
    moved = room[element:].reshape(array.shape)
    moved[...] = array
    return moved


@every_isa
@pytest.mark.parametrize("element", [0, 1, 4, 13])
def test_inputs_at_any_element(isa_name, element):
    onnx_model = model("alone")
    loaded = tvm_sparse.compile(onnx_model, target=TARGETS[isa_name]).load()
    assert [spec.alignment for spec in loaded.inputs] == [4]
    x = at_element(np.random.default_rng(0).standard_normal(SHAPE).astype("float32"), element)
    (got,) = loaded.run({"x": x}).values()
    (want,) = ReferenceEvaluator(onnx_model).run(None, {"x": x})
    np.testing.assert_allclose(got, want, atol=1e-5)
    # A later run sees what the caller has put there meanwhile.
    x[...] = 0
    (got,) = loaded.run({"x": x}).values()
    np.testing.assert_allclose(got, ReferenceEvaluator(onnx_model).run(None, {"x": x})[0], atol=1e-5)


@pytest.mark.parametrize("kind", ["read by a loop too", "read by a loop alone"])
def test_inputs_that_others_read_are_copied(kind):
    loaded = tvm_sparse.compile(model(kind)).load()
    if kind == "read by a loop alone":
        assert [spec.alignment for spec in loaded.inputs] == [64]
    x = at_element(np.random.default_rng(0).standard_normal(SHAPE).astype("float32"), 1)
    got = list(loaded.run({"x": x}).values())
    for mine, want in zip(got, ReferenceEvaluator(model(kind)).run(None, {"x": x}), strict=True):
        np.testing.assert_allclose(mine, want, atol=1e-5)


def test_without_columns_inputs_are_aligned():
    loaded = tvm_sparse.compile(model("alone"), disabled_passes=["ToColumns"]).load()
    assert [spec.alignment for spec in loaded.inputs] == [64]
