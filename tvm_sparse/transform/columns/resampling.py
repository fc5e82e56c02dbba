"""Operators that move pixels: resize, depth-to-space, spatial slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from tvm import relax

from tvm_sparse.layout import relayout, resample
from tvm_sparse.layout.geometry import Geometry, choose_geometry
from tvm_sparse.plan.pack_moves import pack_blend

from ..ops import DEPTH_TO_SPACE, static_shape
from .to_columns import Columns, Lowering, Result, handles
from .values import Held


@handles(DEPTH_TO_SPACE)
def lower_depth_to_space(lowering: Lowering, call: relax.Call) -> Result:
    """Blocks of channels become pixels: one gather."""
    shape, attrs = static_shape(call), call.attrs
    assert shape is not None
    down, across = (int(v) for v in attrs["block"])
    top, left = (int(v) for v in attrs["crop"])
    x = lowering.to_image_columns(call.args[0])
    if str(attrs["order"]) == "CRD":
        # The kernel moves whole channels: bring the block to the outer part of the channels first.
        order = np.arange(x.channels).reshape(shape[1], down * across).T.reshape(-1)
        value = lowering.emitter.emit(relax.op.take(x.value, relax.const(order.astype("int64")), axis=1))
        x = Columns(value, x.geometry, x.channels, x.shape, False)
    y, x_at = np.meshgrid(np.arange(shape[2]) + top, np.arange(shape[3]) + left, indexing="ij")
    shift = ((y % down) * across + x_at % across) * shape[1]
    target = choose_geometry(shape[0], shape[2], shape[3], lowering.emitter.lanes)
    return lowering.emitter.move_pixels(x, target, y // down, x_at // across, shape, shape[1], shift)


@handles("relax.image.resize2d")
def lower_resize(lowering: Lowering, call: relax.Call) -> Result:
    """Nearest and linear resizing of images in columns."""
    x, shape, attrs = lowering.columns(call.args[0]), static_shape(call), call.attrs
    if x is None or shape is None or x.tokens or attrs.layout != "NCHW":
        return None
    mode, method = str(attrs.coordinate_transformation_mode), str(attrs.method)
    if mode == "tf_crop_and_resize" or method not in ("nearest_neighbor", "linear"):
        return None
    target = choose_geometry(shape[0], *shape[2:], lowering.emitter.lanes)
    sizes = (x.geometry.height, x.geometry.width)
    positions = [resample.source_positions(sizes[i], shape[2 + i], mode) for i in range(2)]
    if method == "nearest_neighbor":
        rows, columns = (resample.nearest(positions[i], sizes[i], str(attrs.rounding_method)) for i in range(2))
        y, x_at = np.meshgrid(rows, columns, indexing="ij")
        return lowering.emitter.move_pixels(x, target, y, x_at, shape)
    axes = [resample.linear(positions[i], sizes[i]) for i in range(2)]
    blend = Blend(x, target, axes, shape)
    reader, place = lowering.sole_reader(call) or (None, 0)
    if reader is not None and getattr(reader.op, "name", "") == "relax.add" and reader.ty.dtype == "float32":
        other = reader.args[1 - place]
        if static_shape(other) == shape and lowering.held(other) is None:
            return Held(blend)
    return blend.emit(lowering)


@dataclass(frozen=True)
class Blend:
    """A linear resizing.

    Parameters
    ----------
    x : Columns
        Input.
    target : Geometry
        Geometry of the result.
    axes : sequence
        For rows and for columns: the two pixels that each pixel of the result reads, and their weights.
    shape : tuple of int
        Logical shape of the result.
    """

    x: Columns
    target: Geometry
    axes: Sequence[tuple[np.ndarray, np.ndarray]]
    shape: tuple[int, ...]

    def emit(self, lowering: Lowering, other: Columns | None = None) -> Columns:
        """Call the kernel; `other`, of the result's shape, is added."""
        x, target, axes = self.x, self.target, self.axes
        pixels, weights = [], []
        for down, across in product(range(2), repeat=2):
            y, x_at = np.meshgrid(axes[0][0][down], axes[1][0][across], indexing="ij")
            pixels.append(relayout.pixels_from_columns(target, x.geometry, x.channels, y, x_at))
            weight = np.outer(axes[0][1][down], axes[1][1][across]).astype(np.float32)
            weights.append(target.pack(np.broadcast_to(weight, (self.shape[0], 1, *weight.shape)))[: target.panels])
        packed = pack_blend(
            np.stack(pixels, axis=2), np.stack([w[:, 0] for w in weights], axis=2),
            x.geometry, target, x.channels, lowering.context.isa, other is not None,
        )  # fmt: skip
        added = [] if other is None else [lowering.emitter.with_geometry(other, target).value]
        out = lowering.emitter.kernel(packed.kernel, [x.value, *added, *packed.arrays], target.shape(x.channels))
        return Columns(out, target, x.channels, self.shape, False)


