"""Elementwise operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np
import tvm
from tvm import relax

from tvm_sparse.frontend.onnx_ops.common import dtype_of, is_float, scalar_constant
from tvm_sparse.frontend.onnx_ops.delegate import delegate
from tvm_sparse.frontend.onnx_ops.registry import register


@register("Clip")
def clip(bb: relax.BlockBuilder, inputs: Sequence, attrs: dict[str, Any], opset: int) -> relax.Expr:
    """Clip; constant bounds become ``relax.clip``, which later stages know as an activation."""
    x, low, high = inputs[0], inputs[1], inputs[2]
    dtype = dtype_of(x)
    if opset < 11:
        bounds = (attrs.get("min"), attrs.get("max"))
    else:
        bounds = (scalar_constant(low), scalar_constant(high))
    known = opset < 11 or all(
        value is None or constant is not None for value, constant in zip((low, high), bounds, strict=True)
    )
    if known and is_float(dtype):
        # A NaN bound is no bound.
        lower, upper = (None if b is None or np.isnan(b) else float(b) for b in bounds)
        if lower is None and upper is None:
            return x
        if upper is None:
            return relax.op.maximum(x, relax.const(lower, dtype))
        if lower is None:
            return relax.op.minimum(x, relax.const(upper, dtype))
        # The upper bound wins where they cross.
        return relax.op.clip(x, min(lower, upper), upper)
    x = x if low is None else bb.normalize(relax.op.maximum(x, low))
    return x if high is None else relax.op.minimum(x, high)


@register("Max")
def maximum(bb: relax.BlockBuilder, inputs: Sequence, attrs: dict[str, Any], opset: int) -> relax.Expr:
    """Largest of any number of tensors."""
    return _fold(bb, relax.op.maximum, inputs)


@register("Min")
def minimum(bb: relax.BlockBuilder, inputs: Sequence, attrs: dict[str, Any], opset: int) -> relax.Expr:
    """Smallest of any number of tensors."""
    return _fold(bb, relax.op.minimum, inputs)


def _fold(bb: relax.BlockBuilder, op: Callable, inputs: Sequence) -> relax.Expr:
    return reduce(lambda a, b: bb.normalize(op(a, b)), list(inputs))


@register("Pow")
def power(bb: relax.BlockBuilder, inputs: Sequence, attrs: dict[str, Any], opset: int) -> relax.Expr:
    """Power with a base and an exponent of any types; small constant powers become products."""
    x, y = inputs[0], inputs[1]
    dtype = dtype_of(x)
    exponent = scalar_constant(y)
    if exponent is not None and float(exponent) in (1.0, 2.0, 3.0):
        return reduce(lambda a, b: bb.normalize(relax.op.multiply(a, b)), [x] * int(exponent))
    if exponent is not None and float(exponent) == 0.5 and is_float(dtype):
        return relax.op.sqrt(x)
    compute = dtype if is_float(dtype) and dtype_of(y) == dtype else "float64"
    if dtype == "float32" and dtype_of(y) != "float64":
        compute = "float32"
    result = relax.op.power(relax.op.astype(x, compute), relax.op.astype(y, compute))
    if not is_float(dtype):
        # Powers of whole numbers come out of exp and log a little beside them.
        result = relax.op.round(result) if not is_float(dtype_of(y)) else result
    return relax.op.astype(result, dtype)


@register("IsInf")
def isinf(bb: relax.BlockBuilder, inputs: Sequence, attrs: dict[str, Any], opset: int) -> relax.Expr:
    """Infinities of the signs that the attributes ask for."""
    x = inputs[0]
    dtype = dtype_of(x)
    signs = [np.inf] * attrs.get("detect_positive", 1) + [-np.inf] * attrs.get("detect_negative", 1)
    if not signs:
        return relax.op.astype(relax.op.zeros_like(x), "bool")
    found = [relax.op.equal(x, relax.const(sign, dtype)) for sign in signs]
    return reduce(relax.op.logical_or, found)


@register("Elu")
def elu(bb: relax.BlockBuilder, inputs: Sequence, attrs: dict[str, Any], opset: int) -> relax.Expr:
    """``x`` where positive, else ``alpha * (exp(x) - 1)``, in the type of ``x``."""
    x = inputs[0]
    dtype = dtype_of(x)
    low = relax.op.minimum(x, relax.const(0, dtype))
    curve = relax.op.multiply(
        relax.const(attrs.get("alpha", 1.0), dtype),
        relax.op.subtract(relax.op.exp(low), relax.const(1, dtype)),
    )
    return relax.op.where(relax.op.greater(x, relax.const(0, dtype)), x, curve)


@register("Mod")
def modulo(bb: relax.BlockBuilder, inputs: Sequence, attrs: dict[str, Any], opset: int) -> relax.Expr:
    """Remainder: of the sign of the divisor, or with ``fmod`` of the dividend."""
    x, y = inputs[0], inputs[1]
    if attrs.get("fmod", 0) or is_float(dtype_of(x)):
        return delegate("Mod", bb, inputs, attrs, opset)
    return relax.op.floor_mod(x, y)


@register("BitCast")
def bitcast(bb: relax.BlockBuilder, inputs: Sequence, attrs: dict[str, Any], opset: int) -> relax.Expr:
    """The same bits as another type of the same width."""
    import onnx

    dtype = str(onnx.helper.tensor_dtype_to_np_dtype(attrs["to"]))

    def compute(x: tvm.te.Tensor) -> tvm.te.Tensor:
        return tvm.te.compute(x.shape, lambda *i: tvm.tirx.reinterpret(dtype, x(*i)), name="bitcast")

    if "bool" in (dtype, dtype_of(inputs[0])):
        return relax.op.astype(inputs[0], dtype)
    return bb.emit_te(compute, inputs[0])


@register("BitShift")
def bitshift(bb: relax.BlockBuilder, inputs: Sequence, attrs: dict[str, Any], opset: int) -> relax.Expr:
    """Shift; by a count below 0, or of the width or more, every bit is lost: 0, or -1 where the sign bit follows.

    The code generator leaves such counts undefined, so that they must not reach it.
    """
    x, count = inputs[0], inputs[1]
    dtype = dtype_of(x)
    limits = np.iinfo(dtype)
    right = attrs.get("direction", b"").decode() == "RIGHT"
    shift = relax.op.right_shift if right else relax.op.left_shift
    if isinstance(count, tvm.ir.GenericConst) and all(0 <= c < limits.bits for c in count.value.numpy().flat):
        return shift(x, count)
    valid = relax.op.less(count, relax.const(limits.bits, dtype))
    if limits.min < 0:
        valid = relax.op.logical_and(valid, relax.op.greater_equal(count, relax.const(0, dtype)))
    valid = bb.normalize(valid)
    if right and limits.min < 0:
        # The largest defined count leaves copies of the sign bit alone.
        return shift(x, relax.op.where(valid, count, relax.const(limits.bits - 1, dtype)))
    zero = relax.const(0, dtype)
    return relax.op.where(valid, shift(x, relax.op.where(valid, count, zero)), zero)
