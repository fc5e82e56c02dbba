"""Compiling and checking one node test."""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax

from tests.onnx_backend.cases import Case
from tvm_sparse.frontend import import_model

def compile_plain(imported):
    """Compile with TVM's default pipeline; returns a function of feeds."""
    executable = tvm.compile(imported.module, target=tvm.target.Target("llvm"))
    machine = relax.VirtualMachine(executable, tvm.cpu())

    def run(feeds):
        results = machine["main"](*[tvm.runtime.tensor(np.asarray(feeds[spec.name], order="C")) for spec in imported.inputs])
        results = [results] if isinstance(results, tvm.runtime.Tensor) else list(results)
        return {spec.name: value.numpy() for spec, value in zip(imported.outputs, results, strict=True)}

    return run


def _open_shapes(case: Case) -> dict[str, tuple[int, ...]]:
    """Shapes of the inputs that the model leaves open."""
    shapes = {}
    for value in case.model.graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name in case.data[0][0] and not all(dim.HasField("dim_value") for dim in dims):
            shapes[value.name] = case.data[0][0][value.name].shape
    return shapes


def check(case: Case) -> None:
    """Raise an error when the case fails."""
    imported = import_model(case.model, _open_shapes(case))
    run = compile_plain(imported)
    for feeds, expected in case.data:
        results = run({k: np.asarray(v) for k, v in feeds.items()})
        for spec, want in zip(imported.outputs, expected, strict=True):
            got = results[spec.name]
            want = np.asarray(want)
            assert got.dtype == want.dtype, f"output {spec.name} is {got.dtype}, expected {want.dtype}"
            assert got.shape == want.shape, f"output {spec.name} has shape {got.shape}, expected {want.shape}"
            if got.dtype.kind in "biu":
                np.testing.assert_array_equal(got, want)
            else:
                np.testing.assert_allclose(got.astype('float64'), want.astype('float64'), rtol=case.rtol, atol=case.atol)
