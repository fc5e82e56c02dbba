"""NarrowToSlices: where only a slice of a value is read, only that slice is computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import tvm
from tvm import relax

from ..graph import Graph, constant, free_variables
from ..rewrite import Rewriter, integers, operator_name, rewrite_module, shape_of, tensor

# Operators that are worth it; elementwise ones alone are cheap, and fuse with what makes their operands.
_COSTLY = ("relax.matmul", "relax.nn.attention", "relax.nn.attention_bias", "relax.nn.conv2d")


@tvm.transform.module_pass(opt_level=0, name="NarrowToSlices")
class NarrowToSlices:
    """Move slices towards the inputs, past operators that treat the sliced axis point by point.

    Of an encoder's last layer a classifier reads the first token only: the output projection, the feed-forward layer,
    the norms and the attention's queries are then computed for that token (keys and values stay whole). A value is
    narrowed where all its readers take the same slice, at most half of it, and a matrix product, convolution or
    attention becomes smaller.
    """

    def transform_module(self, module: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Rewrite every Relax function."""
        return rewrite_module(module, _Narrowing())


@dataclass(frozen=True)
class Rows:
    """Part of a tensor along one axis.

    Parameters
    ----------
    axis : int
        The axis, not negative.
    indices : tuple of int
        What is read of it.
    """

    axis: int
    indices: tuple[int, ...]

    def at(self, axis: int) -> Rows:
        """The same indices of another axis."""
        return replace(self, axis=axis)

    def of(self, expression: relax.Expr) -> relax.Expr:
        """The part of a tensor expression."""
        array = constant(expression)
        if array is not None:
            return tensor(array.take(self.indices, self.axis))
        first, last = self.indices[0], self.indices[-1]
        step = self.indices[1] - first if len(self.indices) > 1 else 1
        if step > 0 and self.indices == tuple(range(first, last + 1, step)):
            return relax.op.strided_slice(expression, [self.axis], [first], [last + 1], [step])
        return relax.op.take(expression, tensor(np.array(self.indices, np.int64)), axis=self.axis)


# Which part of each argument the rows of the result need; None for an argument that is read as it is, and None instead
# of the list where the operator mixes the rows.
Parts = Sequence[Rows | None] | None
_Rule = Callable[[relax.Call, Rows], Parts]


