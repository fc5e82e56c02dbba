"""Which operators treat the items of a batch apart, and what each of their arguments is then.

The items of a tensor are equal, contiguous parts of its first axis: of ``[B * m, ...]`` item ``i`` is
``[i * m : (i + 1) * m]``. An operator treats items apart if each item of its result follows from the same item of
some arguments and the whole of the others; whether it does is decided by shapes and attributes alone.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

from tvm import relax

from ..canonicalize.elementwise import BINARY, UNARY
from ..ops import CONV2D, DEPTH_TO_SPACE, LINEAR, static_shape


class Role(Enum):
    """What an operator that treats items apart reads of an argument."""

    ITEMS = "items"
    WHOLE = "whole"


Roles = tuple[Role, ...]
# Given the call and the shape of its (first) result: a role for each argument, or None where items are mixed.
_Rule = Callable[[relax.Call, tuple[int, ...]], Roles | None]
_RULES: dict[str, _Rule] = {}


def roles_of(call: relax.Call, batch: int) -> Roles | None:
    """Roles of a call's arguments.

    Parameters
    ----------
    call : relax.Call
        A call whose type is known.
    batch : int
        Items, at least 2.

    Returns
    -------
    tuple of Role or None
        One for each argument (for a tuple: for all its fields); None where the operator is unknown, mixes items, or
        reads none.
    """
    rule = _RULES.get(str(getattr(call.op, "name", "")))
    shapes = result_shapes(call)
    if rule is None or not shapes or not all(_has_items(shape, batch) for shape in shapes):
        return None
    roles = rule(call, shapes[0])
    if roles is None or Role.ITEMS not in roles:
        return None
    for role, argument in zip(roles, call.args, strict=True):
        if role is Role.ITEMS and not all(_has_items(shape, batch) for shape in result_shapes(argument) or [()]):
            return None
    return roles


def result_shapes(expression: relax.Expr) -> list[tuple[int, ...]]:
    """Shape of a tensor, or shapes of a tuple of tensors; empty for anything else, open shapes too."""
    if isinstance(expression, relax.Tuple):
        types: list[Any] = [field.ty for field in expression.fields]
    else:
        types = list(expression.ty.fields) if isinstance(expression.ty, relax.TupleType) else [expression.ty]
    shapes: list[tuple[int, ...]] = []
    for type_ in types:
        if not isinstance(type_, relax.TensorType) or type_.shape is None:
            return []
        try:
            shapes.append(tuple(int(extent) for extent in type_.shape))
        except TypeError:
            return []
    return shapes


def _has_items(shape: tuple[int, ...], batch: int) -> bool:
    return bool(shape) and shape[0] >= batch and shape[0] % batch == 0


def _rule(*names: str) -> Callable[[_Rule], _Rule]:
    def register(rule: _Rule) -> _Rule:
        known = ("relax.", "tvm_sparse.")
        _RULES.update({name if name.startswith(known) else f"relax.{name}": rule for name in names})
        return rule

    return register


def _first(call: relax.Call) -> Roles:
    """Items of the first argument."""
    return (Role.ITEMS, *[Role.WHOLE] * (len(call.args) - 1))


def _rank(call: relax.Call) -> int:
    return len(static_shape(call.args[0]) or ())


def _numbers(value: Any) -> list[int]:
    return [int(v) for v in value] if hasattr(value, "__len__") else [int(value)]


def _axes(call: relax.Call, axis: Any, rank: int | None = None) -> list[int] | None:
    """Axes counted from the front; None for an attribute that is not given, which stands for all."""
    if axis is None:
        return None
    rank = _rank(call) if rank is None else rank
    return [a % rank for a in _numbers(axis)] if rank else None


def _spares_items(call: relax.Call, axis: Any, rank: int | None = None) -> bool:
    """Whether an operator along an axis (or several) leaves the first one alone."""
    axes = _axes(call, axis, rank)
    return axes is not None and 0 not in axes


_COMPARISONS = ["equal", "not_equal", "less", "less_equal", "greater", "greater_equal"]
_MORE_BINARY = ["mod", "floor_mod", "floor_divide", "atan2", "log_add_exp", "where", "ewise_fma"]
_LOGIC = [f"{kind}_{name}" for kind in ("logical", "bitwise") for name in ("and", "or", "xor", "not")]
_MORE_UNARY = [
    "isnan", "isinf", "isfinite", "sign", "trunc", "tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh",
    "atanh",
]  # fmt: skip


@_rule(*UNARY, *BINARY, *_COMPARISONS, *_MORE_BINARY, *_LOGIC, *_MORE_UNARY)
def _broadcast(call: relax.Call, out: tuple[int, ...]) -> Roles | None:
    """Element by element: what has the result's first extent has its items, the others are the same for all."""
    roles = []
    for argument in call.args:
        shape = static_shape(argument) if isinstance(argument.ty, relax.TensorType) else ()
        if shape is None:
            return None
        roles.append(Role.ITEMS if len(shape) == len(out) and shape[0] == out[0] else Role.WHOLE)
    return tuple(roles)


