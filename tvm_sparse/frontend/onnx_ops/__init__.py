"""Converters for ONNX operators that TVM's importer lacks or gets wrong, one family of operators a file."""

from tvm_sparse.frontend.onnx_ops.registry import converters

__all__ = ["converters"]
