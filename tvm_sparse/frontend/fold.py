"""Evaluating ONNX nodes whose inputs are known at compile time."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import onnx
import tvm
from onnx.reference import ReferenceEvaluator
from tvm import relax

_logger = logging.getLogger(__name__)

# Kept: quantised weights stay quantised, random nodes are not constants, and control flow has its own rule.
_NEVER = frozenset(
    {
        "DequantizeLinear",
        "QuantizeLinear",
        "DynamicQuantizeLinear",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
        "Multinomial",
        "Bernoulli",
        "If",
        "Loop",
        "Scan",
    }
)
# A constant that expands to more than this stays an operator.
MAX_FOLDED_BYTES = 64 << 20


def fold_node(
    node: onnx.NodeProto, inputs: Sequence[relax.Expr | None], opset: int
) -> dict[str, np.ndarray] | None:
    """Evaluate a node when it depends on nothing but constants and static shapes.

    Parameters
    ----------
    node : onnx.NodeProto
        A node of the default operator set.
    inputs : sequence of relax.Expr or None
        Its inputs; None where an optional one is left out.
    opset : int
        Version of the operator set.

    Returns
    -------
    dict of str to numpy.ndarray, or None
        Values by output name, or None when the node has to run later.
    """
    if node.domain not in ("", "ai.onnx") or node.op_type in _NEVER:
        return None
    if node.op_type in ("Shape", "Size"):
        return _fold_shape(node, inputs[0])
    if any(value is not None and not isinstance(value, tvm.ir.GenericConst) for value in inputs):
        return None
    feeds = {
        name: value.value.numpy() for name, value in zip(node.input, inputs, strict=True) if value is not None
    }
    try:
        results = _evaluate(node, feeds, opset)
    except Exception as error:  # noqa: BLE001  (the converter gets its turn when the evaluator cannot)
        _logger.debug("cannot fold %s %s: %s", node.op_type, node.name, error)
        return None
    if not all(isinstance(value, np.ndarray | np.generic) for value in results.values()):
        return None
    folded = {name: np.asarray(value) for name, value in results.items()}
    grown = sum(value.nbytes for value in folded.values()) - sum(value.nbytes for value in feeds.values())
    return folded if grown <= MAX_FOLDED_BYTES else None


def _fold_shape(node: onnx.NodeProto, value: relax.Expr | None) -> dict[str, np.ndarray] | None:
    if value is None or not isinstance(value.ty, relax.TensorType) or value.ty.shape is None:
        return None
    shape = [int(size) for size in value.ty.shape if isinstance(size, tvm.tirx.IntImm | int)]
    if len(shape) != value.ty.ndim:
        return None
    if node.op_type == "Size":
        return {node.output[0]: np.array(np.prod(shape, dtype="int64"), dtype="int64")}
    window = {attribute.name: attribute.i for attribute in node.attribute}
    part = shape[window.get("start", 0) : window.get("end", len(shape))]
    return {node.output[0]: np.array(part, dtype="int64")}


def _evaluate(node: onnx.NodeProto, feeds: dict[str, np.ndarray], opset: int) -> dict[str, np.ndarray]:
    """Run one node in the ONNX reference implementation."""
    evaluator = ReferenceEvaluator(
        onnx.helper.make_model(
            onnx.helper.make_graph(
                [node],
                "fold",
                [onnx.helper.make_empty_tensor_value_info(name) for name in feeds],
                [onnx.helper.make_empty_tensor_value_info(name) for name in node.output if name],
            ),
            opset_imports=[onnx.helper.make_opsetid("", opset)],
        )
    )
    names = [name for name in node.output if name]
    return dict(zip(names, evaluator.run(None, feeds), strict=True))
