"""Operators with indices: they may be negative, and must not read outside of a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tvm
from tvm import relax

from tvm_sparse.frontend.onnx_ops.common import constant_value, dtype_of, shape_of, tensor_constant
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
        return _take_known(bb, data, np.where(known < 0, known + extent, known), axis)
    return relax.op.take(data, _wrap(indices, extent), axis, mode="clip")


def _take_known(bb: relax.BlockBuilder, data: relax.Expr, indices: np.ndarray, axis: int) -> relax.Expr:
    """Known indices: a slice where they are one or evenly spaced, which has no table to look up."""
    flat = indices.reshape(-1)
    steps = np.unique(np.diff(flat))
    if indices.ndim > 1 or flat.size == 0 or len(steps) > 1 or (len(steps) == 1 and steps[0] < 1):
        return relax.op.take(data, tensor_constant(indices), axis, mode="clip")
    stride = int(steps[0]) if len(steps) else 1
    part = relax.op.strided_slice(data, [axis], [int(flat[0])], [int(flat[-1]) + 1], [stride])
    return relax.op.squeeze(bb.normalize(part), [axis]) if indices.ndim == 0 else part


def _wrap(indices: relax.Expr, extent: int) -> relax.Expr:
    """Count negative indices from the end."""
    dtype = dtype_of(indices)
    negative = relax.op.less(indices, relax.const(0, dtype))
    return relax.op.where(negative, relax.op.add(indices, relax.const(extent, dtype)), indices)


@register("GatherND")
def gather_nd(bb: relax.BlockBuilder, inputs: Sequence, attrs: dict[str, Any], opset: int) -> relax.Expr:
    """Slices of a tensor at index vectors, which lie along the last axis of the indices."""
    data, indices = inputs[0], inputs[1]
    batch = attrs.get("batch_dims", 0)
    depth = shape_of(indices)[-1]
    extents = np.array(shape_of(data)[batch : batch + depth], dtype="int64")
    if isinstance(indices, tvm.ir.GenericConst):
        known = indices.value.numpy().astype("int64")
        if known.size and not ((-extents <= known) & (known < extents)).all():
            raise ValueError(f"an index is outside of a tensor of shape {shape_of(data)}")
        return relax.op.gather_nd(data, tensor_constant(np.where(known < 0, known + extents, known)), batch)
    indices = bb.normalize(relax.op.astype(indices, "int64"))
    zero, limit = relax.const(0, "int64"), tensor_constant(extents)
    wrapped = relax.op.where(relax.op.less(indices, zero), relax.op.add(indices, limit), indices)
    # Clipped, so that an index out of range cannot read outside of the tensor.
    last = tensor_constant(extents - 1)
    return relax.op.gather_nd(data, relax.op.minimum(relax.op.maximum(wrapped, zero), last), batch)


@register("OneHot")
def one_hot(bb: relax.BlockBuilder, inputs: Sequence, attrs: dict[str, Any], opset: int) -> relax.Expr:
    """Off values with an on value at each index; indices out of range give none."""
    indices, values = inputs[0], inputs[2]
    depth = int(np.asarray(constant_value(inputs[1], "depth")).reshape(-1)[0])
    rank = len(shape_of(indices)) + 1
    axis = attrs.get("axis", -1) % rank
    along = [1] * rank
    along[axis] = depth
    wrapped = _wrap(bb.normalize(relax.op.astype(indices, "int64")), depth)
    positions = tensor_constant(np.arange(depth, dtype="int64").reshape(along))
    hit = relax.op.equal(relax.op.expand_dims(wrapped, axis), positions)
    off, on = (relax.op.take(values, relax.const(i, "int64"), 0, mode="clip") for i in (0, 1))
    return relax.op.where(hit, on, off)
