"""Resize and Upsample: every mode of ONNX, axis by axis, with constant indices and weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import relax

from tvm_sparse.frontend.onnx_ops.common import constant_value, dtype_of, shape_of, tensor_constant
from tvm_sparse.frontend.onnx_ops.interpolation import AxisResize
from tvm_sparse.frontend.onnx_ops.registry import register

# What relax.image.resize2d computes exactly as ONNX defines it, where sizes are whole multiples of scales.
_PLAIN_COORDINATES = {
    "linear": ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"),
    "nearest": ("asymmetric", "half_pixel"),
}


@register("Upsample")
def upsample(bb: relax.BlockBuilder, inputs: Sequence, attrs: dict[str, Any], opset: int) -> relax.Expr:
    """Upsample (until opset 9) is Resize with asymmetric coordinates."""
    scales = attrs["scales"] if "scales" in attrs else constant_value(inputs[1], "scales")
    shape = shape_of(inputs[0])
    mode = attrs.get("mode", b"nearest").decode()
    axes = [
        AxisResize(size, math.floor(size * scale), float(scale), mode, "asymmetric", "floor")
        for size, scale in zip(shape, scales, strict=True)
    ]
    return _resize(bb, inputs[0], axes, 0.0)


@register("Resize")
def resize(bb: relax.BlockBuilder, inputs: Sequence, attrs: dict[str, Any], opset: int) -> relax.Expr:
    """Resize of any rank, by scales or sizes, along any axes."""
    x = inputs[0]
    shape = shape_of(x)
    if opset < 11:
        roi, scales, sizes = None, _optional(inputs[1], "scales"), None
        attrs = {**attrs, "coordinate_transformation_mode": b"asymmetric", "nearest_mode": b"floor"}
    else:
        roi = _optional(inputs[1], "roi")
        scales = _optional(inputs[2], "scales")
        sizes = _optional(inputs[3], "sizes")
    chosen = [axis % len(shape) for axis in attrs.get("axes", range(len(shape)))]
    options = {
        "mode": attrs.get("mode", b"nearest").decode(),
        "coordinates": attrs.get("coordinate_transformation_mode", b"half_pixel").decode(),
        "rounding": attrs.get("nearest_mode", b"round_prefer_floor").decode(),
        "cubic_a": attrs.get("cubic_coeff_a", -0.75),
        "exclude_outside": bool(attrs.get("exclude_outside", 0)),
        "antialias": bool(attrs.get("antialias", 0)),
    }
    per_axis = _targets([shape[axis] for axis in chosen], scales, sizes, attrs)
    axes = [AxisResize(size, size, 1.0, options["mode"], "asymmetric") for size in shape]
    for i, (axis, (size_out, scale)) in enumerate(zip(chosen, per_axis, strict=True)):
        region = (float(roi[i]), float(roi[i + len(chosen)])) if roi is not None else (0.0, 1.0)
        axes[axis] = AxisResize(shape[axis], size_out, scale, roi=region, **options)
    return _resize(bb, x, axes, float(attrs.get("extrapolation_value", 0.0)))


def _optional(value: relax.Expr | None, what: str) -> np.ndarray | None:
    """A constant input; None when left out, also by an empty tensor."""
    array = None if value is None else constant_value(value, what)
    return array if array is not None and array.size else None


def _targets(
    sizes_in: Sequence[int], scales: np.ndarray | None, sizes: np.ndarray | None, attrs: dict[str, Any]
) -> list[tuple[int, float]]:
    """Output size and scale of each resized axis."""
    if scales is not None:
        return [(math.floor(size * s), float(s)) for size, s in zip(sizes_in, scales, strict=True)]
    if sizes is None:
        raise ValueError("neither scales nor sizes are given")
    policy = attrs.get("keep_aspect_ratio_policy", b"stretch").decode()
    ratios = [int(out) / size for size, out in zip(sizes_in, sizes, strict=True)]
    if policy == "stretch":
        return [(int(out), ratio) for out, ratio in zip(sizes, ratios, strict=True)]
    scale = min(ratios) if policy == "not_larger" else max(ratios)
    return [(math.floor(size * scale + 0.5), scale) for size in sizes_in]


def _resize(bb: relax.BlockBuilder, x: relax.Expr, axes: Sequence[AxisResize], outside: float) -> relax.Expr:
    changed = [
        i for i, a in enumerate(axes) if a.size_in != a.size_out or a.coordinates == "tf_crop_and_resize"
    ]
    if not changed:
        return x
    if len(axes) == 4 and set(changed) <= {2, 3} and all(_is_plain(axes[i]) for i in changed):
        a = axes[changed[0]]
        return relax.op.image.resize2d(
            x,
            size=relax.ShapeExpr([axes[2].size_out, axes[3].size_out]),
            roi=[0.0] * 4,
            layout="NCHW",
            method="linear" if a.mode == "linear" else "nearest_neighbor",
            coordinate_transformation_mode=a.coordinates,
            rounding_method=a.rounding if a.mode == "nearest" else "",
        )
    dtype = dtype_of(x)
    result = x
    if axes[changed[0]].mode != "nearest" and dtype not in ("float32", "float64"):
        result = relax.op.astype(result, "float32")
    for i in changed:
        result = _resize_axis(bb, result, i, axes[i])
    if axes[changed[0]].coordinates == "tf_crop_and_resize":
        result = _fill_outside(bb, result, axes, changed, outside)
    return relax.op.astype(result, dtype)


def _is_plain(axis: AxisResize) -> bool:
    """Whether relax.image.resize2d computes this axis as ONNX does."""
    return (
        axis.coordinates in _PLAIN_COORDINATES.get(axis.mode, ())
        and axis.scale * axis.size_in == axis.size_out
        and axis.size_out > 1
        and not axis.antialias
        and not axis.exclude_outside
    )


def _resize_axis(bb: relax.BlockBuilder, x: relax.Expr, axis: int, how: AxisResize) -> relax.Expr:
    """Weighted sum of the input at constant indices along one axis."""
    indices, weights = how.taps()
    x = bb.normalize(x)
    if how.mode == "nearest":
        return bb.normalize(relax.op.take(x, tensor_constant(indices[:, 0]), axis, mode="clip"))
    along = [1] * x.ty.ndim
    along[axis] = how.size_out
    total = None
    for t in range(indices.shape[1]):
        weight = tensor_constant(weights[:, t].reshape(along).astype(dtype_of(x)))
        values = relax.op.take(x, tensor_constant(indices[:, t]), axis, mode="clip")
        term = relax.op.multiply(values, weight)
        total = term if total is None else relax.op.add(total, term)
    return bb.normalize(total)


def _fill_outside(
    bb: relax.BlockBuilder, x: relax.Expr, axes: Sequence[AxisResize], changed: Sequence[int], value: float
) -> relax.Expr:
    """``tf_crop_and_resize`` gives a constant where the source lies outside of the input."""
    inside = np.ones((1,) * len(axes), dtype=bool)
    for i in changed:
        along = [1] * len(axes)
        along[i] = axes[i].size_out
        inside = inside & axes[i].inside().reshape(along)
    x = bb.normalize(x)
    return relax.op.where(tensor_constant(inside), x, relax.const(value, dtype_of(x)))