@handles("relax.strided_slice")
def lower_strided_slice(lowering: Lowering, call: relax.Call) -> Result:
    """Slices along the channels, or of pixels or tokens."""
    x, shape = lowering.in_place(call.args[0]), static_shape(call)
    if x is None or x.heads > 1 or shape is None:
        return None
    axes, begin, _, *strides = (_integers(argument) for argument in call.args[1:])
    if axes is None or begin is None:
        return None
    steps = strides[0] if strides and strides[0] is not None else [1] * len(axes)
    starts, jumps = [0] * len(x.shape), [1] * len(x.shape)
    for axis, start, step in zip(axes, begin, steps, strict=True):
        if step < 1:
            return None
        extent = x.shape[axis]
        starts[axis] = min(max(start + extent if start < 0 else start, 0), extent)
        jumps[axis] = step
    changed = [i for i in range(len(x.shape)) if (starts[i], jumps[i], shape[i]) != (0, 1, x.shape[i])]
    if all(axis == x.channel_axis for axis in changed) and jumps[x.channel_axis] == 1:
        start = starts[x.channel_axis]
        return lowering.slice_channels(x, start, start + shape[x.channel_axis], shape)
    down, across = _spatial_axes(x)
    if not set(changed) <= {down, across} or across is None:
        return None
    rows = np.arange(shape[down]) * jumps[down] + starts[down] if down is not None else np.zeros(1, np.int64)
    y, x_at = np.meshgrid(rows, np.arange(shape[across]) * jumps[across] + starts[across], indexing="ij")
    if x.tokens and y.size == x.geometry.images == 1 and lowering.is_few(x.geometry.batch):
        return _single_token(lowering, x, y, x_at, shape)
    tokens = x.tokens and down is None
    target = choose_geometry(x.geometry.batch, *y.shape, lowering.emitter.lanes, tokens)
    return lowering.emitter.move_pixels(x, target, y, x_at, shape)


def _spatial_axes(x: Columns) -> tuple[int | None, int | None]:
    """Axes of the logical shape that are the rows and columns of the stored images, where they are."""
    geometry, rank = x.geometry, len(x.shape)
    axes = (rank - 3, rank - 2) if x.tokens else (rank - 2, rank - 1)
    if rank == 4 and tuple(x.shape[axis] for axis in (0, *axes)) == (geometry.batch, geometry.height, geometry.width):
        return axes
    if x.tokens and rank in (2, 3) and geometry.height == 1 and x.shape[-2] == geometry.width:
        return None, rank - 2
    return None, None


def _single_token(
    lowering: Lowering, x: Columns, y: np.ndarray, x_at: np.ndarray, shape: tuple[int, ...]
) -> relax.Expr:
    """One token of each sequence, as plain rows."""
    emitter, geometry = lowering.emitter, x.geometry
    x = emitter.whole(x)
    panel, vector, lane = (int(part.item()) for part in geometry.locate(y, x_at))
    end = [geometry.batch * geometry.panels, vector + 1, lane + 1]
    begin, step = [panel, vector, lane], [geometry.panels, 1, 1]
    values = relax.op.strided_slice(x.value, axes=[0, 2, 3], begin=begin, end=end, strides=step)
    return emitter.emit(relax.op.reshape(emitter.emit(values), shape))


def _integers(expression: relax.Expr) -> list[int] | None:
    fields = getattr(expression, "fields", None)
    if fields is None:
        return None
    return [int(getattr(f, "value", f)) for f in fields]
