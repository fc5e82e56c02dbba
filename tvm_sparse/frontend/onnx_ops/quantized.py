"""Integer operators with zero points: products of int32 exactly as ONNX defines them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import relax

from tvm_sparse.frontend.onnx_ops.common import dtype_of, shape_of
from tvm_sparse.frontend.onnx_ops.delegate import delegate
from tvm_sparse.frontend.onnx_ops.registry import register

_RANGE = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767), "uint16": (0, 65535)}


def _centred(
    bb: relax.BlockBuilder, x: relax.Expr, zero_point: relax.Expr | None, axis: int | None = None
) -> relax.Expr:
    """``x - zero_point`` in int32; a vector of zero points lies along ``axis``."""
    x = relax.op.astype(x, "int32")
    if zero_point is None:
        return bb.normalize(x)
    zero_point = bb.normalize(relax.op.astype(zero_point, "int32"))
    return bb.normalize(relax.op.subtract(x, _along(bb, zero_point, bb.normalize(x), axis)))


def _along(bb: relax.BlockBuilder, value: relax.Expr, x: relax.Expr, axis: int | None) -> relax.Expr:
    """Shape a scalar or a vector so that it broadcasts to ``x`` along ``axis``."""
    shape = shape_of(value)
    if int(np.prod(shape)) == 1:
        return bb.normalize(relax.op.reshape(value, []))
    if len(shape) == 1 and axis is not None:
        sizes = [1] * len(shape_of(x))
        sizes[axis] = shape[0]
        return bb.normalize(relax.op.reshape(value, sizes))
    return value


def _requantize(
    bb: relax.BlockBuilder, total: relax.Expr, scale: relax.Expr, zero_point: relax.Expr
) -> relax.Expr:
    """``saturate(round(total * scale) + zero_point)`` in the type of the zero point."""
    dtype = dtype_of(zero_point)
    scaled = relax.op.round(relax.op.multiply(relax.op.astype(total, "float32"), scale))
    shifted = relax.op.add(scaled, relax.op.astype(zero_point, "float32"))
    return relax.op.astype(relax.op.clip(shifted, *_RANGE[dtype]), dtype)


def _scale(bb: relax.BlockBuilder, *scales: relax.Expr) -> list[relax.Expr]:
    return [bb.normalize(relax.op.astype(scale, "float32")) for scale in scales]


@register("QLinearMatMul")
def qlinear_matmul(bb: relax.BlockBuilder, inputs: Sequence, attrs: dict[str, Any], opset: int) -> relax.Expr:
    """Matrix product of quantised matrices, quantised again."""
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = list(inputs)
    rank_a, rank_b = len(shape_of(a)), len(shape_of(b))
    a, b = _centred(bb, a, a_zero, rank_a - 2), _centred(bb, b, b_zero, rank_b - 1)
    product = bb.normalize(relax.op.matmul(a, b, "int32"))
    a_scale, b_scale, y_scale = _scale(bb, a_scale, b_scale, y_scale)
    rank = len(shape_of(product))
    scale = relax.op.divide(
        relax.op.multiply(_along(bb, a_scale, product, rank - 2), _along(bb, b_scale, product, rank - 1)),
        _along(bb, y_scale, product, rank - 2),
    )
    return _requantize(bb, product, bb.normalize(scale), _along(bb, y_zero, product, rank - 2))


@register("ConvInteger")
def conv_integer(bb: relax.BlockBuilder, inputs: Sequence, attrs: dict[str, Any], opset: int) -> relax.Expr:
    """Convolution of integers to int32."""
    return _convolve(bb, inputs[0], inputs[2], inputs[1], inputs[3], attrs, opset)


@register("QLinearConv")
def qlinear_conv(bb: relax.BlockBuilder, inputs: Sequence, attrs: dict[str, Any], opset: int) -> relax.Expr:
    """Convolution of quantised tensors, quantised again."""
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = list(inputs)[:8]
    total = _convolve(bb, x, x_zero, w, w_zero, attrs, opset)
    if inputs[8] is not None:
        total = bb.normalize(relax.op.add(total, _along(bb, inputs[8], total, 1)))
    x_scale, w_scale, y_scale = _scale(bb, x_scale, w_scale, y_scale)
    scale = relax.op.divide(
        relax.op.multiply(_along(bb, x_scale, total, None), _along(bb, w_scale, total, 1)),
        _along(bb, y_scale, total, None),
    )
    return _requantize(bb, total, bb.normalize(scale), _along(bb, y_zero, total, None))


def _convolve(
    bb: relax.BlockBuilder,
    x: relax.Expr,
    x_zero: relax.Expr | None,
    w: relax.Expr,
    w_zero: relax.Expr | None,
    attrs: dict[str, Any],
    opset: int,
) -> relax.Expr:
    # Padding adds zeros to centred values, as it must: a padded position holds the zero point.
    centred = [_centred(bb, x, x_zero), _centred(bb, w, w_zero, 0)]
    return bb.normalize(delegate("Conv", bb, centred, attrs, opset))
