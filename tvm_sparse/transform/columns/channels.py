"""Operators that move channels or only relabel: concat, split, slices, reshapes of tokens."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from tvm import relax

from ..ops import static_shape
from .to_columns import Columns, Lowering, Result, handles


@handles("relax.concat")
def lower_concat(lowering: Lowering, call: relax.Call) -> Result:
    """Concatenation of channels."""
    fields = list(call.args[0].fields) if isinstance(call.args[0], relax.Tuple) else []
    known = [lowering.columns(f) for f in fields]
    like = next((c for c in known if c is not None), None)
    shape = static_shape(call)
    if like is None or shape is None or call.ty.dtype != "float32" or call.attrs.axis is None:
        return None
    if int(call.attrs.axis) % len(shape) != like.channel_axis:
        return None
    parts: list[Columns] = []
    for f in fields:
        part = lowering.to_token_columns(f) if like.tokens else lowering.to_image_columns(f)
        parts.append(lowering.emitter.with_geometry(part, like.geometry))
    value = lowering.emitter.emit(relax.op.concat([part.value for part in parts], axis=1))
    return Columns(value, like.geometry, sum(part.channels for part in parts), shape, like.tokens)


@handles("relax.split")
def lower_split(lowering: Lowering, call: relax.Call) -> Result:
    """Split of channels; the parts are slices, so that unread ones cost nothing."""
    x = lowering.columns(call.args[0])
    if x is None or int(call.attrs.axis) % len(x.shape) != x.channel_axis:
        return None
    out: list[Columns] = []
    start = 0
    for type_ in call.ty.fields:
        shape = tuple(int(extent) for extent in type_.shape)
        stop = start + shape[x.channel_axis]
        out.append(_slice(lowering, x, start, stop, shape))
        start = stop
    return out


@handles("relax.strided_slice")
def lower_strided_slice(lowering: Lowering, call: relax.Call) -> Result:
    """A contiguous slice of channels."""
    x, shape = lowering.columns(call.args[0]), static_shape(call)
    if x is None or shape is None:
        return None
    axes, begin, _, *strides = (_integers(argument) for argument in call.args[1:])
    if axes is None or begin is None or len(axes) != 1 or axes[0] % len(x.shape) != x.channel_axis:
        return None
    if strides and strides[0] not in (None, [1]):
        return None
    start = begin[0] + (x.channels if begin[0] < 0 else 0)
    start = min(max(start, 0), x.channels)
    return _slice(lowering, x, start, start + shape[x.channel_axis], shape)


def _integers(expression: relax.Expr) -> list[int] | None:
    fields = getattr(expression, "fields", None)
    if fields is None:
        return None
    return [int(getattr(f, "value", f)) for f in fields]


def _slice(lowering: Lowering, x: Columns, start: int, stop: int, shape: tuple[int, ...]) -> Columns:
    value = lowering.emitter.emit(relax.op.strided_slice(x.value, axes=[1], begin=[start], end=[stop]))
    return replace(x, value=value, channels=stop - start, shape=shape)


@handles("relax.reshape")
def lower_reshape(lowering: Lowering, call: relax.Call) -> Result:
    """Tokens whose rows are only numbered in another way stay where they are."""
    x, shape = lowering.columns(call.args[0]), static_shape(call)
    if x is None or shape is None or not x.tokens or len(shape) < 2 or shape[-1] != x.channels:
        return None
    if prod(shape[:-1]) != prod(x.shape[:-1]):
        return None
    return replace(x, shape=shape)
