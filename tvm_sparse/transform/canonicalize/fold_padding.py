"""FoldPadding: explicit pads go into the convolutions and poolings behind them."""

from __future__ import annotations

import math
from typing import Any

import tvm
from tvm import relax

from ..rewrite import Rewriter, integers, operator_name, rewrite_module, shape_of

_CONV, _MAX, _AVG = "relax.nn.conv2d", "relax.nn.max_pool2d", "relax.nn.avg_pool2d"
_LOWEST = -3.4e38


@tvm.transform.module_pass(opt_level=0, name="FoldPadding")
class FoldPadding:
    """Fold constant pads of the two image axes into what reads them.

    Zeros go into convolutions and into average poolings that count them; minus infinity goes into maximum
    poolings, as do zeros around values that are never negative. Where others read the padded tensor too, the
    pad stays for them.
    """

    def transform_module(self, module: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Rewrite every Relax function."""
        return rewrite_module(module, _fold)


def _fold(rewriter: Rewriter, _variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
    name = operator_name(value)
    if name not in (_CONV, _MAX, _AVG):
        return None
    pad = rewriter.call(value.args[0], "relax.nn.pad")
    layout = value.attrs.data_layout if name == _CONV else value.attrs.layout
    if pad is None or str(pad.attrs.pad_mode) != "constant" or layout != "NCHW":
        return None
    widths = integers(pad.attrs.pad_width)
    if widths is None or len(widths) != 8 or any(widths[:4]) or min(widths) < 0:
        return None
    top, bottom, left, right = widths[4:]
    old = integers(value.attrs.padding) or [0, 0, 0, 0]
    old = old * 2 if len(old) == 2 else old
    padding = [a + b for a, b in zip(old, (top, left, bottom, right), strict=True)]
    x, fill, attrs = pad.args[0], float(pad.attrs.pad_value), value.attrs
    if name == _CONV:
        if fill != 0:
            return None
        return relax.op.nn.conv2d(
            x,
            value.args[1],
            strides=integers(attrs.strides),
            padding=padding,
            dilation=integers(attrs.dilation),
            groups=int(attrs.groups),
            data_layout="NCHW",
            kernel_layout=str(attrs.kernel_layout),
            out_layout=str(attrs.out_layout) or None,
        )
    if attrs.ceil_mode or not _every_window_sees(attrs, padding):
        return None
    if name == _MAX and not (
        fill <= _LOWEST or (fill == 0 and not any(old) and _never_negative(rewriter, x))
    ):
        return None
    # An average counts these zeros; so it must count its own padding too, or have none.
    if name == _AVG and (fill != 0 or (any(old) and not attrs.count_include_pad)):
        return None
    pool = relax.op.nn.max_pool2d if name == _MAX else relax.op.nn.avg_pool2d
    result = pool(
        x,
        pool_size=integers(attrs.pool_size),
        strides=integers(attrs.strides),
        padding=padding,
        dilation=integers(attrs.dilation),
        count_include_pad=True if name == _AVG else bool(attrs.count_include_pad),
        layout="NCHW",
    )
    return result if shape_of(rewriter.typed(result)) == shape_of(value) else None


def _every_window_sees(attrs: Any, padding: list[int]) -> bool:
    """Whether every window holds at least one element that is not padding."""
    sizes = [
        (k - 1) * d + 1 for k, d in zip(integers(attrs.pool_size), integers(attrs.dilation), strict=True)
    ]
    return set(integers(attrs.dilation) or []) == {1} and all(
        padding[i] < sizes[i] and padding[i + 2] < sizes[i] for i in range(2)
    )


def _never_negative(rewriter: Rewriter, x: relax.Expr) -> bool:
    value = rewriter.producer(x)
    name = operator_name(value)
    if name in (_MAX, _AVG):
        return _never_negative(rewriter, value.args[0])
    if name == "relax.clip":
        low = getattr(value.args[1], "value", -math.inf)
        return float(low) >= 0
    return name in ("relax.nn.relu", "relax.nn.relu6", "relax.sigmoid", "tvm_sparse.hard_sigmoid")
