"""Compiling and checking one node test."""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax

import tvm_sparse
from tests.onnx_backend.cases import Case
from tvm_sparse.frontend import Imported


def check(case: Case) -> None:
    """Compile a case, run it on every set of inputs, and compare all outputs.

    Raises
    ------
    AssertionError
        An output has another type, shape or other values than the test expects.
    TvmSparseError
        The case cannot be imported.
    """
    module = tvm_sparse.compile(case.model, input_shapes=_open_shapes(case)).load()
    for feeds, expected in case.data:
        results = module.run(feeds)
        for spec, want in zip(module.outputs, expected, strict=True):
            _compare(results[spec.name], want, case)


def compile_plain(imported: Imported):
    """Compile with TVM's default pipeline, for tests of the import alone.

    Returns a function from inputs to outputs by name.
    """
    executable = tvm.compile(imported.module, target=tvm.target.Target("llvm"))
    machine = relax.VirtualMachine(executable, tvm.cpu())

    def run(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        arrays = [np.asarray(feeds[spec.name], order="C") for spec in imported.inputs]
        results = machine["main"](*map(tvm.runtime.tensor, arrays))
        results = [results] if isinstance(results, tvm.runtime.Tensor) else list(results)
        return {spec.name: value.numpy() for spec, value in zip(imported.outputs, results, strict=True)}

    return run


def _open_shapes(case: Case) -> dict[str, tuple[int, ...]]:
    """Shapes of the inputs that the model leaves open."""
    feeds = case.data[0][0]
    return {
        value.name: feeds[value.name].shape
        for value in case.model.graph.input
        if value.name in feeds
        and not all(dim.HasField("dim_value") for dim in value.type.tensor_type.shape.dim)
    }


def _compare(got: np.ndarray, want: np.ndarray, case: Case) -> None:
    assert got.dtype == want.dtype, f"output is {got.dtype}, expected {want.dtype}"
    assert got.shape == want.shape, f"output has shape {got.shape}, expected {want.shape}"
    if got.dtype.kind in "biu":
        np.testing.assert_array_equal(got, want)
    else:
        # Types such as bfloat16 are compared by value.
        np.testing.assert_allclose(
            got.astype("float64"), want.astype("float64"), rtol=case.rtol, atol=case.atol
        )