class _Narrowing:
    """The rule of the rewriter: slices become the narrowed values."""

    def __init__(self) -> None:
        self._rewriter: Rewriter | None = None
        self._kept: dict[relax.Var, Rows] = {}
        self._made: dict[tuple[relax.Expr, Rows], relax.Expr] = {}

    def __call__(self, rewriter: Rewriter, _variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
        if rewriter is not self._rewriter:
            self._rewriter, self._kept, self._made = rewriter, _narrowed_values(rewriter.function), {}
        rows = _slice(value)
        if rows is None or self._kept.get(value.args[0]) != rows:
            return None
        return self._part(rewriter, value.args[0], rows)

    def _part(self, rewriter: Rewriter, expression: relax.Expr, rows: Rows) -> relax.Expr:
        """Rows of a value, narrowed or sliced, emitted once."""
        if not isinstance(expression, relax.Var):
            return rows.of(expression)
        key = (expression, rows)
        if key not in self._made:
            call = rewriter.producer(expression) if self._kept.get(expression) == rows else None
            if call is None:
                self._made[key] = rewriter.emit(rewriter.typed(rows.of(expression)))
            else:
                self._made[key] = rewriter.emit(rewriter.typed(self._call(rewriter, call, rows)))
        return self._made[key]

    def _call(self, rewriter: Rewriter, call: relax.Call, rows: Rows) -> relax.Call:
        parts = _parts(call, rows)
        assert parts is not None
        arguments = [
            a if part is None else self._part(rewriter, a, part) for a, part in zip(call.args, parts, strict=True)
        ]
        if operator_name(call) == "relax.reshape":
            shape = list(shape_of(call) or ())
            shape[rows.axis] = len(rows.indices)
            return relax.op.reshape(arguments[0], shape)
        return relax.Call(call.op, arguments, call.attrs)


_WHOLE = "whole"


def _narrowed_values(function: relax.Function) -> dict[relax.Var, Rows]:
    """Values of which only some rows need to be computed."""
    graph = Graph(function)
    wanted: dict[relax.Var, Rows | str] = {v: _WHOLE for v in free_variables(function.body.body)}

    def want(expression: relax.Expr, rows: Rows | None) -> None:
        if rows is not None and isinstance(expression, relax.Var):
            wanted[expression] = rows if wanted.get(expression, rows) == rows else _WHOLE
        else:
            wanted.update(dict.fromkeys(free_variables(expression), _WHOLE))

    for variable, value in reversed(graph.bindings):
        rows = wanted.get(variable)
        if rows is None:
            continue  # nobody reads it
        start = _slice(value)
        parts = [start] if start is not None else _parts(value, rows) if isinstance(rows, Rows) else None
        if start is not None or parts is None:
            wanted[variable] = _WHOLE
        if parts is None:
            wanted.update(dict.fromkeys(free_variables(value), _WHOLE))
        else:
            for argument, part in zip(value.args, parts, strict=False):
                want(argument, part)

    kept: dict[relax.Var, Rows] = {}
    for variable, value in graph.bindings:
        rows = wanted.get(variable)
        if isinstance(rows, Rows) and (
            operator_name(value) in _COSTLY or any(read in kept for read in _narrowed_operands(value, rows, kept))
        ):
            kept[variable] = rows
    return kept


def _narrowed_operands(value: relax.Call, rows: Rows, kept: dict[relax.Var, Rows]) -> list[relax.Var]:
    parts = _parts(value, rows) or []
    return [
        a
        for a, part in zip(value.args, parts, strict=True)
        if part is not None and isinstance(a, relax.Var) and kept.get(a) == part
    ]


def _slice(value: relax.Expr) -> Rows | None:
    """The rows that a slice, or a take with constant indices, reads of its first argument: at most half of them."""
    shape = shape_of(value.args[0]) if operator_name(value) in ("relax.strided_slice", "relax.take") else None
    if shape is None:
        return None
    if operator_name(value) == "relax.take":
        indices = constant(value.args[1])
        if value.attrs.axis is None or indices is None or indices.ndim != 1:
            return None
        axis = int(value.attrs.axis) % len(shape)
        if indices.size == 0 or indices.min() < 0 or indices.max() >= shape[axis]:
            return None
        rows = Rows(axis, tuple(int(i) for i in indices))
    else:
        axes, begin, end, *steps = (integers(argument) for argument in value.args[1:])
        if axes is None or begin is None or end is None or len(axes) != 1 or len(value.args) == 5 and steps[0] is None:
            return None
        axis, step = axes[0] % len(shape), steps[0][0] if steps else 1
        if step < 1:
            return None
        rows = Rows(axis, tuple(range(shape[axis]))[begin[0] : end[0] : step])
    return rows if 0 < 2 * len(rows.indices) <= shape[rows.axis] else None


def _parts(value: relax.Expr, rows: Rows) -> Parts:
    """What an operator must read for rows of its result."""
    rule = _RULES.get(operator_name(value))
    if rule is None or shape_of(value) is None or any(_is_unknown(argument) for argument in value.args):
        return None
    return rule(value, rows)


def _is_unknown(argument: relax.Expr) -> bool:
    return isinstance(argument.ty, relax.TensorType) and shape_of(argument) is None


def _first_only(call: relax.Call, rows: Rows | None) -> Parts:
    return None if rows is None else [rows, *[None] * (len(call.args) - 1)]


def _pointwise(call: relax.Call, rows: Rows) -> Parts:
    """Operands broadcast against the result."""
    rank = len(shape_of(call) or ())
    return [_broadcast(argument, rows, rank) for argument in call.args]


def _broadcast(argument: relax.Expr, rows: Rows, rank: int) -> Rows | None:
    shape = shape_of(argument) if isinstance(argument.ty, relax.TensorType) else None
    if shape is None:
        return None
    axis = rows.axis - (rank - len(shape))
    return rows.at(axis) if axis >= 0 and shape[axis] > 1 else None


def _over_other_axes(call: relax.Call, rows: Rows) -> Parts:
    """Normalisations: rows are independent of each other unless they lie on a normalised axis."""
    rank = len(shape_of(call) or ())
    axes = call.attrs.axes if hasattr(call.attrs, "axes") else [call.attrs.axis]
    return None if rows.axis in [int(axis) % rank for axis in axes] else _first_only(call, rows)


def _matmul(call: relax.Call, rows: Rows) -> Parts:
    left, right = (shape_of(argument) or () for argument in call.args)
    rank = len(shape_of(call) or ())
    if len(left) < 2 or len(right) < 2 or rows.axis == rank - 1:
        return None
    if rows.axis == rank - 2:
        return [rows.at(len(left) - 2), None]
    return _pointwise(call, rows)


def _attention(call: relax.Call, rows: Rows) -> Parts:
    if call.attrs.causal_mask is not None or rows.axis > 1:
        return None
    # Sequences are independent of each other, and so are queries; a mask is [batch, heads, queries, keys].
    others = [rows if rows.axis == 0 else None] * 2
    mask = [_broadcast(argument, rows.at(2 * rows.axis), 4) for argument in call.args[3:]]
    return [rows, *others, *mask]


def _conv2d(call: relax.Call, rows: Rows) -> Parts:
    attrs, weight = call.attrs, shape_of(call.args[1]) or ()
    if attrs.data_layout != "NCHW" or attrs.kernel_layout != "OIHW" or rows.axis == 1:
        return None
    if rows.axis >= 2:
        axis = rows.axis - 2
        if weight[rows.axis] != 1 or any(int(p) for p in attrs.padding):
            return None
        # Of the input everything between the first and the last row, so that the stride stays.
        first, last, stride = rows.indices[0], rows.indices[-1], int(attrs.strides[axis])
        if rows.indices != tuple(range(first, last + 1)):
            return None
        rows = replace(rows, indices=tuple(range(first * stride, last * stride + 1)))
    return _first_only(call, rows)


def _reshape(call: relax.Call, rows: Rows) -> Parts:
    """An axis that stays what it is, with the same count of elements before it."""
    source, target = shape_of(call.args[0]) or (), shape_of(call) or ()
    for axis, extent in enumerate(source):
        if extent == target[rows.axis] and prod(source[:axis]) == prod(target[: rows.axis]):
            return _first_only(call, rows.at(axis))
    return None


def _permute_dims(call: relax.Call, rows: Rows) -> Parts:
    rank = len(shape_of(call) or ())
    axes = range(rank)[::-1] if call.attrs.axes is None else [int(axis) % rank for axis in call.attrs.axes]
    return _first_only(call, rows.at(axes[rows.axis]))


_POINTWISE = (
    "abs", "add", "astype", "ceil", "clip", "cos", "cosh", "divide", "equal", "erf", "exp", "floor", "greater",
    "greater_equal", "less", "less_equal", "log", "logical_and", "logical_not", "logical_or", "maximum", "minimum",
    "multiply", "negative", "nn.gelu", "nn.gelu_tanh", "nn.leakyrelu", "nn.relu", "nn.silu", "nn.softplus", "not_equal",
    "power", "round", "rsqrt", "sigmoid", "sign", "sin", "sinh", "sqrt", "square", "subtract", "tan", "tanh", "where",
)  # fmt: skip
_RULES: dict[str, _Rule] = {
    **{f"relax.{name}": _pointwise for name in _POINTWISE},
    **dict.fromkeys(("tvm_sparse.hard_swish", "tvm_sparse.hard_sigmoid"), _pointwise),
    **{f"relax.nn.{name}": _over_other_axes for name in ("layer_norm", "rms_norm", "softmax", "log_softmax")},
    "relax.matmul": _matmul,
    "relax.nn.attention": _attention,
    "relax.nn.attention_bias": _attention,
    "relax.nn.conv2d": _conv2d,
    "relax.reshape": _reshape,
    "relax.permute_dims": _permute_dims,
}
