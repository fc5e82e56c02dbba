"""ResizeAfterPointwise: an image is enlarged after the 1x1 convolution behind it, not before."""

from __future__ import annotations

from math import prod
from typing import Any

import tvm
from tvm import relax

from ..graph import constant
from ..rewrite import Rewriter, integers, operator_name, rewrite_module, shape_of

_CONV, _RESIZE = "relax.nn.conv2d", "relax.image.resize2d"
_SIMPLE = ("relax.add", "relax.multiply")
# Input channels from which a convolution to more channels saves more arithmetic than resizing these costs.
_MANY_CHANNELS = 64


@tvm.transform.module_pass(opt_level=1, name="ResizeAfterPointwise")
class ResizeAfterPointwise:
    """Let 1x1 convolutions and per-channel constants work on the smaller image.

    A resized pixel is a weighted mean of pixels, whose weights add up to one, and what works on each pixel alone in a
    linear way can be done before as well as after: it then works on a quarter of the pixels where an image is doubled,
    and fewer channels are resized where the convolution reduces them, as in the pyramids of detectors.
    """

    def transform_module(self, module: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Rewrite every Relax function."""
        return rewrite_module(module, _move)


def _move(rewriter: Rewriter, _variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
    name = operator_name(value)
    if name == _CONV:
        resize = _enlarging(rewriter, value.args[0])
        if resize is None or not _is_pointwise(value) or not _pays(value):
            return None
        before = relax.Call(value.op, [resize.args[0], *value.args[1:]], value.attrs)
        return _resized(resize, rewriter.emit(before))
    if name in _SIMPLE:
        for place, argument in enumerate(value.args):
            resize, other = _enlarging(rewriter, argument), value.args[1 - place]
            if resize is not None and _is_per_channel(other, shape_of(argument)):
                arguments = [resize.args[0], other] if place == 0 else [other, resize.args[0]]
                return _resized(resize, rewriter.emit(relax.Call(value.op, arguments, value.attrs)))
    return None


def _enlarging(rewriter: Rewriter, expression: relax.Expr) -> relax.Call | None:
    """The call that makes a larger image which nobody else reads, of images with the channels first."""
    resize = rewriter.call(expression, _RESIZE)
    if resize is None or not isinstance(expression, relax.Var) or not rewriter.only_use(expression):
        return None
    source, target = shape_of(resize.args[0]), shape_of(expression)
    if source is None or target is None or prod(source[2:]) >= prod(target[2:]):
        return None
    attrs = resize.attrs
    # Outside of a cropped region pixels have a given value, whatever the weights.
    means = str(attrs.coordinate_transformation_mode) != "tf_crop_and_resize"
    return resize if means and str(attrs.layout) == "NCHW" else None


def _resized(resize: relax.Call, image: relax.Expr) -> relax.Call:
    return relax.Call(resize.op, [image, *resize.args[1:]], resize.attrs)


def _is_pointwise(conv: relax.Call) -> bool:
    attrs, weight = conv.attrs, shape_of(conv.args[1])
    plain = not any(integers(attrs.padding) or []) and set(integers(attrs.strides) or []) == {1}
    return plain and str(attrs.data_layout) == str(attrs.out_layout or "NCHW") == "NCHW" and (
        str(attrs.kernel_layout) == "OIHW" and weight is not None and tuple(weight[2:]) == (1, 1)
    )  # fmt: skip


def _pays(conv: relax.Call) -> bool:
    """Whether resizing the convolution's outputs costs less than it saves."""
    source, weight = shape_of(conv.args[0]), shape_of(conv.args[1])
    assert source is not None and weight is not None
    return weight[0] <= source[1] or weight[1] >= _MANY_CHANNELS


def _is_per_channel(expression: relax.Expr, shape: tuple[int, ...] | None) -> bool:
    """Whether a value is a constant of the channels that broadcasts against images of a shape."""
    array = constant(expression)
    if array is None or shape is None or array.ndim > 4:
        return False
    full = (1,) * (4 - array.ndim) + array.shape
    return full[0] == full[2] == full[3] == 1 and full[1] in (1, shape[1])
