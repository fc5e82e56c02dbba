"""LinearForm: linear layers act on the last axis of a tensor in its own shape, with a weight of two axes."""

from __future__ import annotations

import math
from typing import Any

import tvm
from tvm import relax

from ..graph import constant
from ..rewrite import Rewriter, integers, operator_name, rewrite_module, shape_of, tensor
from .elementwise import BINARY, UNARY
from .merge_views import merge_chain

_MATMUL, _RESHAPE, _PERMUTE = "relax.matmul", "relax.reshape", "relax.permute_dims"
_MAX_RANK = 4


@tvm.transform.module_pass(opt_level=0, name="LinearForm")
class LinearForm:
    """Bring linear layers to ``matmul(x [..., K], weight [K, N])``; views that keep rows whole follow.

    Exporters flatten ``[B, T, K]`` to ``[B * T, K]`` around each linear layer, or swap ``B`` and ``T``.
    Such views move behind the layer, its bias, activations and norms until they cancel, so that residual sums
    and everything else see one shape.
    """

    def transform_module(self, module: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Rewrite every Relax function."""
        return rewrite_module(
            module, merge_chain, _weight_of_two_axes, _merged_axes, _view_after_rows, _view_after_sum
        )


def _weight_of_two_axes(rewriter: Rewriter, _variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
    """A weight that was broadcast over the batch is one matrix."""
    if operator_name(value) != _MATMUL:
        return None
    x, weight = value.args
    shape = shape_of(weight)
    if shape is None or len(shape) < 3 or len(shape_of(x) or ()) < len(shape):
        return None
    broadcast = rewriter.call(weight, "relax.broadcast_to")
    if broadcast is not None:
        matrix = constant(broadcast.args[0])
    else:
        array = constant(weight)
        is_repeated = array is not None and (array == array[(slice(0, 1),) * (array.ndim - 2)]).all()
        matrix = array[(0,) * (array.ndim - 2)] if array is not None and is_repeated else None
    if matrix is None or math.prod(matrix.shape[:-2]) != 1 or matrix.shape[-2:] != shape[-2:]:
        return None
    return relax.op.matmul(x, tensor(matrix.reshape(shape[-2:])))


def _merged_axes(rewriter: Rewriter, _variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
    """``matmul`` of ``[B, T, H, D]`` as ``[B * T, H * D]``: only the inner axes are merged before it."""
    if operator_name(value) != _MATMUL or constant(value.args[1]) is None:
        return None
    view = rewriter.call(value.args[0], _RESHAPE)
    shape, result = shape_of(value.args[0]), shape_of(value)
    source = shape_of(view.args[0]) if view is not None else None
    if source is None or shape is None or result is None or len(shape) != 2 or source[-1] == shape[-1]:
        return None
    for place in range(1, min(len(source), _MAX_RANK)):
        if math.prod(source[:place]) == shape[0]:
            kept = source[:place]
            if len(kept) < 2:
                return None
            merged = relax.op.reshape(view.args[0], (*kept, shape[1]))
            return relax.op.reshape(relax.op.matmul(merged, value.args[1]), result)
    return None


def _keeps_rows(view: relax.Call | None) -> bool:
    """Whether a view leaves the last axis whole and in place."""
    if view is None:
        return False
    source, shape = shape_of(view.args[0]), shape_of(view)
    if not source or not shape or source[-1] != shape[-1] or not 2 <= len(source) <= _MAX_RANK:
        return False
    if operator_name(view) == _PERMUTE:
        axes = integers(view.attrs.axes) if view.attrs.axes is not None else None
        return axes is not None and axes[-1] == len(source) - 1
    return True


def _again(view: relax.Call, x: relax.Expr, last: int) -> relax.Expr:
    """The same view of another tensor, whose last axis has ``last`` elements."""
    if operator_name(view) == _PERMUTE:
        return relax.op.permute_dims(x, integers(view.attrs.axes))
    return relax.op.reshape(x, (*(shape_of(view) or ())[:-1], last))


def _view_after_rows(rewriter: Rewriter, _variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
    """A view moves behind an operator that treats rows alike."""
    result = shape_of(value) if isinstance(value, relax.Call) else None
    if result is None or not value.args:
        return None
    view = rewriter.call(value.args[0], _RESHAPE, _PERMUTE)
    if not _keeps_rows(view) or not _is_row_wise(value):
        return None
    moved = relax.Call(value.op, [view.args[0], *value.args[1:]], value.attrs, value.ty_args)
    if operator_name(value) == "relax.nn.layer_norm":
        x, gamma, beta = moved.args
        attrs = value.attrs
        moved = relax.op.nn.layer_norm(x, gamma, beta, [-1], attrs.epsilon, attrs.center, attrs.scale)
    return _again(view, moved, result[-1])


def _is_row_wise(value: relax.Call) -> bool:
    name, shape = operator_name(value), shape_of(value.args[0])
    if shape is None:
        return False
    if name in UNARY:
        return True
    if name == _MATMUL:
        weight = constant(value.args[1])
        return weight is not None and weight.ndim == 2
    if name == "relax.nn.layer_norm":
        return [axis % len(shape) for axis in integers(value.attrs.axes) or []] == [len(shape) - 1]
    if name in BINARY:
        other = shape_of(value.args[1])
        return constant(value.args[1]) is not None and other is not None and math.prod(other[:-1]) == 1
    return False


def _view_after_sum(rewriter: Rewriter, _variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
    """The same view of both operands moves behind the operator."""
    if operator_name(value) not in BINARY:
        return None
    a, b = (rewriter.call(argument, _RESHAPE, _PERMUTE) for argument in value.args)
    if a is None or b is None or a.op != b.op or shape_of(a) != shape_of(b) or shape_of(a) != shape_of(value):
        return None
    source = shape_of(a.args[0])
    if source is None or source != shape_of(b.args[0]):
        return None
    if operator_name(a) == _PERMUTE:
        axes = [view.attrs.axes and integers(view.attrs.axes) for view in (a, b)]
        if axes[0] != axes[1] or axes[0] is None:
            return None
        return relax.op.permute_dims(relax.Call(value.op, [a.args[0], b.args[0]], value.attrs), axes[0])
    return relax.op.reshape(relax.Call(value.op, [a.args[0], b.args[0]], value.attrs), shape_of(a))
