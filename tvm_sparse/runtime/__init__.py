"""Loads and runs packages with the TVM runtime alone: no compiler, no onnx, no torch."""

import tvm_sparse.ffi  # noqa: F401  (first: it keeps torch out)
from tvm_sparse.runtime.benchmark import BenchmarkResult
from tvm_sparse.runtime.layers import LayerProfile, LayerTime, layer_profile
from tvm_sparse.runtime.module import Module
from tvm_sparse.runtime.package import Package, load
from tvm_sparse.runtime.profile import CallTime, ProfileResult
from tvm_sparse.runtime.roofs import Roofs
from tvm_sparse.runtime.spec import TensorSpec

__all__ = [
    "BenchmarkResult",
    "CallTime",
    "LayerProfile",
    "LayerTime",
    "Module",
    "Package",
    "ProfileResult",
    "Roofs",
    "TensorSpec",
    "layer_profile",
    "load",
]
