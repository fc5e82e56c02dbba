"""Operators that move channels or only relabel: concat, split, reshapes of tokens, channels first or last."""

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
    if not like.tokens and len(shape) != 4 and None in known:
        return None
    parts: list[Columns] = []
    for f in fields:
        part = lowering.to_token_columns(f) if like.tokens else lowering.to_image_columns(f)
        parts.append(lowering.emitter.with_geometry(part, like.geometry))
    value = lowering.emitter.emit(relax.op.concat([part.value for part in parts], axis=1))
    return Columns(value, like.geometry, sum(part.channels for part in parts), shape, like.tokens)


@handles("relax.split")
def lower_split(lowering: Lowering, call: relax.Call) -> Result:
    """Split of channels into ranges: a part is copied where a reader needs a tensor of its own."""
    x = lowering.in_place(call.args[0])
    if x is None or x.heads > 1 or int(call.attrs.axis) % len(x.shape) != x.channel_axis:
        return None
    out: list[Columns] = []
    start = 0
    for type_ in call.ty.fields:
        shape = tuple(int(extent) for extent in type_.shape)
        stop = start + shape[x.channel_axis]
        out.append(lowering.slice_channels(x, start, stop, shape))
        start = stop
    return out


@handles("relax.reshape")
def lower_reshape(lowering: Lowering, call: relax.Call) -> Result:
    """Tokens whose rows are only numbered in another way, or whose channels are split into heads or merged."""
    x, shape = lowering.in_place(call.args[0]), static_shape(call)
    if x is None or shape is None or len(shape) < 2:
        return None
    if not x.tokens:
        # Rows of pixels joined, as before channels become the last axis, or apart again.
        joined = (*x.shape[:2], x.geometry.pixels)
        apart = (*x.shape[:2], x.geometry.height, x.geometry.width)
        return replace(x, shape=shape) if shape in (joined, apart) else None
    rows = x.geometry.batch * x.geometry.pixels
    if shape[-1] == x.channels and prod(shape[:-1]) == rows:
        return replace(x, shape=shape, heads=1)
    if len(shape) == 4 and shape[2] * shape[3] == x.channels and prod(shape[:2]) == rows:
        return replace(x, shape=shape, heads=shape[2])
    return None


@handles("relax.permute_dims")
def lower_permute_dims(lowering: Lowering, call: relax.Call) -> Result:
    """Channels of images moved to the last axis or back to the second: columns hold them apart from the pixels."""
    x, shape = lowering.columns(call.args[0]), static_shape(call)
    if x is None or shape is None or call.attrs.axes is None:
        return None
    axes, rank = [int(axis) for axis in call.attrs.axes], len(x.shape)
    spatial = list(range(1, rank - 1)) if x.tokens else list(range(2, rank))
    moved = [0, x.channel_axis, *spatial] if x.tokens else [0, *spatial, x.channel_axis]
    if axes != moved:
        return None
    # Images are [N, C, H, W], so that their other readers know where a pixel is; tokens are numbered row by row.
    geometry = x.geometry
    if x.tokens and shape != (geometry.batch, x.channels, geometry.height, geometry.width):
        return None
    return replace(x, shape=shape, tokens=not x.tokens)
