"""Small ONNX models for tests, and their values."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
from onnx import helper, numpy_helper

from tests.onnx_backend.runner import compile_plain
from tvm_sparse.frontend import import_model

FLOAT = onnx.TensorProto.FLOAT


def model_of(
    nodes,
    inputs: dict[str, list],
    outputs: list[str],
    weights: dict[str, np.ndarray] | None = None,
    opset: int = 17,
    dtype: int = FLOAT,
) -> onnx.ModelProto:
    """A model of the given nodes; ``inputs`` maps names to shapes, outputs get no shapes."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(name, dtype, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, dtype, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (weights or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def small_model(shape=("batch", 3)) -> onnx.ModelProto:
    """``y = relu(x @ w)`` with a weight of shape [3, 2]."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="linear"),
        helper.make_node("Relu", ["h"], ["y"], name="activation"),
    ]
    weight = np.arange(6, dtype="float32").reshape(3, 2) - 2
    return model_of(nodes, {"x": list(shape)}, ["y"], {"w": weight})


def evaluate(model: onnx.ModelProto, feeds: dict[str, np.ndarray], input_shapes=None) -> dict:
    """Import, compile and run a model."""
    return compile_plain(import_model(model, input_shapes))(feeds)


def expect_like_onnxruntime(model: onnx.ModelProto, feeds: dict[str, np.ndarray], tolerance=1e-5) -> None:
    """Compare all outputs with ONNX Runtime's."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    names = [value.name for value in model.graph.output]
    got = evaluate(model, feeds)
    for name, want in zip(names, session.run(names, feeds), strict=True):
        assert got[name].shape == want.shape and got[name].dtype == want.dtype
        np.testing.assert_allclose(got[name], want, rtol=tolerance, atol=tolerance)
