"""Reductions that need a detour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import relax

from tvm_sparse.frontend.onnx_ops.common import dtype_of, is_float, scalar_constant, shape_of, tensor_constant
from tvm_sparse.frontend.onnx_ops.delegate import delegate
from tvm_sparse.frontend.onnx_ops.registry import register


@register("ReduceMax")
def reduce_max(bb: relax.BlockBuilder, inputs: Sequence, attrs: dict[str, Any], opset: int) -> relax.Expr:
    """Largest along axes; of truth values too, and of nothing the smallest value of the type."""
    return _reduce("ReduceMax", bb, inputs, attrs, opset)


@register("ReduceMin")
def reduce_min(bb: relax.BlockBuilder, inputs: Sequence, attrs: dict[str, Any], opset: int) -> relax.Expr:
    """Smallest along axes; of truth values too, and of nothing the largest value of the type."""
    return _reduce("ReduceMin", bb, inputs, attrs, opset)


def _reduce(
    op_type: str, bb: relax.BlockBuilder, inputs: Sequence, attrs: dict[str, Any], opset: int
) -> relax.Expr:
    dtype = dtype_of(inputs[0])
    operands = list(inputs)
    if dtype == "bool":
        operands[0] = bb.normalize(relax.op.astype(inputs[0], "int8"))
    result = bb.normalize(delegate(op_type, bb, operands, attrs, opset))
    if 0 in shape_of(inputs[0]):
        return tensor_constant(np.full(shape_of(result), _of_nothing(op_type, dtype), dtype))
    if dtype == "bool":
        return relax.op.astype(result, "bool")
    if dtype not in ("float32", "float64"):
        return result
    # TVM starts from the largest finite number, which would hide infinities, such as those of a mask.
    limit = np.finfo(dtype).min if op_type == "ReduceMax" else np.finfo(dtype).max
    at_limit = relax.op.equal(result, relax.const(limit, dtype))
    return relax.op.where(at_limit, relax.const(_of_nothing(op_type, dtype), dtype), result)


def _of_nothing(op_type: str, dtype: str) -> float | int | bool:
    """What is reduced to where there are no elements."""
    largest = op_type == "ReduceMin"
    if dtype == "bool":
        return largest
    if is_float(dtype):
        return np.inf if largest else -np.inf
    limits = np.iinfo(dtype)
    return limits.max if largest else limits.min


@register("CumProd")
def cumulative_product(
    bb: relax.BlockBuilder, inputs: Sequence, attrs: dict[str, Any], opset: int
) -> relax.Expr:
    """Products of all elements up to each, along one axis."""
    axis = scalar_constant(inputs[1])
    if axis is None:
        raise ValueError("its axis must be constant")
    reverse, exclusive = bool(attrs.get("reverse", 0)), bool(attrs.get("exclusive", 0))
    x = bb.normalize(relax.op.flip(inputs[0], int(axis))) if reverse else inputs[0]
    x = bb.normalize(relax.op.cumprod(x, int(axis), dtype_of(x), exclusive))
    return relax.op.flip(x, int(axis)) if reverse else x
