"""Normalisation operators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import relax

from tvm_sparse.frontend.onnx_ops.common import dtype_of, is_float, shape_of, tensor_constant
from tvm_sparse.frontend.onnx_ops.registry import register


@register("LayerNormalization")
def layer_normalization(
    bb: relax.BlockBuilder, inputs: Sequence, attrs: dict[str, Any], opset: int
) -> relax.Expr:
    """Layer normalisation over the axes from ``axis`` on, with mean and inverse deviation where asked for."""
    x, scale, bias = inputs[0], inputs[1], inputs[2]
    shape, dtype = shape_of(x), dtype_of(x)
    axes = list(range(attrs.get("axis", -1) % len(shape), len(shape)))
    epsilon = attrs.get("epsilon", 1e-5)
    inner = [shape[axis] for axis in axes]
    # Scale and bias may have any shape that broadcasts to the normalised axes.
    scale = _broadcast(bb, scale, inner)
    bias = tensor_constant(np.zeros(inner, dtype)) if bias is None else _broadcast(bb, bias, inner)
    y = relax.op.nn.layer_norm(x, scale, bias, axes, epsilon)
    if attrs["tvm_custom"]["num_outputs"] == 1:
        return y
    x = bb.normalize(relax.op.astype(x, "float32"))
    mean = bb.normalize(relax.op.mean(x, axes, keepdims=True))
    variance = relax.op.variance(x, axes, keepdims=True)
    inverse = relax.op.rsqrt(relax.op.add(variance, relax.const(epsilon, "float32")))
    return relax.Tuple([bb.normalize(y), mean, bb.normalize(inverse)])


def _broadcast(bb: relax.BlockBuilder, value: relax.Expr, shape: Sequence[int]) -> relax.Expr:
    known = shape_of(value)
    if known == list(shape):
        return value
    # Leading sizes of one are those of axes before the normalised ones.
    if len(known) > len(shape):
        value = bb.normalize(relax.op.reshape(value, known[len(known) - len(shape) :]))
    return bb.normalize(relax.op.broadcast_to(value, list(shape)))


@register("LpNormalization")
def lp_normalization(
    bb: relax.BlockBuilder, inputs: Sequence, attrs: dict[str, Any], opset: int
) -> relax.Expr:
    """Division by the L1 or L2 norm along an axis; zero where the norm is zero."""
    x = inputs[0]
    dtype, axis = dtype_of(x), attrs.get("axis", -1)
    size = relax.op.abs(x) if attrs.get("p", 2) == 1 else relax.op.multiply(x, x)
    norm = bb.normalize(relax.op.sum(size, axis, keepdims=True))
    if attrs.get("p", 2) == 2:
        norm = bb.normalize(relax.op.sqrt(norm))
    zero = relax.op.equal(norm, relax.const(0, dtype))
    return relax.op.where(
        zero, relax.const(0, dtype), relax.op.divide(x, relax.op.where(zero, relax.const(1, dtype), norm))
    )


@register("BatchNormalization")
def batch_normalization(
    bb: relax.BlockBuilder, inputs: Sequence, attrs: dict[str, Any], opset: int
) -> relax.Expr:
    """Batch normalisation for inference."""
    if attrs.get("training_mode", 0):
        raise ValueError("training mode is not supported: export the model for inference")
    x = inputs[0]
    if not is_float(dtype_of(x)):
        raise ValueError(f"its input is {dtype_of(x)}")
    result = relax.op.nn.batch_norm(
        x, *list(inputs)[1:5], axis=1, epsilon=attrs.get("epsilon", 1e-5), training=False
    )
    return relax.TupleGetItem(bb.normalize(result), 0)


@register("RMSNormalization")
def rms_normalization(
    bb: relax.BlockBuilder, inputs: Sequence, attrs: dict[str, Any], opset: int
) -> relax.Expr:
    """Division by the root mean square over the axes from ``axis`` on, then a scale."""
    x, scale = inputs[0], inputs[1]
    shape, dtype = shape_of(x), dtype_of(x)
    axes = list(range(attrs.get("axis", -1) % len(shape), len(shape)))
    epsilon = attrs.get("epsilon", 1e-5)
    if len(axes) < len(shape) and shape_of(scale) == [shape[axis] for axis in axes]:
        return relax.op.nn.rms_norm(x, scale, axes, epsilon)
    # relax.nn.rms_norm wants at least one axis that is not normalised.
    square = bb.normalize(relax.op.mean(relax.op.multiply(x, x), axes, keepdims=True))
    inverse = relax.op.rsqrt(relax.op.add(square, relax.const(epsilon, dtype)))
    return relax.op.multiply(relax.op.multiply(x, inverse), scale)
