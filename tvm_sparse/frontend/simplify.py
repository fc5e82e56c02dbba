"""Simplifying an ONNX graph of fixed input shapes before import."""

from __future__ import annotations

import logging
import warnings

import onnx

from tvm_sparse.frontend.fold import MAX_FOLDED_BYTES

_logger = logging.getLogger(__name__)


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold constants and shape arithmetic and remove redundant nodes with onnxslim.

    Import does not depend on it: when onnxslim is absent or fails, the model is returned with plain
    ONNX shape inference instead.

    Parameters
    ----------
    model : onnx.ModelProto
        A model with static input shapes; not changed.

    Returns
    -------
    onnx.ModelProto
        An equivalent model with the same inputs and outputs in the same order.
    """
    try:
        slimmed = _slim(model)
    except Exception as error:  # noqa: BLE001  (any failure of the optional optimiser leaves the model as it is)
        _logger.info("onnxslim failed, using plain shape inference: %s", error)
    else:
        if _same_signature(model, slimmed):
            return slimmed
        _logger.info("onnxslim changed the inputs or outputs, using plain shape inference")
    return _infer_shapes(model)


def _slim(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnxslim

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # With shapes onnxslim makes Gemm with reshapes and transposes out of batched MatMul + Add, which
        # only hides linear layers, and takes seven times as long on a transformer.
        slimmed = onnxslim.slim(copy, no_shape_infer=True, size_threshold=MAX_FOLDED_BYTES)
    if slimmed is None:
        raise RuntimeError("onnxslim gave no model")
    _restore_inputs(slimmed, model)
    return slimmed


def _restore_inputs(slimmed: onnx.ModelProto, model: onnx.ModelProto) -> None:
    """Put back, in the original order, inputs that nothing reads: callers still pass them."""
    del slimmed.graph.input[:]
    slimmed.graph.input.extend(model.graph.input)


def _same_signature(before: onnx.ModelProto, after: onnx.ModelProto) -> bool:
    def signature(model: onnx.ModelProto) -> list:
        return [(value.name, value.type.tensor_type.elem_type) for value in model.graph.output]

    return signature(before) == signature(after)


def _infer_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception as error:  # noqa: BLE001  (shapes are inferred again during import)
        _logger.info("ONNX shape inference failed: %s", error)
        return model
