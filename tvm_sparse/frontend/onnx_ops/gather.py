"""Gather and OneHot: indices may be negative, and ones out of range must not read outside of a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tvm
from tvm import relax

from tvm_sparse.frontend.onnx_ops.common import constant_value, dtype_of, shape_of
from tvm_sparse.frontend.onnx_ops.registry import register


@register("Gather")
def gather(bb: relax.BlockBuilder, inputs: Sequence, attrs: dict[str, Any], opset: int) -> relax.Expr:
    """Slices of a tensor at indices along an axis."""
    data, indices = inputs[0], inputs[1]
    axis = attrs.get("axis", 0)
    extent = shape_of(data)[axis]
    if isinstance(indices, tvm.ir.GenericConst):
        known = indices.value.numpy().astype("int64")
        if known.size and not (-extent <= known.min() and known.max() < extent):
            raise ValueError(f"an index is outside of [{-extent}, {extent - 1}]")
        return relax.op.take(data, relax.const(np.where(known < 0, known + extent, known)), axis)
    return relax.op.take(data, _wrap(indices, extent), axis, mode="clip")


def _wrap(indices: relax.Expr, extent: int) -> relax.Expr:
    """Count negative indices from the end."""
    dtype = dtype_of(indices)
    negative = relax.op.less(indices, relax.const(0, dtype))
    return relax.op.where(negative, relax.op.add(indices, relax.const(extent, dtype)), indices)


@register("OneHot")
def one_hot(bb: relax.BlockBuilder, inputs: Sequence, attrs: dict[str, Any], opset: int) -> relax.Expr:
    """Off values with an on value at each index; indices out of range give none."""
    indices, values = inputs[0], inputs[2]
    depth = int(np.asarray(constant_value(inputs[1], "depth")).reshape(-1)[0])
    rank = len(shape_of(indices)) + 1
    axis = attrs.get("axis", -1) % rank
    along = [1] * rank
    along[axis] = depth
    wrapped = _wrap(relax.op.astype(indices, "int64"), depth)
    positions = relax.const(np.arange(depth, dtype="int64").reshape(along))
    hit = relax.op.equal(relax.op.expand_dims(wrapped, axis), positions)
    off, on = (relax.op.take(values, relax.const(i, "int64"), 0) for i in (0, 1))
    return relax.op.where(hit, on, off)
