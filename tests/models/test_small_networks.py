"""Small networks of many kinds: compiled and run, compared with ONNX Runtime at several sparsities."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

import tvm_sparse
from tests.models.networks import NETWORKS, make

TOLERANCE = 1e-4  # of the output's largest absolute value


def cases() -> list:
    """Each network at 90 % zeros and at one of 0, 50 and 100 %, in turn; the rest is marked slow."""
    quick = (0.0, 0.5, 1.0)
    params = []
    for index, name in enumerate(NETWORKS):
        for sparsity in (0.0, 0.5, 0.9, 1.0):
            fast = sparsity in (0.9, quick[index % 3])
            marks = () if fast else (pytest.mark.slow,)
            params.append(pytest.param(name, sparsity, marks=marks, id=f"{name}-{round(sparsity * 100)}"))
    return params


def feeds_of(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Random inputs: normal float32, or token ids below 50."""
    rng, feeds = np.random.default_rng(1), {}
    for info in model.graph.input:
        shape = [d.dim_value for d in info.type.tensor_type.shape.dim]
        if info.type.tensor_type.elem_type == onnx.TensorProto.INT64:
            feeds[info.name] = rng.integers(0, 50, shape)
        else:
            feeds[info.name] = rng.standard_normal(shape).astype("float32")
    return feeds


def expected_of(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """ONNX Runtime's outputs by name."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [info.name for info in model.graph.output]
    return dict(zip(names, session.run(names, feeds), strict=True))


@pytest.mark.parametrize("name, sparsity", cases())
def test_agrees_with_onnx_runtime(name: str, sparsity: float) -> None:
    model = make(name, sparsity)
    feeds = feeds_of(model)
    expected = expected_of(model, feeds)
    got = tvm_sparse.compile(model).load().run(feeds)
    assert list(got) == list(expected)
    for output, reference in expected.items():
        assert got[output].shape == reference.shape and got[output].dtype == reference.dtype
        scale = float(np.abs(reference).max())
        assert scale > 1e-3, "the network's output says nothing"
        error = float(np.abs(got[output].astype("float64") - reference).max()) / scale
        assert error <= TOLERANCE, f"output {output}: relative error {error:.2e}"
