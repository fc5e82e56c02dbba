"""FoldBatchNorm: scales and shifts per channel go into the weights and biases of the layers before them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tvm
from tvm import relax

from ..graph import constant
from ..rewrite import Rewriter, dtype_of, operator_name, rewrite_module, shape_of, tensor

_LAYERS = ("relax.nn.conv2d", "relax.nn.conv1d", "relax.nn.conv2d_transpose", "relax.matmul")


@tvm.transform.module_pass(opt_level=0, name="FoldBatchNorm")
class FoldBatchNorm:
    """Fold batch norms and other constants per channel into convolutions and linear layers.

    A batch norm in inference with constant statistics is ``x * scale + shift`` per channel. A scale behind a
    layer (and its bias) goes into the weight where nobody else reads the layer; successive shifts become one.
    What has no layer before it stays a multiplication and an addition of ``[1, C, 1, 1]``.
    """

    def transform_module(self, module: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Rewrite every Relax function."""
        return rewrite_module(module, _expand, _normal_form, _scale_into_layer, _merge_shifts)


def _expand(rewriter: Rewriter, _variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
    """``batch_norm`` as ``x * scale + shift``."""
    if not isinstance(value, relax.TupleGetItem) or value.index != 0:
        return None
    norm = rewriter.call(value.tuple_value, "relax.nn.batch_norm")
    if norm is None or norm.attrs.training:
        return None
    arrays = [constant(argument) for argument in norm.args[1:5]]
    shape = shape_of(norm.args[0])
    if any(array is None for array in arrays) or shape is None:
        return None
    gamma, beta, mean, variance = (np.asarray(array, "float64") for array in arrays)
    scale = 1.0 / np.sqrt(variance + norm.attrs.epsilon)
    if norm.attrs.scale:
        scale = scale * gamma
    shift = -mean * scale
    if norm.attrs.center:
        shift = shift + beta
    axis = int(norm.attrs.axis) % len(shape)
    channels = [1] * len(shape)
    channels[axis] = shape[axis]
    dtype = dtype_of(norm.args[0])
    scaled = relax.op.multiply(norm.args[0], tensor(scale.reshape(channels).astype(dtype)))
    return relax.op.add(scaled, tensor(shift.reshape(channels).astype(dtype)))


def _normal_form(rewriter: Rewriter, _variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
    """Behind a layer, ``x - c`` is ``x + (-c)`` and ``x / c`` is ``x * (1 / c)``."""
    name = operator_name(value)
    if name not in ("relax.subtract", "relax.divide"):
        return None
    array = constant(value.args[1])
    if array is None or not dtype_of(value).startswith("float"):
        return None
    found = _layer(rewriter, value.args[0])
    if found is None or _per_channel(array, found[0], shape_of(value)) is None:
        return None
    if name == "relax.subtract":
        return relax.op.add(value.args[0], tensor(-array))
    if not np.all(array):
        return None
    return relax.op.multiply(value.args[0], tensor((1 / array.astype("float64")).astype(array.dtype)))


def _layer(rewriter: Rewriter, x: relax.Expr) -> tuple[relax.Call, np.ndarray | None] | None:
    """The layer that makes ``x``, and its bias if there is one; None if others read either value."""
    bias = None
    addition = rewriter.call(x, "relax.add")
    if addition is not None:
        bias = constant(addition.args[1])
        if bias is None or not rewriter.only_use(x):
            return None
        x = addition.args[0]
    layer = rewriter.call(x, *_LAYERS)
    if layer is None or not rewriter.only_use(x):
        return None
    weight = constant(layer.args[1])
    if weight is None or not str(weight.dtype).startswith("float") or _channels(layer) is None:
        return None
    if operator_name(layer) == "relax.matmul" and weight.ndim != 2:
        return None
    if bias is not None and _per_channel(bias, layer, shape_of(layer)) is None:
        return None
    return layer, bias


def _channels(layer: relax.Call) -> tuple[int, int] | None:
    """Axis and number of the output channels of a layer; None for layouts that this pass does not treat."""
    shape = shape_of(layer)
    if shape is None:
        return None
    if operator_name(layer) == "relax.matmul":
        return len(shape) - 1, shape[-1]
    attrs = layer.attrs
    layouts = (str(attrs.data_layout), str(attrs.out_layout))
    kernel = "IO" if operator_name(layer) == "relax.nn.conv2d_transpose" else "OI"
    if any(layout and not layout.startswith("NC") for layout in layouts):
        return None
    return (1, shape[1]) if str(attrs.kernel_layout).startswith(kernel) else None


def _per_channel(array: np.ndarray, layer: relax.Call, shape: tuple[int, ...] | None) -> np.ndarray | None:
    """A constant as one number per output channel ``[M]``; None if it differs elsewhere or broadcasts."""
    found, result = _channels(layer), shape_of(layer)
    if found is None or result is None or shape != result or array.ndim > len(result):
        return None
    axis, channels = found
    full = (1,) * (len(result) - array.ndim) + array.shape
    if math.prod(full) != full[axis] or full[axis] not in (1, channels):
        return None
    return np.broadcast_to(array.reshape(-1), (channels,))


def _scale_into_layer(rewriter: Rewriter, _variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
    if operator_name(value) != "relax.multiply":
        return None
    array = constant(value.args[1])
    found = _layer(rewriter, value.args[0]) if array is not None else None
    if array is None or found is None:
        return None
    layer, bias = found
    scale = _per_channel(array, layer, shape_of(value))
    if scale is None:
        return None
    weight = constant(layer.args[1])
    assert weight is not None
    scaled = _scale_weight(layer, weight, scale)
    result: relax.Expr = relax.Call(layer.op, [layer.args[0], tensor(scaled)], layer.attrs)
    if bias is not None:
        channels = _channels(layer)
        assert channels is not None
        axis, count = channels
        shape = [1] * (len(shape_of(layer) or ()) if operator_name(layer) != "relax.matmul" else 1)
        shape[axis if len(shape) > 1 else 0] = count
        per_channel = np.broadcast_to(np.asarray(bias).reshape(-1), (count,)) * scale
        result = relax.op.add(result, tensor(per_channel.reshape(shape).astype(weight.dtype)))
    return result


def _scale_weight(layer: relax.Call, weight: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The weight with each output channel scaled."""
    name = operator_name(layer)
    if name == "relax.matmul":
        return (weight * scale).astype(weight.dtype)
    if (
        name == "relax.nn.conv2d_transpose"
    ):  # [C, M / groups, kh, kw]: input channels of a group make its outputs
        groups = int(layer.attrs.groups)
        grouped = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
        factors = scale.reshape(groups, 1, weight.shape[1], *([1] * (weight.ndim - 2)))
        return (grouped * factors).reshape(weight.shape).astype(weight.dtype)
    return (weight * scale.reshape(-1, *([1] * (weight.ndim - 1)))).astype(weight.dtype)


def _merge_shifts(rewriter: Rewriter, _variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
    """``(layer + a) + b`` is ``layer + (a + b)``."""
    if operator_name(value) != "relax.add":
        return None
    array, inner = constant(value.args[1]), rewriter.call(value.args[0], "relax.add")
    if array is None or inner is None:
        return None
    found = _layer(rewriter, value.args[0])
    if found is None or found[1] is None or _per_channel(array, found[0], shape_of(value)) is None:
        return None
    return relax.op.add(inner.args[0], tensor((found[1] + array).astype(array.dtype)))
