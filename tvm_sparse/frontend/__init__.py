"""Front ends: a model file or object becomes a Relax module with static shapes and constants bound."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from tvm_sparse.errors import ImportModelError
from tvm_sparse.frontend.imported import Imported

__all__ = ["Imported", "import_model"]

_FORMAT_OF_SUFFIX = {".onnx": "onnx", ".pt2": "pytorch"}


def import_model(
    model: Any,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    model_format: str | None = None,
) -> Imported:
    """Import a model.

    Parameters
    ----------
    model : str, os.PathLike, onnx.ModelProto or torch.export.ExportedProgram
        A path to an ONNX file (``.onnx``) or a saved ``torch.export`` program (``.pt2``), or such an object.
    input_shapes : mapping of str to sequence of int, optional
        Shapes of inputs by name; needed where the model leaves dimensions open.
    model_format : {"onnx", "pytorch"}, optional
        Format of a file whose suffix does not tell it.

    Returns
    -------
    Imported
        Module, inputs and outputs.

    Raises
    ------
    ImportModelError
        The file cannot be read, an operator cannot be imported, a shape stays open, or a weight is NaN.
    MissingPackageError
        The package that reads this format is not installed.
    """
    shapes = {name: tuple(int(size) for size in shape) for name, shape in (input_shapes or {}).items()}
    if _format(model, model_format) == "onnx":
        from tvm_sparse.frontend.onnx import import_onnx

        return import_onnx(model, shapes)
    from tvm_sparse.frontend.torch import import_torch

    return import_torch(model, shapes)


def _format(model: Any, model_format: str | None) -> str:
    """Name of the front end for ``model``: by the given format, the suffix, or the object's type."""
    if model_format is not None:
        if model_format not in _FORMAT_OF_SUFFIX.values():
            known = ", ".join(sorted(_FORMAT_OF_SUFFIX.values()))
            raise ImportModelError(f"Unknown model format '{model_format}'. Known formats: {known}.")
        return model_format
    if isinstance(model, str | os.PathLike):
        suffix = os.path.splitext(os.fspath(model))[1].lower()
        if suffix not in _FORMAT_OF_SUFFIX:
            known = ", ".join(f"{name} for {key}" for key, name in _FORMAT_OF_SUFFIX.items())
            raise ImportModelError(
                f"Cannot tell the format of '{os.fspath(model)}' by its suffix ({known}): "
                "give the model format."
            )
        return _FORMAT_OF_SUFFIX[suffix]
    # By module name, so that neither onnx nor torch has to be imported to find out.
    origin = type(model).__module__.split(".")[0]
    if origin == "onnx":
        return "onnx"
    if origin == "torch":
        return "pytorch"
    raise ImportModelError(
        f"Cannot import an object of type {type(model).__name__}: expected a path, an onnx.ModelProto "
        "or a torch.export.ExportedProgram."
    )
