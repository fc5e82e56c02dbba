"""What depends on nothing but shapes and constants is computed at import, with onnxslim and without."""

import numpy as np
import onnx
import onnxslim
import pytest
from onnx import helper
from tvm import relax

from tests.frontend.helpers import evaluate, model_of
from tvm_sparse.frontend import import_model
from tvm_sparse.frontend.simplify import simplify


def _flatten_model():
    """Flattens by shape arithmetic, as PyTorch's exporter writes ``x.view(x.size(0), -1)``."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"], axis=0),
        helper.make_node("Unsqueeze", ["n", "axes"], ["n1"]),
        helper.make_node("Concat", ["n1", "rest"], ["shape"], axis=0),
        helper.make_node("Reshape", ["x", "shape"], ["y"]),
    ]
    weights = {"zero": np.array(0), "axes": np.array([0]), "rest": np.array([-1])}
    return model_of(nodes, {"x": ["n", 3, 4]}, ["y"], weights)


@pytest.fixture(params=["onnxslim", "without"])
def slimming(request, monkeypatch):
    """Import with onnxslim, and as when it fails."""
    if request.param == "without":

        def fail(*args, **kwargs):
            raise RuntimeError("cannot simplify")

        monkeypatch.setattr(onnxslim, "slim", fail)
    return request.param


def _operators(module):
    found = []
    relax.analysis.post_order_visit(
        module["main"].body, lambda e: found.append(e.op.name) if isinstance(e, relax.Call) else None
    )
    return found


def test_shape_arithmetic(slimming):
    imported = import_model(_flatten_model(), {"x": [2, 3, 4]})
    assert imported.outputs[0].shape == (2, 12)
    assert _operators(imported.module) == ["relax.reshape"]


def test_known_branch_is_inlined(slimming):
    result = [helper.make_tensor_value_info("r", onnx.TensorProto.FLOAT, None)]
    then = helper.make_graph([helper.make_node("Neg", ["x"], ["r"])], "then", [], result)
    other = helper.make_graph([helper.make_node("Abs", ["x"], ["r"])], "else", [], result)
    nodes = [
        helper.make_node("Size", ["x"], ["n"]),
        helper.make_node("Greater", ["n", "limit"], ["big"]),
        helper.make_node("If", ["big"], ["y"], then_branch=then, else_branch=other),
    ]
    model = model_of(nodes, {"x": [4]}, ["y"], {"limit": np.array(10)})
    assert _operators(import_model(model).module) == ["relax.abs"]


def test_branch_on_data(slimming):
    result = [helper.make_tensor_value_info("r", onnx.TensorProto.FLOAT, None)]
    then = helper.make_graph([helper.make_node("Neg", ["x"], ["r"])], "then", [], result)
    other = helper.make_graph([helper.make_node("Abs", ["x"], ["r"])], "else", [], result)
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Greater", ["s", "limit"], ["big"]),
        helper.make_node("If", ["big"], ["y"], then_branch=then, else_branch=other),
    ]
    model = model_of(nodes, {"x": [2]}, ["y"], {"limit": np.float32(0)})
    for x, want in (([3, 1], [-3, -1]), ([-3, 1], [3, 1])):
        np.testing.assert_array_equal(evaluate(model, {"x": np.array(x, "float32")})["y"], want)


def test_integer_constants_keep_their_width():
    nodes = [helper.make_node("Shape", ["x"], ["y"])]
    model = model_of(nodes, {"x": [2, 3]}, ["y"])
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    got = evaluate(model, {"x": np.zeros((2, 3), "float32")})["y"]
    assert got.dtype == "int64" and got.tolist() == [2, 3]


def test_quantised_weights_stay_quantised(slimming):
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "scale"], ["d"]),
        helper.make_node("Mul", ["x", "d"], ["y"]),
    ]
    model = model_of(nodes, {"x": [3]}, ["y"], {"w": np.array([1, -2, 3], "int8"), "scale": np.float32(0.5)})
    assert "relax.dequantize" in _operators(import_model(model).module)


def test_simplify_keeps_inputs_and_outputs():
    nodes = [helper.make_node("Identity", ["x"], ["a"]), helper.make_node("Neg", ["a"], ["y"])]
    model = model_of(nodes, {"unused": [1], "x": [2]}, ["y", "a"])
    slimmed = simplify(model)
    assert [value.name for value in slimmed.graph.input] == ["unused", "x"]
    assert [value.name for value in slimmed.graph.output] == ["y", "a"]


def test_a_large_expansion_is_not_stored(slimming):
    nodes = [
        helper.make_node("Expand", ["one", "shape"], ["big"]),
        helper.make_node("Add", ["x", "big"], ["y"]),
    ]
    weights = {"one": np.float32(1), "shape": np.array([1 << 13, 1 << 12])}
    imported = import_model(model_of(nodes, {"x": [1]}, ["y"], weights))
    assert "relax.broadcast_to" in _operators(imported.module)