@_rule("broadcast_to")
def _broadcast_to(call: relax.Call, out: tuple[int, ...]) -> Roles | None:
    shape = static_shape(call.args[0])
    return _first(call) if shape and len(shape) == len(out) and shape[0] == out[0] else None


@_rule(CONV2D, LINEAR)
def _layer(call: relax.Call, _out: tuple[int, ...]) -> Roles:
    has_residual = bool(int(call.attrs["residual"]))
    rest = [Role.ITEMS if has_residual and place == 3 else Role.WHOLE for place in range(1, len(call.args))]
    return (Role.ITEMS, *rest)


@_rule(DEPTH_TO_SPACE, "nn.pixel_shuffle", "nn.batch_flatten")
def _images(call: relax.Call, _out: tuple[int, ...]) -> Roles:
    return _first(call)


@_rule(*(f"nn.conv{n}d" for n in (1, 2, 3)), *(f"nn.conv{n}d_transpose" for n in (1, 2, 3)))
def _convolution(call: relax.Call, _out: tuple[int, ...]) -> Roles | None:
    return _first(call) if _is_batch_first(call.attrs.data_layout, call.attrs.out_layout) else None


@_rule(*(f"nn.{kind}{n}d" for kind in ("max_pool", "avg_pool", "adaptive_avg_pool") for n in (1, 2, 3)))
def _pool(call: relax.Call, _out: tuple[int, ...]) -> Roles | None:
    return _first(call) if _is_batch_first(call.attrs.layout, call.attrs.out_layout) else None


@_rule("image.resize2d", "image.resize3d")
def _resize(call: relax.Call, _out: tuple[int, ...]) -> Roles | None:
    return _first(call) if _is_batch_first(call.attrs.layout) else None


@_rule("image.grid_sample")
def _grid_sample(call: relax.Call, _out: tuple[int, ...]) -> Roles | None:
    return (Role.ITEMS, Role.ITEMS) if _is_batch_first(call.attrs.layout) else None


def _is_batch_first(*layouts: Any) -> bool:
    return all(str(layout)[:1] in ("N", "") for layout in layouts)


@_rule("nn.layer_norm", "nn.rms_norm")
def _norm(call: relax.Call, _out: tuple[int, ...]) -> Roles | None:
    return _first(call) if _spares_items(call, call.attrs.axes) else None


@_rule("nn.group_norm", "nn.instance_norm")
def _norm_of_channels(call: relax.Call, _out: tuple[int, ...]) -> Roles | None:
    axes = [*_numbers(call.attrs.axes), int(call.attrs.channel_axis)]
    return _first(call) if _spares_items(call, axes) else None


@_rule("nn.prelu", "nn.softmax", "nn.log_softmax", "flip", "sort", "argsort", "topk", "split", "cumsum", "cumprod")
def _along_axis(call: relax.Call, _out: tuple[int, ...]) -> Roles | None:
    return _first(call) if _spares_items(call, call.attrs.axis) else None


@_rule(
    "sum", "mean", "max", "min", "prod", "std", "variance", "median", "argmax", "argmin", "repeat", "squeeze"
)  # fmt: skip
def _over_axes(call: relax.Call, _out: tuple[int, ...]) -> Roles | None:
    return _first(call) if _spares_items(call, call.attrs.axis) else None


