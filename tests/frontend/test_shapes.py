"""Fixing input shapes."""

import pytest
from onnx import helper

from tests.frontend.helpers import model_of, small_model
from tvm_sparse.errors import ImportModelError
from tvm_sparse.frontend.shapes import describe_shape, fix_input_shapes


def _two_inputs(a, b):
    return model_of([helper.make_node("Add", ["a", "b"], ["y"])], {"a": a, "b": b}, ["y"])


def _shapes(model):
    return [[dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in model.graph.input]


def test_named_dimensions_are_fixed_everywhere():
    model = _two_inputs(["batch", 3], ["batch", 3])
    fix_input_shapes(model, {"a": [2, 3]})
    assert _shapes(model) == [[2, 3], [2, 3]]


def test_open_dimensions_are_listed_with_a_remedy():
    model = _two_inputs(["batch", 3], [None, 3])
    with pytest.raises(ImportModelError) as caught:
        fix_input_shapes(model, {})
    message = str(caught.value)
    assert "a: [batch, 3]" in message and "b: [?, 3]" in message
    assert '--input-shapes "a:[1,3]"' in message


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        ({"c": [1, 3]}, r"'c', which is not an input. Expected inputs: \['a', 'b'\]"),
        ({"a": [1, 4]}, r"\[1, 4\] does not fit input 'a' of shape \[batch, 3\]"),
        ({"a": [1]}, "does not fit input 'a'"),
        ({"a": [-1, 3]}, "a size below 1"),
        ({"a": [0, 3]}, "a size below 1"),
        ({"a": [1, 3], "b": [2, 3]}, "'batch' is 1 in one input and 2 in 'b'"),
    ],
)
def test_shapes_that_contradict(shapes, reason):
    with pytest.raises(ImportModelError, match=reason):
        fix_input_shapes(_two_inputs(["batch", 3], ["batch", 3]), shapes)


def test_question_marks_are_not_names():
    model = _two_inputs(["?", "?"], ["?", "?"])
    fix_input_shapes(model, {"a": [2, 3], "b": [1, 3]})
    assert _shapes(model) == [[2, 3], [1, 3]]


def test_minus_one_is_open():
    model = small_model((-1, 3))
    assert describe_shape(model.graph.input[0]) == "[?, 3]"
    fix_input_shapes(model, {"x": [7, 3]})
    assert _shapes(model) == [[7, 3]]


def test_scalars_and_unknown_rank():
    model = _two_inputs([], None)
    with pytest.raises(ImportModelError, match="b: unknown rank"):
        fix_input_shapes(model, {})
    fix_input_shapes(model, {"b": []})
    assert _shapes(model) == [[], []]
