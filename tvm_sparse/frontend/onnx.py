"""The ONNX front end."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import onnx

from tvm_sparse.errors import ImportModelError
from tvm_sparse.frontend.functions import expand_functions
from tvm_sparse.frontend.imported import Imported
from tvm_sparse.frontend.importer import GraphImporter
from tvm_sparse.frontend.messages import first_line
from tvm_sparse.frontend.onnx_load import load_onnx
from tvm_sparse.frontend.opset import convert_opset
from tvm_sparse.frontend.shapes import fix_input_shapes
from tvm_sparse.frontend.signature import signature
from tvm_sparse.frontend.simplify import simplify
from tvm_sparse.frontend.supported import check_supported


def import_onnx(
    model: str | os.PathLike | onnx.ModelProto, input_shapes: Mapping[str, Sequence[int]]
) -> Imported:
    """Import an ONNX model; see `tvm_sparse.frontend.import_model`.

    Parameters
    ----------
    model : path or onnx.ModelProto
        The model.
    input_shapes : mapping of str to sequence of int
        Shapes of inputs that the model leaves open.

    Returns
    -------
    Imported
        Module, inputs and outputs.

    Raises
    ------
    ImportModelError
        See `tvm_sparse.frontend.import_model`.
    """
    original = load_onnx(model)
    try:
        fix_input_shapes(original, input_shapes)
    except ImportModelError:
        # Shapes are of no help to a model that cannot be imported anyway.
        check_supported(expand_functions(original), original)
        raise
    simplified = simplify(expand_functions(convert_opset(original)))
    check_supported(simplified, original)
    try:
        module = GraphImporter().convert(simplified)
    except ImportModelError:
        raise
    except Exception as error:
        raise ImportModelError(f"Cannot import model '{original.graph.name}': {first_line(error)}") from error
    input_names = [value.name for value in original.graph.input]
    output_names = [value.name for value in original.graph.output]
    return Imported(module, *signature(module, input_names, output_names))
