"""Operators that move or lay out elements without arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from tvm import relax

from tvm_sparse.frontend.onnx_ops.common import (
    constant_value,
    dtype_of,
    scalar_constant,
    shape_of,
    tensor_constant,
)
from tvm_sparse.frontend.onnx_ops.registry import register


@register("SpaceToDepth")
def space_to_depth(bb: relax.BlockBuilder, inputs: Sequence, attrs: dict[str, Any], opset: int) -> relax.Expr:
    """Blocks of pixels to channels, block-major (DCR) or channel-major (CRD)."""
    block = attrs["blocksize"]
    n, c, h, w = shape_of(inputs[0])
    order = [0, 1, 3, 5, 2, 4] if attrs.get("mode", b"DCR") == b"CRD" else [0, 3, 5, 1, 2, 4]
    x = relax.op.reshape(inputs[0], [n, c, h // block, block, w // block, block])
    x = relax.op.permute_dims(x, order)
    return relax.op.reshape(x, [n, c * block * block, h // block, w // block])


@register("EyeLike")
def eye_like(bb: relax.BlockBuilder, inputs: Sequence, attrs: dict[str, Any], opset: int) -> relax.Expr:
    """Ones on a diagonal: a constant, since only the shape of the input counts."""
    dtype = str(onnx.helper.tensor_dtype_to_np_dtype(attrs["dtype"])) if "dtype" in attrs else None
    rows, columns = shape_of(inputs[0])
    return tensor_constant(np.eye(rows, columns, attrs.get("k", 0), dtype=dtype or dtype_of(inputs[0])))


@register("Dropout")
def dropout(bb: relax.BlockBuilder, inputs: Sequence, attrs: dict[str, Any], opset: int) -> relax.Expr:
    """Nothing, in inference; the mask, where asked for, is all true."""
    training = inputs[2] if opset >= 12 else None
    flag = scalar_constant(training)
    ratio = scalar_constant(inputs[1]) if opset >= 12 and inputs[1] is not None else None
    if training is not None and (flag is None or (bool(flag) and (ratio is None or ratio != 0))):
        raise ValueError("training mode is not supported: export the model for inference")
    x = inputs[0]
    # Before opset 10 the mask was of the type of the data.
    mask = np.ones(shape_of(x), dtype="bool" if opset >= 10 else dtype_of(x))
    return relax.Tuple([x, tensor_constant(mask)]) if attrs["tvm_custom"]["num_outputs"] > 1 else x


@register("Split")
def split(bb: relax.BlockBuilder, inputs: Sequence, attrs: dict[str, Any], opset: int) -> relax.Expr:
    """Pieces along an axis: of given sizes, else equal ones of which the last may be smaller."""
    x = inputs[0]
    shape = shape_of(x)
    axis = attrs.get("axis", 0) % len(shape)
    if opset < 13 or inputs[1] is None:
        count = attrs["tvm_custom"]["num_outputs"]
        size = -(-shape[axis] // count)
        sizes = list(attrs.get("split", [])) or [
            max(min(size, shape[axis] - i * size), 0) for i in range(count)
        ]
    else:
        sizes = [int(size) for size in constant_value(inputs[1], "split sizes")]
    ends = np.cumsum(sizes).tolist()
    pieces = []
    for size, end in zip(sizes, ends, strict=True):
        piece = relax.op.strided_slice(x, [axis], [end - size], [end])
        pieces.append(bb.normalize(piece))
    return pieces[0] if len(pieces) == 1 else relax.Tuple(pieces)


@register("NonMaxSuppression", "NonZero", "Unique", "Compress")
def data_dependent(bb: relax.BlockBuilder, inputs: Sequence, attrs: dict[str, Any], opset: int) -> relax.Expr:
    """Operators whose number of results depends on the values of their inputs."""
    raise ValueError("the size of its output depends on the data, which is not supported")
