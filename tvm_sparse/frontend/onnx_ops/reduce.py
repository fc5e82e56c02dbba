"""Reductions that need a detour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import relax

from tvm_sparse.frontend.onnx_ops.common import dtype_of, scalar_constant
from tvm_sparse.frontend.onnx_ops.delegate import delegate
from tvm_sparse.frontend.onnx_ops.registry import register


@register("ReduceMax")
def reduce_max(bb: relax.BlockBuilder, inputs: Sequence, attrs: dict[str, Any], opset: int) -> relax.Expr:
    """Largest along axes; of truth values too, and minus infinity where there is nothing else."""
    return _reduce("ReduceMax", bb, inputs, attrs, opset)


@register("ReduceMin")
def reduce_min(bb: relax.BlockBuilder, inputs: Sequence, attrs: dict[str, Any], opset: int) -> relax.Expr:
    """Smallest along axes; of truth values too, and infinity where there is nothing else."""
    return _reduce("ReduceMin", bb, inputs, attrs, opset)


def _reduce(
    op_type: str, bb: relax.BlockBuilder, inputs: Sequence, attrs: dict[str, Any], opset: int
) -> relax.Expr:
    dtype = dtype_of(inputs[0])
    if dtype == "bool":
        widened = [bb.normalize(relax.op.astype(inputs[0], "int8")), *list(inputs)[1:]]
        return relax.op.astype(delegate(op_type, bb, widened, attrs, opset), "bool")
    result = bb.normalize(delegate(op_type, bb, inputs, attrs, opset))
    if dtype not in ("float32", "float64"):
        return result
    # TVM starts from the largest finite number, which would hide infinities, such as those of a mask.
    limit, infinity = np.finfo(dtype).max, np.inf
    if op_type == "ReduceMax":
        limit, infinity = -limit, -infinity
    at_limit = relax.op.equal(result, relax.const(limit, dtype))
    return relax.op.where(at_limit, relax.const(infinity, dtype), result)


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
