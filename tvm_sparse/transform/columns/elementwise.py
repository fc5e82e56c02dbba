"""Elementwise operators and normalisations: the same operator on the columns."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
from tvm import relax

from ..graph import constant
from ..ops import static_shape
from .resampling import Blend
from .to_columns import Columns, Lowering, Result, handles

_UNARY = [
    "abs", "ceil", "cos", "cosh", "erf", "exp", "floor", "log", "negative", "round", "rsqrt", "sigmoid", "sign",
    "sin", "sinh", "sqrt", "square", "tan", "tanh", "nn.relu", "nn.gelu", "nn.gelu_tanh", "nn.silu", "nn.leakyrelu",
    "nn.softplus", "clip",
]  # fmt: skip
_BINARY = ["add", "subtract", "multiply", "divide", "maximum", "minimum", "power"]


@handles(*(f"relax.{name}" for name in _UNARY), "tvm_sparse.hard_swish", "tvm_sparse.hard_sigmoid")
def lower_unary(lowering: Lowering, call: relax.Call) -> Result:
    """An operator of one tensor."""
    x = lowering.columns(call.args[0])
    if x is None or call.ty.dtype != "float32":
        return None
    value = lowering.emitter.emit(relax.Call(call.op, [x.value, *call.args[1:]], call.attrs))
    return replace(x, value=value)


@handles(*(f"relax.{name}" for name in _BINARY))
def lower_binary(lowering: Lowering, call: relax.Call) -> Result:
    """An operator of two tensors, one of them in columns; the other may be broadcast."""
    shape = static_shape(call)
    for held, other in ((call.args[0], call.args[1]), (call.args[1], call.args[0])):
        blend = lowering.held(held)
        if isinstance(blend, Blend):
            return blend.emit(lowering, lowering.to_image_columns(other))
    sides = [lowering.columns(argument) for argument in call.args]
    like = next((c for c in sides if c is not None and c.shape == shape), None)
    if like is None or call.ty.dtype != "float32":
        return None
    operands = [_operand(lowering, argument, like) for argument in call.args]
    if any(operand is None for operand in operands):
        return None
    value = lowering.emitter.emit(relax.Call(call.op, operands, call.attrs))
    return replace(like, value=value)


def _operand(lowering: Lowering, argument: relax.Expr, like: Columns) -> relax.Expr | None:
    """An operand as a tensor that broadcasts against columns, or None."""
    shape = static_shape(argument)
    if shape is None or argument.ty.dtype != "float32":
        return None
    if int(np.prod(shape)) == 1:
        return lowering.emitter.emit(relax.op.reshape(lowering.plain(argument), (1, 1, 1, 1)))
    array = constant(argument)
    if array is not None:
        return _constant_operand(array, like)
    if shape == like.shape:
        if like.tokens:
            columns = lowering.to_token_columns(argument)
        elif len(shape) != 4 and lowering.columns(argument) is None:
            return None
        else:
            columns = lowering.to_image_columns(argument)
        return lowering.emitter.with_geometry(columns, like.geometry).value
    return _per_image_operand(lowering, argument, shape, like)


def _per_image_operand(
    lowering: Lowering, argument: relax.Expr, shape: tuple[int, ...], like: Columns
) -> relax.Expr | None:
    """One number per image and channel (squeeze and excitation)."""
    batch = like.geometry.batch
    if like.tokens or shape not in ((batch, like.channels, 1, 1), (1, like.channels, 1, 1)):
        return None
    emitter, geometry = lowering.emitter, like.geometry
    value = lowering.plain(argument)
    if shape[0] > 1 and geometry.images > 1:
        # The number of each lane's image.
        by_set = emitter.emit(relax.op.reshape(value, (geometry.sets, geometry.images, like.channels, 1)))
        by_image = emitter.emit(relax.op.permute_dims(by_set, [0, 2, 3, 1]))
        lanes = relax.const(geometry.lane_image)
        value = emitter.emit(relax.op.take(by_image, lanes, axis=3, mode="clip"))
    if shape[0] > 1 and geometry.panels > 1:
        value = emitter.emit(relax.op.repeat(value, geometry.panels, axis=0))
    return value


def _constant_operand(array: np.ndarray, like: Columns) -> relax.Expr | None:
    """A constant per channel, or one that varies over pixels, stored in columns."""
    geometry = like.geometry
    if array.ndim > len(like.shape):
        return None
    full = array.reshape((1,) * (len(like.shape) - array.ndim) + array.shape)
    if like.tokens:
        leading = full.shape[:-1]
        channels = full.shape[-1]
        if all(extent == 1 for extent in leading):
            return relax.const(np.ascontiguousarray(full.reshape(1, channels, 1, 1)))
        full = np.broadcast_to(full, (*like.shape[:-1], channels))
        images = full.reshape(geometry.batch, geometry.height, geometry.width, channels).transpose(0, 3, 1, 2)
        return relax.const(geometry.pack(np.ascontiguousarray(images)))
    if prod(full.shape[2:]) == 1 and full.shape[0] == 1:
        return relax.const(np.ascontiguousarray(full.reshape(1, -1, 1, 1)))
    full = np.broadcast_to(full, (geometry.batch, full.shape[1], *like.shape[2:]))
    images = full.reshape(geometry.batch, full.shape[1], geometry.height, geometry.width)
    return relax.const(geometry.pack(np.ascontiguousarray(images)))


@handles("relax.nn.softmax", "relax.nn.log_softmax")
def lower_softmax(lowering: Lowering, call: relax.Call) -> Result:
    """Softmax over the channels."""
    x = lowering.columns(call.args[0])
    if x is None or int(call.attrs.axis) % len(x.shape) != x.channel_axis:
        return None
    make = relax.op.nn.softmax if call.op.name == "relax.nn.softmax" else relax.op.nn.log_softmax
    return replace(x, value=lowering.emitter.emit(make(x.value, axis=1)))
