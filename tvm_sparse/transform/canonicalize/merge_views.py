"""MergeViews: chains of reshapes, transposes and slices become as few operators as possible."""

from __future__ import annotations

import math
from typing import Any

import tvm
from tvm import relax

from ..rewrite import Rewriter, integers, operator_name, rewrite_module, shape_of
from .views import View

_RESHAPE, _PERMUTE, _SLICE = "relax.reshape", "relax.permute_dims", "relax.strided_slice"


@tvm.transform.module_pass(opt_level=0, name="MergeViews")
class MergeViews:
    """Merge successive reshapes and transposes; move slices before them.

    A chain is rewritten where that saves a transpose or an operator. A slice of a transposed or reshaped
    tensor becomes a transposed or reshaped slice, so that slicing the result of a layer (fused query, key and
    value) is one operator on the layer's own axes.
    """

    def transform_module(self, module: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Rewrite every Relax function."""
        return rewrite_module(module, merge_chain, _slice_before_view)


def merge_chain(rewriter: Rewriter, _variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
    """Rule: the shortest form of a chain that ends in ``value``, or None if it is that already."""
    chain: list[relax.Call] = []
    link: relax.Expr | None = value
    while operator_name(link) in (_RESHAPE, _PERMUTE) and shape_of(link) is not None:
        chain.insert(0, link)
        link = rewriter.producer(link.args[0])
    while chain:
        view = _compose(chain)
        if view is not None:
            return _shorter(chain, view)
        chain = chain[1:]
    return None


def _compose(chain: list[relax.Call]) -> View | None:
    shape = shape_of(chain[0].args[0])
    view = View.identity(shape) if shape is not None and 0 not in shape else None
    for link in chain:
        if view is None:
            return None
        if operator_name(link) == _PERMUTE:
            view = view.permute(_axes(link))
        else:
            view = view.reshape(shape_of(link) or ())
    return view


def _axes(permute: relax.Call) -> list[int]:
    rank = len(shape_of(permute) or ())
    if permute.attrs.axes is None:
        return list(reversed(range(rank)))
    return [axis % rank for axis in integers(permute.attrs.axes) or []]


def _shorter(chain: list[relax.Call], view: View) -> relax.Expr | None:
    source = chain[0].args[0]
    split, axes, merged = view.steps()
    is_transposed = axes != tuple(range(len(axes)))
    steps = (split != view.source) + is_transposed
    steps += is_transposed and tuple(split[axis] for axis in axes) != merged
    transposes = sum(operator_name(link) == _PERMUTE for link in chain)
    # Of two equal forms the one that ends in the transpose: linear layers move it on (see `LinearForm`).
    ends_in_reshape = operator_name(chain[-1]) == _RESHAPE
    is_better = is_transposed and steps == 2 and split != view.source and ends_in_reshape
    if (int(is_transposed), steps, not is_better) >= (transposes, len(chain), True):
        return None
    result = relax.op.reshape(source, split) if split != view.source else source
    if is_transposed:
        result = relax.op.permute_dims(result, list(axes))
        if tuple(split[axis] for axis in axes) != merged:
            result = relax.op.reshape(result, merged)
    return result


def _slice_before_view(rewriter: Rewriter, _variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
    bounds = slice_bounds(value)
    if bounds is None:
        return None
    axis, begin, end = bounds
    view = rewriter.producer(value.args[0])
    source, shape = (shape_of(view.args[0]), shape_of(view)) if isinstance(view, relax.Call) else (None, None)
    if source is None or shape is None:
        return None
    if operator_name(view) == _PERMUTE:
        axes = _axes(view)
        sliced = relax.op.strided_slice(view.args[0], [axes[axis]], [begin], [end])
        return relax.op.permute_dims(sliced, axes)
    if operator_name(view) == _RESHAPE:
        for place, extent in enumerate(source):
            # The sliced axis is the outer part of an axis of the source.
            if (
                math.prod(source[:place]) == math.prod(shape[:axis])
                and extent > 1
                and extent % shape[axis] == 0
            ):
                inner = extent // shape[axis]
                sliced = relax.op.strided_slice(view.args[0], [place], [begin * inner], [end * inner])
                return relax.op.reshape(sliced, shape_of(value))
    return None


def slice_bounds(value: relax.Expr | None) -> tuple[int, int, int] | None:
    """Axis, begin and end of a slice along one axis without strides, else None."""
    if operator_name(value) != _SLICE:
        return None
    shape = shape_of(value.args[0])
    lists = [integers(argument) for argument in value.args[1:]]
    if shape is None or None in lists or (len(lists) > 3 and set(lists[3] or [1]) != {1}):
        return None
    axes, begins, ends = lists[:3]
    if len(axes) != 1:  # type: ignore[arg-type]
        return None
    axis = axes[0] % len(shape)  # type: ignore[index]
    begin, end, _ = slice(begins[0], ends[0]).indices(shape[axis])  # type: ignore[index]
    return (axis, begin, end) if begin < end else None
