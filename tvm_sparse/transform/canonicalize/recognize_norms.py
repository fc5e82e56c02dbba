"""RecognizeNorms: layer norm, RMS norm and softmax from means, sums and square roots."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tvm
from tvm import relax

from ..graph import constant
from ..rewrite import Rewriter, dtype_of, integers, operator_name, rewrite_module, scalar, shape_of, tensor

_LAYER_NORM, _RMS_NORM = "relax.nn.layer_norm", "relax.nn.rms_norm"


@tvm.transform.module_pass(opt_level=0, name="RecognizeNorms")
class RecognizeNorms:
    """Recognise normalisations over the last axes written out in reductions.

    A scale and a shift of the normalised axes that follow become ``gamma`` and ``beta``.
    """

    def transform_module(self, module: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Rewrite every Relax function."""
        return rewrite_module(module, _layer_norm, _rms_norm, _affine, _softmax)


def _layer_norm(rewriter: Rewriter, _variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
    """``(x - mean(x)) / sqrt(mean((x - mean(x)) ** 2) + epsilon)``."""
    found = _quotient(rewriter, value)
    if found is None:
        return None
    centred, squares, epsilon = found
    difference = rewriter.call(centred, "relax.subtract")
    if difference is None:
        return None
    x, mean = difference.args[0], rewriter.call(difference.args[1], "relax.mean")
    if mean is None or not _same(rewriter, mean.args[0], x) or not mean.attrs.keepdims:
        return None
    axes = _axes(mean, x)
    if operator_name(squares) == "relax.variance":
        # Relax's variance divides by the number of elements, as the mean of squares does.
        matches = _same(rewriter, squares.args[0], x)
    else:
        square = _square(rewriter, squares.args[0])
        matches = square is not None and (_same(rewriter, square, centred))
    if not matches or not squares.attrs.keepdims or axes is None or _axes(squares, x) != axes:
        return None
    shape = shape_of(x)
    assert shape is not None
    extents = [shape[axis] for axis in axes]
    dtype = dtype_of(x)
    gamma, beta = tensor(np.ones(extents, dtype)), tensor(np.zeros(extents, dtype))
    return relax.op.nn.layer_norm(x, gamma, beta, axes=[axis - len(shape) for axis in axes], epsilon=epsilon)


def _rms_norm(rewriter: Rewriter, _variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
    """``x / sqrt(mean(x ** 2) + epsilon)``."""
    found = _quotient(rewriter, value)
    if found is None:
        return None
    x, squares, epsilon = found
    if operator_name(squares) != "relax.mean" or not squares.attrs.keepdims:
        return None
    square, axes = _square(rewriter, squares.args[0]), _axes(squares, x)
    if square is None or not _same(rewriter, square, x) or axes is None:
        return None
    shape = shape_of(x)
    assert shape is not None
    if len(axes) == len(shape):
        # TVM's legalisation of rms_norm needs an axis that is not reduced.
        return None
    weight = tensor(np.ones([shape[axis] for axis in axes], dtype_of(x)))
    return relax.op.nn.rms_norm(x, weight, axes=[axis - len(shape) for axis in axes], epsilon=epsilon)


def _quotient(rewriter: Rewriter, value: relax.Expr) -> tuple[relax.Expr, relax.Call, float] | None:
    """``numerator``, ``moment`` and ``epsilon`` of ``numerator / sqrt(moment + epsilon)``."""
    name = operator_name(value)
    if name == "relax.divide":
        pairs = [(value.args[0], rewriter.call(value.args[1], "relax.sqrt"))]
    elif name == "relax.multiply":
        a, b = value.args
        pairs = [(a, rewriter.call(b, "relax.rsqrt")), (b, rewriter.call(a, "relax.rsqrt"))]
    else:
        return None
    for numerator, root in pairs:
        total = rewriter.call(root.args[0], "relax.add") if root is not None else None
        epsilon = scalar(total.args[1]) if total is not None else None
        moment = rewriter.call(total.args[0], "relax.mean", "relax.variance") if epsilon is not None else None
        if moment is not None and shape_of(numerator) == shape_of(value) and shape_of(value) is not None:
            return numerator, moment, epsilon  # type: ignore[return-value]
    return None


def _square(rewriter: Rewriter, expression: relax.Expr) -> relax.Expr | None:
    """``y`` of ``y * y``, ``y ** 2`` or ``square(y)``."""
    value = rewriter.call(expression, "relax.multiply", "relax.power", "relax.square")
    name = operator_name(value)
    if name == "relax.square":
        return value.args[0]
    if name == "relax.power":
        return value.args[0] if scalar(value.args[1]) == 2 else None
    return value.args[0] if value is not None and _same(rewriter, *value.args) else None


def _axes(reduction: relax.Call, x: relax.Expr) -> list[int] | None:
    """Axes of a reduction if they are the last ones of ``x``, in order."""
    shape = shape_of(x)
    if shape is None or reduction.attrs.axis is None:
        return None
    axes = sorted(axis % len(shape) for axis in integers(reduction.attrs.axis) or [])
    return axes if axes and axes == list(range(len(shape) - len(axes), len(shape))) else None


def _same(rewriter: Rewriter, a: relax.Expr, b: relax.Expr) -> bool:
    return bool(rewriter.resolve(a).same_as(rewriter.resolve(b)))


def _affine(rewriter: Rewriter, _variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
    """A constant factor or term of a norm that nobody else reads goes into its parameters."""
    name = operator_name(value)
    if name not in ("relax.multiply", "relax.add"):
        return None
    norm, array = rewriter.call(value.args[0], _LAYER_NORM, _RMS_NORM), constant(value.args[1])
    if norm is None or array is None or not rewriter.only_use(value.args[0]):
        return None
    shape, parameters = shape_of(norm), [constant(argument) for argument in norm.args[1:]]
    if shape is None or shape != shape_of(value) or any(p is None for p in parameters):
        return None
    axes = [axis % len(shape) for axis in integers(norm.attrs.axes) or []]
    extents = tuple(shape[axis] for axis in axes)
    leading = array.ndim - len(extents)
    if (
        axes != list(range(len(shape) - len(axes), len(shape)))
        or math.prod(array.shape[: max(leading, 0)]) != 1
    ):
        return None
    factor = np.broadcast_to(array.reshape(array.shape[max(leading, 0) :]), extents)
    attrs = norm.attrs
    if operator_name(norm) == _RMS_NORM:
        if name == "relax.add":
            return None
        weight = tensor((parameters[0] * factor).astype(array.dtype))
        return relax.op.nn.rms_norm(norm.args[0], weight, axes=integers(attrs.axes), epsilon=attrs.epsilon)
    gamma, beta = parameters
    if not (attrs.center and attrs.scale):
        return None
    if name == "relax.multiply":
        gamma, beta = gamma * factor, beta * factor
    else:
        beta = beta + factor
    arguments = [tensor(np.asarray(p, array.dtype)) for p in (gamma, beta)]
    return relax.op.nn.layer_norm(norm.args[0], *arguments, axes=integers(attrs.axes), epsilon=attrs.epsilon)


def _softmax(rewriter: Rewriter, _variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
    """``exp(x - max(x)) / sum(exp(x - max(x)))`` over one axis."""
    if operator_name(value) != "relax.divide":
        return None
    power, total = rewriter.call(value.args[0], "relax.exp"), rewriter.call(value.args[1], "relax.sum")
    if power is None or total is None:
        return None
    summed = rewriter.call(total.args[0], "relax.exp")
    first, second = power.args[0], summed.args[0] if summed is not None else None
    if second is None or not _same_difference(rewriter, first, second) or not total.attrs.keepdims:
        return None
    difference = rewriter.call(first, "relax.subtract")
    largest = rewriter.call(difference.args[1], "relax.max") if difference is not None else None
    if (
        largest is None
        or not largest.attrs.keepdims
        or not _same(rewriter, largest.args[0], difference.args[0])
    ):
        return None
    rank = len(shape_of(value) or ())
    axes = [[axis % rank for axis in integers(r.attrs.axis or [])] for r in (largest, total) if rank]
    if len(axes) != 2 or axes[0] != axes[1] or len(axes[0]) != 1:
        return None
    return relax.op.nn.softmax(difference.args[0], axis=axes[0][0])


def _same_difference(rewriter: Rewriter, a: relax.Expr, b: relax.Expr) -> bool:
    """Whether two expressions are the same variable, or differences ``x - max(x)`` of the same ``x``."""
    if _same(rewriter, a, b):
        return True
    calls = [rewriter.call(e, "relax.subtract") for e in (a, b)]
    if None in calls:
        return False
    largest = [rewriter.call(call.args[1], "relax.max") for call in calls]
    return (
        None not in largest
        and _same(rewriter, calls[0].args[0], calls[1].args[0])
        and _same(rewriter, largest[0].args[0], largest[1].args[0])
        and integers(largest[0].attrs.axis or []) == integers(largest[1].attrs.axis or [])
    )
