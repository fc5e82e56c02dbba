"""Bringing old ONNX models to an operator set that the importer knows."""

from __future__ import annotations

import onnx

from tvm_sparse.errors import ImportModelError
from tvm_sparse.frontend.messages import first_line
from tvm_sparse.frontend.onnx_load import opset_version

# Before 7, binary operators broadcast by attributes of their own.
_OLDEST = 7
_TARGET = 13


def convert_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convert a model of an operator set before 7 to 13; others are returned as they are.

    Raises
    ------
    ImportModelError
        ONNX cannot convert the model.
    """
    version = opset_version(model)
    if version >= _OLDEST:
        return model
    try:
        return onnx.version_converter.convert_version(model, _TARGET)
    except Exception as error:
        raise ImportModelError(
            f"The model uses ONNX operator set {version}, which cannot be converted to {_TARGET} "
            f"({first_line(error)}): export it again with operator set {_TARGET} or later."
        ) from error
