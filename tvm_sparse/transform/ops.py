"""The Relax operators of this package: layers with constant weights and everything that follows them fused in.

``tvm_sparse.conv2d(x, weight, bias[, residual][, slopes])`` takes ``x [N, C, H, W]`` and ``weight [M, C / groups, kh,
kw]``; ``tvm_sparse.linear(x, weight, bias[, residual][, slopes])`` takes ``x [..., K]`` and ``weight [M, K]``. Both
compute ``activation(layer(x) + bias + residual)``. Attributes: ``strides``, ``padding`` (top, left, bottom, right),
``dilation``, ``groups`` (convolutions); ``activation``, ``parameters``, ``residual``, ``slopes``; ``name``.

``tvm_sparse.depth_to_space(x)`` moves blocks of channels of ``x [N, C, H, W]`` to pixels and crops: attributes
``block`` (down, across), ``order`` (``"DCR"``: the block is the outer part of the channels; ``"CRD"``: the inner one),
``crop`` (top, left) and ``size`` (height, width) of the result.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax

from tvm_sparse.layout.halo import Window

CONV2D = "tvm_sparse.conv2d"
LINEAR = "tvm_sparse.linear"
DEPTH_TO_SPACE = "tvm_sparse.depth_to_space"


def window_of(attrs: Any, kernel: tuple[int, int]) -> Window:
    """Window of a ``tvm_sparse.conv2d`` or a Relax convolution or pooling call."""
    padding = tuple(int(p) for p in attrs["padding"])
    if len(padding) == 2:
        padding = padding * 2
    return Window(
        kernel,
        (int(attrs["strides"][0]), int(attrs["strides"][1])),
        (int(attrs["dilation"][0]), int(attrs["dilation"][1])),
        (padding[0], padding[1], padding[2], padding[3]),
    )


def static_shape(expression: relax.Expr) -> tuple[int, ...] | None:
    """Static shape of a tensor expression, or None."""
    type_ = expression.ty
    if not isinstance(type_, relax.TensorType) or type_.shape is None:
        return None
    try:
        return tuple(int(extent) for extent in type_.shape)
    except TypeError:
        return None


def make_layer(op: str, arguments: list[relax.Expr], attributes: dict[str, Any]) -> relax.Call:
    """A call of one of the operators."""
    return relax.Call(tvm.ir.Op.get(op), arguments, tvm.ir.make_node("ir.DictAttrs", **attributes))


def _infer_conv2d(call: relax.Call, _context: Any) -> relax.Type:
    x, weight = static_shape(call.args[0]), static_shape(call.args[1])
    assert x is not None and weight is not None
    height, width = window_of(call.attrs, (weight[2], weight[3])).output_size(x[2], x[3])
    return relax.TensorType((x[0], weight[0], height, width), "float32")


def _infer_linear(call: relax.Call, _context: Any) -> relax.Type:
    x, weight = static_shape(call.args[0]), static_shape(call.args[1])
    assert x is not None and weight is not None
    return relax.TensorType((*x[:-1], weight[0]), "float32")


def _infer_depth_to_space(call: relax.Call, _context: Any) -> relax.Type:
    x = static_shape(call.args[0])
    assert x is not None
    block, size = call.attrs["block"], call.attrs["size"]
    channels = x[1] // (int(block[0]) * int(block[1]))
    return relax.TensorType((x[0], channels, int(size[0]), int(size[1])), "float32")


def _register(name: str, description: str, infer: Any) -> None:
    if name in [str(n) for n in tvm.get_global_func("ir.ListOpNames")()]:
        return
    tvm.get_global_func("ir.RegisterOp")(name, description)
    tvm.ir.register_op_attr(name, "FInferType", infer)
    tvm.ir.register_op_attr(name, "FPurity", True)


_register(CONV2D, "Convolution with constant weights and a fused epilogue.", _infer_conv2d)
_register(LINEAR, "Linear layer with constant weights and a fused epilogue.", _infer_linear)
_register(DEPTH_TO_SPACE, "Blocks of channels become pixels, cropped.", _infer_depth_to_space)
