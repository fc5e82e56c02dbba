"""Reading ONNX files: bad ones are refused with the file and the remedy; weights in every form."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.frontend.helpers import model_of, small_model
from tvm_sparse.errors import ImportModelError
from tvm_sparse.frontend.onnx_load import load_onnx


def test_missing_file(tmp_path):
    with pytest.raises(ImportModelError, match="Input file '.*nothing.onnx' doesn't exist"):
        load_onnx(tmp_path / "nothing.onnx")
    with pytest.raises(ImportModelError, match="doesn't exist, is a broken symbolic link, or a directory"):
        load_onnx(tmp_path)


@pytest.mark.parametrize("content", [b"", b"hello, I am a text file\n", b"\x00" * 100, b"\x89PNG\r\n\x1a\n"])
def test_not_an_onnx_file(tmp_path, content):
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(ImportModelError, match="bad.onnx"):
        load_onnx(path)


def test_truncated_at_any_length(tmp_path):
    data = small_model((1, 3)).SerializeToString()
    path = tmp_path / "cut.onnx"
    refused = 0
    for length in range(1, len(data), 7):
        path.write_bytes(data[:length])
        try:
            load_onnx(path)
        except ImportModelError as error:
            assert "cut.onnx" in str(error)
            refused += 1
    assert refused > 0.9 * len(range(1, len(data), 7))


def test_external_data(tmp_path):
    model = small_model((1, 3))
    path = tmp_path / "m.onnx"
    expected = numpy_helper.to_array(model.graph.initializer[0])
    onnx.save(model, path, save_as_external_data=True, location="m.data", size_threshold=0)
    np.testing.assert_array_equal(numpy_helper.to_array(load_onnx(path).graph.initializer[0]), expected)
    (tmp_path / "m.data").unlink()
    with pytest.raises(ImportModelError, match="m.onnx.*external files"):
        load_onnx(path)
    with pytest.raises(ImportModelError, match="external files: load it with onnx.load"):
        load_onnx(onnx.load(path, load_external_data=False))


def test_nan_weight_is_named_and_infinity_is_not_refused():
    model = small_model((1, 3))
    weight = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight[1, 1] = -np.inf
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w"))
    load_onnx(model)
    weight[2, 0] = np.nan
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w"))
    with pytest.raises(ImportModelError, match=r"NaN in weight 'w' \(1 of 6 values\)"):
        load_onnx(model)


def test_constant_nodes_become_weights():
    nodes = [
        helper.make_node("Constant", [], ["a"], value=numpy_helper.from_array(np.ones((2, 2), "float32"))),
        helper.make_node("Constant", [], ["b"], value_float=2.5),
        helper.make_node("Constant", [], ["c"], value_ints=[1, 2]),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    loaded = load_onnx(model_of(nodes, {}, ["y"]))
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in loaded.graph.initializer}
    assert [node.op_type for node in loaded.graph.node] == ["Add"]
    assert values["b"] == np.float32(2.5) and values["b"].dtype == "float32"
    assert values["c"].tolist() == [1, 2] and values["c"].dtype == "int64"


def test_weights_listed_as_inputs_are_weights():
    model = small_model((1, 3))
    model.graph.input.append(helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [3, 2]))
    assert [value.name for value in load_onnx(model).graph.input] == ["x"]


def test_model_local_functions_are_inlined():
    body = [helper.make_node("Mul", ["a", "a"], ["square"]), helper.make_node("Neg", ["square"], ["r"])]
    opsets = [helper.make_opsetid("", 17)]
    function = helper.make_function("local", "NegSquare", ["a"], ["r"], body, opsets)
    model = model_of([helper.make_node("NegSquare", ["x"], ["y"], domain="local")], {"x": [2]}, ["y"])
    model.opset_import.append(helper.make_opsetid("local", 1))
    model.functions.append(function)
    assert [node.op_type for node in load_onnx(model).graph.node] == ["Mul", "Neg"]
