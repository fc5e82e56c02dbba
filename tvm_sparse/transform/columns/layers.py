"""Layers in columns: choose a format, pack the weights, call the kernel."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
from tvm import relax

from tvm_sparse.layout.geometry import Geometry, choose_geometry
from tvm_sparse.layout.halo import Window, halo_program
from tvm_sparse.plan.choose import Choice, choose_format, prefers_rows
from tvm_sparse.plan.layer import Convolution, PackedLayer
from tvm_sparse.plan.pack import pack_image_layer, pack_layer
from tvm_sparse.plan.pack_rows import pack_rows
from tvm_sparse.plan.work import count_work

from ..ops import CONV2D, LINEAR, static_shape
from .layer_calls import call_layer, layer_of, note_layer
from .separable import Separable, hold_depthwise, lower_separable
from .to_columns import Lowering, handles
from .values import Columns, Held, token_geometry


@handles(CONV2D)
def lower_conv2d(lowering: Lowering, call: relax.Call) -> Columns | relax.Expr | Held:
    """A convolution: panels or windows of its input in columns."""
    x_shape, out_shape = static_shape(call.args[0]), static_shape(call)
    assert x_shape is not None and out_shape is not None
    layer = _without_unread_taps(layer_of(call), x_shape, out_shape)
    if x_shape[2:] == (1, 1) and out_shape[2:] == (1, 1):
        return _single_pixels(lowering, call, layer, x_shape, out_shape)
    separable = lowering.held(call.args[0])
    if isinstance(separable, Separable):
        return lower_separable(lowering, call, layer, separable, out_shape)
    of_image = _image_layer(lowering, call, layer, x_shape, out_shape)
    if of_image is not None:
        return of_image
    x = lowering.to_image_columns(call.args[0])
    window = layer.window
    if window.kernel == (1, 1) and not layer.pointwise and not any(window.padding):
        x = _subsample(lowering, x, window, out_shape)
        layer = _with_window(layer, Window((1, 1)))
        target = x.geometry
    else:
        target = choose_geometry(out_shape[0], *out_shape[2:], lowering.emitter.lanes)
        x = align(lowering, x, target, window)
        held = hold_depthwise(lowering, call, layer, x, target) if layer.depthwise else None
        if held is not None:
            return held
    return _column_layer(lowering, call, layer, x, target, out_shape, False)


def _image_layer(
    lowering: Lowering, call: relax.Call, layer: Convolution, x_shape: tuple[int, ...], out_shape: tuple[int, ...]
) -> Columns | None:
    """A convolution that alone reads plain images, where its kernel fills its windows from them."""
    # Panels are read in place: a 1x1 layer would copy pixels only to read each once.
    if layer.depthwise or layer.pointwise or lowering.in_place(call.args[0]) is not None:
        return None
    if not lowering.is_read_once(call.args[0]):
        return None
    isa = lowering.context.isa
    target = choose_geometry(out_shape[0], *out_shape[2:], isa.lanes)
    source = choose_geometry(x_shape[0], *x_shape[2:], isa.lanes, most_images=1)
    value, strides = lowering.emitter.plain_image(lowering.plain(call.args[0]))
    choice = choose_format(lowering.context.plan, str(call.attrs["name"]), layer, source, target, isa)
    packed = pack_image_layer(choice.format, layer, source, target, isa, strides)
    if packed is None:
        return None
    return _call_column_layer(
        lowering, call, layer, Columns(value, source, x_shape[1], x_shape, False), target, out_shape, False,
        choice, packed,
    )  # fmt: skip


@handles(LINEAR)
def lower_linear(lowering: Lowering, call: relax.Call) -> Columns | relax.Expr:
    """A linear layer: tokens in columns, or plain rows where there are only a few."""
    x_shape, out_shape = static_shape(call.args[0]), static_shape(call)
    assert x_shape is not None and out_shape is not None
    layer = layer_of(call)
    if _stays_in_rows(lowering, call, layer, x_shape):
        return _row_layer(lowering, call, layer, out_shape)
    x = lowering.to_token_columns(call.args[0])
    return _column_layer(lowering, call, layer, x, x.geometry, out_shape, True)


# Cycles to move one pixel of one channel into another geometry.
_MOVE_CYCLES = 1.3


def align(lowering: Lowering, x: Columns, target: Geometry, window: Window) -> Columns:
    """Relayout the input of a window where building the windows from its lanes would cost more.

    So it does where more images share its vectors than the output's: they could not be built at all.
    """
    source = x.geometry
    if window.stride == (1, 1) and source.images == target.images:
        return x
    aligned = replace(source, grid=target.grid, images=target.images, tile=(1, 1))
    tile = (
        max(r for r in range(1, 8) if aligned.sub_height % r == 0),
        max(v for v in range(1, 3) if aligned.sub_width % v == 0),
    )
    aligned = replace(aligned, tile=tile)
    if source.images <= target.images:
        before = halo_program(source, target, window, x.channels).cycles
        move = _MOVE_CYCLES * target.images * source.pixels
        after = halo_program(aligned, target, window, x.channels).cycles + move
        if before <= after:
            return x
    return lowering.emitter.with_geometry(x, aligned)


def _stays_in_rows(
    lowering: Lowering, call: relax.Call, layer: Convolution, x_shape: tuple[int, ...]
) -> bool:  # fmt: skip
    """Whether the input is a few plain rows that are better read as they are than spread over lanes."""
    rows, emitter = prod(x_shape[:-1]), lowering.emitter
    if not lowering.is_few(rows) or lowering.in_place(call.args[0]) is not None:
        return False
    geometry = token_geometry(x_shape, emitter.lanes)
    return prefers_rows(
        lowering.context.plan, str(call.attrs["name"]), layer, rows, geometry, lowering.context.isa
    )  # fmt: skip


def _with_window(layer: Convolution, window: Window) -> Convolution:
    return Convolution(
        layer.weight, layer.bias, window, layer.groups, layer.activation, layer.slopes, layer.residual
    )


def _column_layer(
    lowering: Lowering, call: relax.Call, layer: Convolution, x: Columns, target: Geometry,
    out_shape: tuple[int, ...], tokens: bool,
) -> Columns:  # fmt: skip
    plan = lowering.context.plan
    choice = choose_format(plan, str(call.attrs["name"]), layer, x.geometry, target, lowering.context.isa)
    packed = pack_layer(choice.format, layer, x.geometry, target, lowering.context.isa)
    return _call_column_layer(lowering, call, layer, x, target, out_shape, tokens, choice, packed)


def _call_column_layer(
    lowering: Lowering, call: relax.Call, layer: Convolution, x: Columns, target: Geometry,
    out_shape: tuple[int, ...], tokens: bool, choice: Choice, packed: PackedLayer,
) -> Columns:  # fmt: skip
    work = count_work(layer, packed, lowering.context.isa, x.geometry, target)
    out = call_layer(lowering, call, layer, packed, x, target, work, tokens)
    note_layer(lowering, call, layer, packed, choice, work, target)
    return Columns(out, target, layer.weight.shape[0], out_shape, tokens)


def _row_layer(
    lowering: Lowering, call: relax.Call, layer: Convolution, out_shape: tuple[int, ...]
) -> relax.Expr:
    choice = choose_format(
        lowering.context.plan, str(call.attrs["name"]), layer, None, None, lowering.context.isa
    )
    packed = pack_rows(
        layer, prod(out_shape[:-1]), len(out_shape), choice.format == "unstructured", lowering.context.isa
    )
    arguments: list[relax.Expr | np.ndarray] = [lowering.plain(call.args[0])]
    if layer.residual:
        arguments.append(lowering.plain(call.args[3]))
    name = str(call.attrs["name"])
    out = lowering.emitter.kernel(packed.kernel, [*arguments, *packed.arrays], out_shape, name)
    work = count_work(layer, packed, lowering.context.isa, None, None, prod(out_shape[:-1]))
    note_layer(lowering, call, layer, packed, choice, work, None)
    return out


def _single_pixels(
    lowering: Lowering,
    call: relax.Call,
    layer: Convolution,
    x_shape: tuple[int, ...],
    out_shape: tuple[int, ...],
) -> Columns | relax.Expr:
    """A convolution on images of one pixel is a linear layer on the batch: only its centre tap counts."""
    top, left = layer.window.padding[:2]
    (dy, dx), (kh, kw) = layer.window.dilation, layer.window.kernel
    centre = [(ky, kx) for ky in range(kh) for kx in range(kw) if ky * dy == top and kx * dx == left]
    weight = np.zeros((layer.weight.shape[0], x_shape[1]), np.float32)
    per_group, rows_per_group = layer.weight.shape[1], layer.weight.shape[0] // layer.groups
    for ky, kx in centre:
        for group in range(layer.groups):
            rows = slice(group * rows_per_group, (group + 1) * rows_per_group)
            weight[rows, group * per_group : (group + 1) * per_group] += layer.weight[rows, :, ky, kx]
    linear = Convolution(
        weight[:, :, None, None],
        layer.bias,
        Window((1, 1)),
        1,
        layer.activation,
        layer.slopes,
        layer.residual,
    )
    emitter = lowering.emitter

    def rows_of(expression: relax.Expr, channels: int) -> relax.Expr:
        return emitter.emit(relax.op.reshape(lowering.plain(expression), (x_shape[0], channels)))

    x = rows_of(call.args[0], x_shape[1])
    residual = [rows_of(call.args[3], out_shape[1])] if layer.residual else []
    shape, name, isa = (out_shape[0], out_shape[1]), str(call.attrs["name"]), lowering.context.isa
    geometry: Geometry | None = None
    arguments: list[relax.Expr | np.ndarray]
    if lowering.is_few(x_shape[0]):
        choice = choose_format(lowering.context.plan, name, linear, None, None, isa)
        packed = pack_rows(linear, x_shape[0], 2, choice.format == "unstructured", isa)
        arguments = [x, *residual, *packed.arrays]
        out = emitter.kernel(packed.kernel, arguments, shape, name)
    else:
        geometry = token_geometry((x_shape[0], x_shape[1]), emitter.lanes)
        columns = emitter.token_columns(x)
        choice = choose_format(lowering.context.plan, name, linear, geometry, geometry, isa)
        packed = pack_layer(choice.format, linear, geometry, geometry, isa)
        arguments = [columns.value, *(emitter.token_columns(r).value for r in residual), *packed.arrays]
        value = emitter.kernel(packed.kernel, arguments, geometry.shape(out_shape[1]), name)
        out = emitter.plain(Columns(value, geometry, out_shape[1], shape, True))
    work = count_work(linear, packed, isa, geometry, geometry, x_shape[0])
    note_layer(lowering, call, linear, packed, choice, work, geometry)
    return emitter.emit(relax.op.reshape(out, out_shape))


def _without_unread_taps(
    layer: Convolution, x_shape: tuple[int, ...], out_shape: tuple[int, ...]
) -> Convolution:
    """Drop rows and columns of a kernel that read nothing but padding, as far dilated ones on small images do."""
    window, weight = layer.window, layer.weight
    padding = list(window.padding)
    for axis in range(2):
        extent, dilation = x_shape[2 + axis], window.dilation[axis]
        outputs = np.arange(out_shape[2 + axis]) * window.stride[axis] - window.padding[axis]
        at = outputs[None, :] + np.arange(window.kernel[axis])[:, None] * dilation
        read = np.flatnonzero(((at >= 0) & (at < extent)).any(1))
        if not len(read):
            return layer
        first, last = int(read[0]), int(read[-1])
        before = padding[axis] - first * dilation
        after = padding[2 + axis] - (window.kernel[axis] - 1 - last) * dilation
        if before < 0 or after < 0:
            continue
        padding[axis], padding[2 + axis] = before, after
        weight = weight.take(range(first, last + 1), axis=2 + axis)
    if weight.shape == layer.weight.shape:
        return layer
    kernel = (weight.shape[2], weight.shape[3])
    return replace(layer, weight=weight, window=replace(window, kernel=kernel, padding=tuple(padding)))


def _subsample(lowering: Lowering, x: Columns, window: Window, out_shape: tuple[int, ...]) -> Columns:
    """Pixels that a strided 1x1 window reads."""
    height, width = out_shape[2:]
    target = choose_geometry(out_shape[0], height, width, lowering.emitter.lanes)
    y, x_at = np.meshgrid(
        np.arange(height) * window.stride[0], np.arange(width) * window.stride[1], indexing="ij"
    )
    shape = (out_shape[0], x.channels, height, width)
    return lowering.emitter.move_pixels(x, target, y, x_at, shape)