@_rule("expand_dims")
def _expand_dims(call: relax.Call, out: tuple[int, ...]) -> Roles | None:
    return _first(call) if _spares_items(call, call.attrs.axis, len(out)) else None


@_rule("reshape", "flatten")
def _reshape(call: relax.Call, _out: tuple[int, ...]) -> Roles:
    """Elements keep their order, so that equal parts of the first axes are the same elements."""
    return _first(call)


@_rule("permute_dims")
def _permute(call: relax.Call, _out: tuple[int, ...]) -> Roles | None:
    axes = _axes(call, call.attrs.axes)
    return _first(call) if axes is not None and axes[0] == 0 else None


@_rule("concat")
def _concat(call: relax.Call, _out: tuple[int, ...]) -> Roles | None:
    shapes = result_shapes(call.args[0])
    rank = len(shapes[0]) if shapes else None
    return _first(call) if rank and _spares_items(call, call.attrs.axis, rank) else None


@_rule("stack")
def _stack(call: relax.Call, out: tuple[int, ...]) -> Roles | None:
    return _first(call) if _spares_items(call, call.attrs.axis, len(out)) else None


@_rule("strided_slice")
def _strided_slice(call: relax.Call, _out: tuple[int, ...]) -> Roles | None:
    fields = getattr(call.args[1], "fields", None)
    axes = None if fields is None else [getattr(field, "value", None) for field in fields]
    if axes is None or not all(isinstance(axis, int) for axis in axes):
        return None
    return _first(call) if _spares_items(call, axes) else None


@_rule("nn.pad")
def _pad(call: relax.Call, _out: tuple[int, ...]) -> Roles | None:
    widths = _numbers(call.attrs.pad_width)
    return _first(call) if not any(widths[:2]) and len(widths) == 2 * _rank(call) else None


@_rule("tile")
def _tile(call: relax.Call, out: tuple[int, ...]) -> Roles | None:
    repeats = _numbers(call.attrs.repeats)
    keeps_first = len(repeats) < len(out) or (repeats[0] == 1 and len(repeats) == len(out))
    return _first(call) if keeps_first and _rank(call) == len(out) else None


@_rule("one_hot")
def _one_hot(call: relax.Call, out: tuple[int, ...]) -> Roles | None:
    return _first(call) if _spares_items(call, call.attrs.axis, len(out)) else None


@_rule("gather_elements")
def _gather_elements(call: relax.Call, _out: tuple[int, ...]) -> Roles | None:
    same = (static_shape(call.args[0]) or (0,))[0] == (static_shape(call.args[1]) or (1,))[0]
    return (Role.ITEMS, Role.ITEMS) if same and _spares_items(call, call.attrs.axis) else None


@_rule("take")
def _take(call: relax.Call, _out: tuple[int, ...]) -> Roles | None:
    """Rows of a table for the indices of each item, or the same places of every item."""
    axes = _axes(call, call.attrs.axis)
    if axes is None:
        return None
    if axes == [0]:
        return (Role.WHOLE, Role.ITEMS) if static_shape(call.args[1]) else None
    return (Role.ITEMS, Role.WHOLE)


@_rule("matmul")
def _matmul(call: relax.Call, out: tuple[int, ...]) -> Roles | None:
    """The first axis is one of stacked matrices, or counts rows of the left one."""
    a, b = (static_shape(argument) for argument in call.args)
    if not a or not b or len(a) < 2 or len(b) < 2:
        return None
    if len(out) == 2:
        return (Role.ITEMS, Role.WHOLE)
    return tuple(Role.ITEMS if len(shape) == len(out) and shape[0] == out[0] else Role.WHOLE for shape in (a, b))  # type: ignore[return-value]


@_rule("nn.attention", "nn.attention_bias")
def _attention(call: relax.Call, out: tuple[int, ...]) -> Roles | None:
    roles = []
    for place, argument in enumerate(call.args):
        shape = static_shape(argument)
        if not shape or len(shape) != 4 or (place < 3 and shape[0] != out[0]):
            return None
        roles.append(Role.ITEMS if shape[0] == out[0] else Role.WHOLE)
    return tuple(roles)
