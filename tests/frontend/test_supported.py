"""Operators that cannot be imported are all listed, with where they stand."""

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.frontend.helpers import FLOAT, model_of
from tvm_sparse.errors import ImportModelError
from tvm_sparse.frontend import import_model


def _lstm(name, output):
    return helper.make_node("LSTM", ["x", "w", "r"], [output], name=name, hidden_size=2)


_WEIGHTS = {"w": np.zeros((1, 8, 3), "float32"), "r": np.zeros((1, 8, 2), "float32")}


def test_every_one_is_listed_with_its_place():
    nodes = [
        _lstm("first", "a"),
        helper.make_node("Neg", ["a"], ["b"]),
        _lstm("", "c"),
        helper.make_node("Custom", ["c"], ["d"], name="mine", domain="my.domain"),
    ]
    model = model_of(nodes, {"x": [5, 1, 3]}, ["a", "b", "d"], _WEIGHTS)
    model.opset_import.append(helper.make_opsetid("my.domain", 1))
    with pytest.raises(ImportModelError) as caught:
        import_model(model)
    message = str(caught.value)
    assert message.splitlines()[0] == "Operators that are not supported: LSTM, my.domain.Custom"
    assert "LSTM (node 'first', 1st of 4)" in message
    assert "LSTM (node 'output c', 3rd of 4)" in message
    assert "Custom (node 'mine', 4th of 4)" in message


def test_inside_of_subgraphs():
    result = [helper.make_tensor_value_info("r", FLOAT, None)]
    branches = {
        "then_branch": helper.make_graph([_lstm("hidden", "r")], "then", [], result),
        "else_branch": helper.make_graph([helper.make_node("Neg", ["x"], ["r"])], "else", [], result),
    }
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Cast", ["s"], ["c"], to=onnx.TensorProto.BOOL),
        helper.make_node("If", ["c"], ["y"], name="choice", **branches),
    ]
    model = model_of(nodes, {"x": [5, 1, 3]}, ["y"], _WEIGHTS)
    place = r"LSTM \(node 'hidden', 1st of 1 in then_branch of If 'choice'\)"
    with pytest.raises(ImportModelError, match=place):
        import_model(model)


def test_named_before_open_dimensions():
    model = model_of([_lstm("first", "y")], {"x": ["time", 1, 3]}, ["y"], _WEIGHTS)
    with pytest.raises(ImportModelError, match="not supported: LSTM"):
        import_model(model)


def test_an_unknown_operator_of_the_default_domain():
    model = model_of([helper.make_node("Frobnicate", ["x"], ["y"], name="f")], {"x": [2]}, ["y"])
    with pytest.raises(ImportModelError, match=r"Frobnicate \(node 'f', 1st of 1\)"):
        import_model(model)


def test_long_lists_are_cut():
    nodes = [_lstm(f"n{i}", f"y{i}") for i in range(60)]
    model = model_of(nodes, {"x": [5, 1, 3]}, [f"y{i}" for i in range(60)], _WEIGHTS)
    with pytest.raises(ImportModelError, match="and 10 more nodes"):
        import_model(model)
