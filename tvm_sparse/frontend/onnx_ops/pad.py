"""Pad, as one operator that later stages can fold into a convolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import relax

from tvm_sparse.frontend.onnx_ops.common import constant_value, scalar_constant, shape_of
from tvm_sparse.frontend.onnx_ops.registry import register

_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


@register("Pad")
def pad(bb: relax.BlockBuilder, inputs: Sequence, attrs: dict[str, Any], opset: int) -> relax.Expr:
    """Padding of any axes; negative amounts cut off."""
    x = inputs[0]
    rank = len(shape_of(x))
    mode = attrs.get("mode", b"constant").decode()
    amounts, axes, value = attrs.get("pads"), list(range(rank)), attrs.get("value", 0.0)
    if opset >= 11:
        amounts = constant_value(inputs[1], "pads").tolist()
        if inputs[3] is not None:
            axes = [int(axis) % rank for axis in constant_value(inputs[3], "axes")]
        if inputs[2] is not None:
            value = scalar_constant(inputs[2])
            if value is None:
                raise ValueError("its value must be a constant number")
    before, after = np.zeros((2, rank), dtype="int64")
    before[axes], after[axes] = amounts[: len(axes)], amounts[len(axes) :]
    if (before < 0).any() or (after < 0).any():
        x = _crop(bb, x, np.maximum(-before, 0), np.maximum(-after, 0))
        before, after = np.maximum(before, 0), np.maximum(after, 0)
    if not before.any() and not after.any():
        return x
    widths = np.stack([before, after], axis=1).reshape(-1).tolist()
    return relax.op.nn.pad(x, widths, _MODES[mode], float(value))


def _crop(bb: relax.BlockBuilder, x: relax.Expr, before: np.ndarray, after: np.ndarray) -> relax.Expr:
    sizes = shape_of(x)
    ends = [size - int(cut) for size, cut in zip(sizes, after, strict=True)]
    return bb.normalize(relax.op.strided_slice(x, list(range(len(sizes))), before.tolist(), ends))
