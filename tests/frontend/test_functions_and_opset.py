"""Operators that ONNX defines by others, and old operator sets."""

import numpy as np
import pytest
from onnx import helper

from tests.frontend.helpers import evaluate, expect_like_onnxruntime, model_of
from tvm_sparse.errors import ImportModelError
from tvm_sparse.frontend import import_model
from tvm_sparse.frontend.functions import expand_functions


def test_operator_with_a_body_is_expanded():
    model = model_of([helper.make_node("Celu", ["x"], ["y"], alpha=2.0)], {"x": [4]}, ["y"])
    assert "Celu" not in {node.op_type for node in expand_functions(model).graph.node}
    expect_like_onnxruntime(model, {"x": np.array([-3, -0.5, 0, 2], "float32")})


def test_default_attributes_reach_the_body():
    model = model_of([helper.make_node("Celu", ["x"], ["y"])], {"x": [4]}, ["y"])
    expect_like_onnxruntime(model, {"x": np.array([-3, -0.5, 0, 2], "float32")})


def test_nothing_to_expand_leaves_the_model():
    model = model_of([helper.make_node("Relu", ["x"], ["y"])], {"x": [4]}, ["y"])
    assert expand_functions(model) is model


def test_attention_of_the_default_domain():
    nodes = [helper.make_node("Attention", ["q", "k", "v"], ["y"])]
    shape = [1, 2, 5, 8]
    model = model_of(nodes, {"q": shape, "k": shape, "v": shape}, ["y"], opset=23)
    rng = np.random.default_rng(0)
    feeds = {name: rng.standard_normal(shape).astype("float32") for name in "qkv"}
    scores = feeds["q"] @ feeds["k"].transpose(0, 1, 3, 2) / np.sqrt(8)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    want = weights / weights.sum(-1, keepdims=True) @ feeds["v"]
    np.testing.assert_allclose(evaluate(model, feeds)["y"], want, rtol=1e-4, atol=1e-5)


def test_operator_set_6_is_converted():
    # Until operator set 7 a broadcast had to be asked for.
    nodes = [helper.make_node("Add", ["x", "w"], ["y"], broadcast=1, axis=1)]
    model = model_of(nodes, {"x": [2, 3]}, ["y"], {"w": np.arange(3, dtype="float32")}, opset=6)
    got = evaluate(model, {"x": np.ones((2, 3), "float32")})
    np.testing.assert_array_equal(got["y"], [[1, 2, 3]] * 2)


def test_operator_set_that_cannot_be_converted_is_named():
    nodes = [helper.make_node("Scatter", ["x", "i", "u"], ["y"])]
    weights = {"i": np.array([0]), "u": np.ones(1, "float32")}
    model = model_of(nodes, {"x": [4]}, ["y"], weights, opset=1)
    with pytest.raises(ImportModelError, match="operator set 1.*export it again"):
        import_model(model)
