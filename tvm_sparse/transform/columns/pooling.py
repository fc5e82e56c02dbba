"""Pooling and means over pixels."""

from __future__ import annotations

import numpy as np
from tvm import relax

from tvm_sparse.layout.geometry import Geometry, choose_geometry
from tvm_sparse.layout.halo import Window
from tvm_sparse.layout.table import pack_table
from tvm_sparse.plan.layer import Convolution
from tvm_sparse.plan.pack_columns import pack_sparse
from tvm_sparse.plan.pack_pool import pack_max_pool
from tvm_sparse.schedules.cpu import relayout as kernels

from ..ops import static_shape, window_of
from .layers import align
from .to_columns import Columns, Lowering, Result, handles


@handles("relax.nn.max_pool2d", "relax.nn.avg_pool2d")
def lower_pool(lowering: Lowering, call: relax.Call) -> Result:
    """Pooling windows over images in columns."""
    x, shape, attrs = lowering.columns(call.args[0]), static_shape(call), call.attrs
    if x is None or shape is None or x.tokens or attrs.layout != "NCHW":
        return None
    window = window_of(
        {"padding": attrs.padding, "strides": attrs.strides, "dilation": attrs.dilation},
        (int(attrs.pool_size[0]), int(attrs.pool_size[1])),
    )
    window = _padded_to(window, x.geometry, shape[2:])
    target = choose_geometry(shape[0], *shape[2:], lowering.emitter.lanes)
    x = align(lowering, x, target, window)
    if call.op.name == "relax.nn.max_pool2d":
        packed = pack_max_pool(window, x.geometry, target, x.channels, lowering.context.isa)
        shape_out = target.shape(x.channels)
        arguments = [x.value, *packed.arrays]
        out = lowering.emitter.kernel(packed.kernel, arguments, shape_out, stripes=packed.stripes)
        return Columns(out, target, x.channels, shape, False)
    area = window.kernel[0] * window.kernel[1]
    weight = np.full((x.channels, 1, *window.kernel), 1.0 / area, np.float32)
    layer = Convolution(weight, np.zeros(x.channels, np.float32), window, x.channels)
    packed = pack_sparse(layer, x.geometry, target, lowering.context.isa)
    out = lowering.emitter.kernel(packed.kernel, [x.value, *packed.arrays], target.shape(x.channels))
    counts = _counts(window, x.geometry, shape[2:], bool(attrs.count_include_pad), attrs)
    if (counts != area).any():
        scale = target.pack(
            np.broadcast_to(area / counts, (shape[0], 1, *counts.shape)).astype(np.float32), 1.0
        )
        out = lowering.emitter.emit(relax.op.multiply(out, relax.const(scale)))
    return Columns(out, target, x.channels, shape, False)


def _padded_to(window: Window, source: Geometry, size: tuple[int, ...]) -> Window:
    """Padding at the bottom and right such that the window gives the size (ceil mode reads further)."""
    top, left, bottom, right = window.padding
    need = [
        (size[i] - 1) * window.stride[i] + (window.kernel[i] - 1) * window.dilation[i] + 1 for i in range(2)
    ]
    bottom = max(bottom, need[0] - source.height - top)
    right = max(right, need[1] - source.width - left)
    return Window(window.kernel, window.stride, window.dilation, (top, left, bottom, right))


def _counts(
    window: Window, source: Geometry, size: tuple[int, ...], include: bool, attrs: object
) -> np.ndarray:
    """Pixels that each window of an average counts, ``[height, width]``."""
    padding = [int(p) for p in attrs.padding]  # type: ignore[attr-defined]
    top, left, bottom, right = padding if len(padding) == 4 else padding * 2
    per_axis = []
    for i, (extent, before, after) in enumerate(((source.height, top, bottom), (source.width, left, right))):
        low, high = (-before, extent + after) if include else (0, extent)
        start = np.arange(size[i])[:, None] * window.stride[i] - before
        at = start + np.arange(window.kernel[i])[None, :] * window.dilation[i]
        per_axis.append(((at >= low) & (at < high)).sum(1))
    return np.maximum(np.outer(*per_axis), 1)


@handles("relax.mean")
def lower_mean(lowering: Lowering, call: relax.Call) -> Result:
    """Mean over all pixels."""
    x = lowering.columns(call.args[0])
    if x is None or x.tokens or call.attrs.axis is None:
        return None
    if sorted(int(axis) % 4 for axis in call.attrs.axis) != [2, 3]:
        return None
    mean = _mean(lowering, x)
    if bool(call.attrs.keepdims):
        return mean
    return lowering.emitter.emit(relax.op.reshape(mean, (x.geometry.batch, x.channels)))


@handles("relax.nn.adaptive_avg_pool2d")
def lower_adaptive(lowering: Lowering, call: relax.Call) -> Result:
    """Global average pooling."""
    x, shape = lowering.columns(call.args[0]), static_shape(call)
    if x is None or x.tokens or shape is None or shape[2:] != (1, 1):
        return None
    return _mean(lowering, x)


def _mean(lowering: Lowering, x: Columns) -> relax.Var:
    geometry = x.geometry
    table = pack_table(
        kernels.MEAN_FIELDS,
        {
            "sets": geometry.sets,
            "panels": geometry.panels,
            "channels": x.channels,
            "vectors": geometry.vectors,
            "masks": -geometry.used.astype(np.int64),
        },
    )
    scale = np.array([1.0 / geometry.pixels], np.float32)
    shape = (geometry.batch, x.channels, 1, 1)
    kernel = kernels.MeanColumns(geometry.images, geometry.image_lanes if geometry.images > 1 else 0)
    return lowering.emitter.kernel(kernel, [x.value, scale, table], shape)
