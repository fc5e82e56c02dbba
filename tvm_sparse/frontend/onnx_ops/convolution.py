"""Transposed convolution by the size of its output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import relax

from tvm_sparse.frontend.onnx_ops.common import shape_of
from tvm_sparse.frontend.onnx_ops.delegate import delegate
from tvm_sparse.frontend.onnx_ops.registry import register


@register("ConvTranspose")
def conv_transpose(bb: relax.BlockBuilder, inputs: Sequence, attrs: dict[str, Any], opset: int) -> relax.Expr:
    """Transposed convolution; ``output_shape`` decides the padding where it is given."""
    if attrs.get("output_shape"):
        attrs = {**attrs, **_fit(shape_of(inputs[0])[2:], shape_of(inputs[1])[2:], attrs)}
        attrs.pop("auto_pad", None)
    return delegate("ConvTranspose", bb, inputs, attrs, opset)


def _fit(size: Sequence[int], kernel: Sequence[int], attrs: dict[str, Any]) -> dict[str, list[int]]:
    """Padding, or output padding where even none is too small, that gives ``output_shape``."""
    rank = len(size)
    strides = attrs.get("strides", [1] * rank)
    dilations = attrs.get("dilations", [1] * rank)
    extra = list(attrs.get("output_padding", [0] * rank))
    wanted = list(attrs["output_shape"])[-rank:]
    upper = attrs.get("auto_pad", b"NOTSET") == b"SAME_UPPER"
    begin, end = [], []
    for i in range(rank):
        total = strides[i] * (size[i] - 1) + extra[i] + (kernel[i] - 1) * dilations[i] + 1 - wanted[i]
        if total < 0:
            extra[i] -= total
            total = 0
        # The odd one goes to the end for SAME_UPPER, else to the beginning.
        small, large = total // 2, total - total // 2
        begin.append(small if upper else large)
        end.append(large if upper else small)
    return {"pads": begin + end, "output_padding": extra}
