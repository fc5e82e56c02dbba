"""Handing a node on to TVM's converter after its attributes or inputs were put right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import relax
from tvm.relax.frontend.onnx import onnx_frontend as upstream


def delegate(
    op_type: str, bb: relax.BlockBuilder, inputs: Sequence, attrs: dict[str, Any], opset: int
) -> relax.Expr:
    """Convert with TVM's converter of ``op_type``."""
    wrapped = upstream.onnx_input()
    wrapped.extend(inputs)
    converter = upstream._get_convert_map()[op_type].get_converter(opset)
    return converter(bb, wrapped, attrs, [{}, {}])
