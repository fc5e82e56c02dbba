"""Simplify: operators that do nothing vanish, and others take the form that later passes look for."""

from __future__ import annotations

import math
from typing import Any

import tvm
from tvm import relax
from tvm.ir import GenericConst

from ..rewrite import Rewriter, dtype_of, integers, operator_name, rewrite_module, scalar, shape_of


@tvm.transform.module_pass(opt_level=0, name="Simplify")
class Simplify:
    """Remove what has no effect and normalise small forms.

    - gone: casts to the same type, dropout, broadcasts to the same shape, zero-wide pads, full slices,
      concatenations of one, ``x + 0``, ``x * 1``, ``x / 1``;
    - ``expand_dims``, ``squeeze``, ``flatten`` become ``reshape``; ``split`` and ``take`` of one index become
      slices;
    - ``max(x, 0)`` and clips without an upper limit become ``relu``; ``min(max(x, a), b)``, ``relu6`` and
      nested clips one ``clip``; ``x ** 2`` becomes ``x * x``, ``x ** 0.5`` ``sqrt``, ``1 / sqrt(x)``
      ``rsqrt``; constants stand on the right of sums and products.
    """

    def transform_module(self, module: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Rewrite every Relax function."""
        return rewrite_module(module, _without_effect, _as_view, _as_slice, _arithmetic, _clip)


def _same(x: relax.Expr, value: relax.Expr) -> relax.Expr | None:
    """``x`` if it has the type of the whole expression."""
    return (
        x
        if shape_of(x) is not None and shape_of(x) == shape_of(value) and dtype_of(x) == dtype_of(value)
        else None
    )


def _without_effect(rewriter: Rewriter, _variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
    if isinstance(value, relax.TupleGetItem):
        dropout = rewriter.call(value.tuple_value, "relax.nn.dropout")
        return dropout.args[0] if dropout is not None and value.index == 0 else None
    name = operator_name(value)
    if name in ("relax.astype", "relax.broadcast_to", "relax.reshape", "relax.strided_slice"):
        if (
            name == "relax.strided_slice"
            and len(value.args) > 4
            and set(integers(value.args[4]) or [0]) != {1}
        ):
            return None
        return _same(value.args[0], value)
    if name == "relax.nn.pad" and not any(integers(value.attrs.pad_width) or [1]):
        return _same(value.args[0], value)
    if name == "relax.concat" and isinstance(value.args[0], relax.Tuple) and len(value.args[0].fields) == 1:
        return _same(value.args[0].fields[0], value)
    if name == "relax.permute_dims" and value.attrs.axes is not None:
        axes = integers(value.attrs.axes) or []
        return _same(value.args[0], value) if axes == sorted(axes) else None
    neutral = {"relax.add": 0, "relax.subtract": 0, "relax.multiply": 1, "relax.divide": 1, "relax.power": 1}
    if name in neutral and scalar(value.args[1]) == neutral[name]:
        return _same(value.args[0], value)
    return None


def _as_view(_rewriter: Rewriter, _variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
    names = ("relax.expand_dims", "relax.squeeze", "relax.flatten", "relax.nn.batch_flatten")
    shape = shape_of(value) if operator_name(value) in names else None
    return relax.op.reshape(value.args[0], shape) if shape is not None else None


def _as_slice(rewriter: Rewriter, _variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
    if isinstance(value, relax.TupleGetItem):
        split = rewriter.call(value.tuple_value, "relax.split")
        shapes = [shape_of(split.args[0])] if split is not None else [None]
        if split is None or shapes[0] is None:
            return None
        axis = int(split.attrs.axis) % len(shapes[0])
        extents = [field.shape.values[axis].value for field in split.ty.fields]
        begin = sum(extents[: value.index])
        return relax.op.strided_slice(split.args[0], [axis], [begin], [begin + extents[value.index]])
    if (
        operator_name(value) == "relax.take"
        and value.attrs.axis is not None
        and dtype_of(value.args[1]) != ""
    ):
        shape, result, index = shape_of(value.args[0]), shape_of(value), scalar(value.args[1])
        if shape is None or result is None or index is None:
            return None
        axis = int(value.attrs.axis) % len(shape)
        lowest = 0 if str(value.attrs.mode) == "clip" else -shape[axis]
        if not lowest <= index < shape[axis]:
            return None
        begin = int(index) % shape[axis]
        return relax.op.reshape(relax.op.strided_slice(value.args[0], [axis], [begin], [begin + 1]), result)
    return None


def _arithmetic(rewriter: Rewriter, _variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
    name = operator_name(value)
    if name in ("relax.add", "relax.multiply"):
        a, b = value.args
        if isinstance(a, GenericConst) and not isinstance(b, GenericConst):
            return relax.Call(value.op, [b, a], value.attrs)
    if name == "relax.power":
        exponent, x = scalar(value.args[1]), value.args[0]
        if exponent == 2 and _same(x, value) is not None:
            return relax.op.multiply(x, x)
        if exponent == 0.5 and _same(x, value) is not None:
            return relax.op.sqrt(x)
    if name == "relax.divide" and scalar(value.args[0]) == 1 and shape_of(value) == shape_of(value.args[1]):
        root = rewriter.call(value.args[1], "relax.sqrt")
        return relax.op.rsqrt(root.args[0]) if root is not None else None
    return None


def _clip(rewriter: Rewriter, _variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
    """``clip`` from minima, maxima and clips of clips; ``relu`` where only the lower limit, 0, is left."""
    limits = _limits(value)
    if limits is None or not dtype_of(value).startswith("float"):
        return None
    x, low, high = limits
    inner = _limits(rewriter.producer(x))
    if inner is not None and inner[1] <= high and low <= inner[2]:
        x, low, high = inner[0], max(low, inner[1]), min(high, inner[2])
    elif operator_name(value) == "relax.nn.relu" or (
        operator_name(value) == "relax.clip" and not (low == 0 and high == math.inf)
    ):
        return None
    if _same(x, value) is None:
        return None
    if (low, high) == (0, math.inf):
        return relax.op.nn.relu(x)
    return relax.op.clip(x, float(low), float(high)) if math.isfinite(low) and math.isfinite(high) else None


def _limits(value: relax.Expr | None) -> tuple[relax.Expr, float, float] | None:
    """``x``, ``low`` and ``high`` of an expression that computes ``min(max(x, low), high)``."""
    name = operator_name(value)
    if name == "relax.nn.relu":
        return value.args[0], 0.0, math.inf
    if name == "relax.nn.relu6":
        return value.args[0], 0.0, 6.0
    if name == "relax.clip":
        low, high = scalar(value.args[1]), scalar(value.args[2])
        # The largest number stands for no limit.
        return (
            None if low is None or high is None else (value.args[0], low, math.inf if high > 3.4e38 else high)
        )
    if name in ("relax.maximum", "relax.minimum"):
        for x, other in (value.args, reversed(value.args)):
            limit = scalar(other)
            if limit is not None and not math.isnan(limit):
                return (x, limit, math.inf) if name == "relax.maximum" else (x, -math.inf, limit)
    return None
