"""The PyTorch front end: programs made by ``torch.export``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import tvm

from tvm_sparse.errors import ImportModelError, MissingPackageError
from tvm_sparse.frontend.imported import Imported
from tvm_sparse.frontend.messages import first_line
from tvm_sparse.frontend.signature import signature

if TYPE_CHECKING:
    from torch.export import ExportedProgram


def import_torch(
    model: str | os.PathLike | ExportedProgram, input_shapes: Mapping[str, Sequence[int]]
) -> Imported:
    """Import an exported program; see `tvm_sparse.frontend.import_model`.

    Parameters
    ----------
    model : path or torch.export.ExportedProgram
        A ``.pt2`` file, or the program itself. Its shapes must be static.
    input_shapes : mapping of str to sequence of int
        Shapes to check against the program's, which was exported for fixed ones.

    Returns
    -------
    Imported
        Module, inputs and outputs, named as in the program.

    Raises
    ------
    MissingPackageError
        PyTorch is not installed.
    ImportModelError
        The file cannot be read or an operator cannot be imported.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingPackageError("torch", 'pip install "tvm-sparse[torch]"') from error
    program = model if isinstance(model, torch.export.ExportedProgram) else _load(Path(model))
    _check_weights(program)
    input_names = list(program.graph_signature.user_inputs)
    output_names = _output_names(program.graph_signature.user_outputs)
    _check_shapes(program, input_names, input_shapes)
    module = _convert(program)
    return Imported(module, *signature(module, input_names, output_names))


def _output_names(names: Sequence[object]) -> list[str]:
    """Names of outputs; an output that is a constant, or stands twice, is named by its position."""
    return [
        name if isinstance(name, str) and name not in names[:i] else f"output_{i}"
        for i, name in enumerate(names)
    ]


def _load(path: Path) -> ExportedProgram:
    import torch

    if not path.is_file():
        raise ImportModelError(
            f"Input file '{path}' doesn't exist, is a broken symbolic link, or a directory."
        )
    try:
        return torch.export.load(path)
    except Exception as error:
        raise ImportModelError(
            f"'{path}' is not a program saved by torch.export.save, or it is truncated ({first_line(error)})."
        ) from error


def _convert(program: ExportedProgram) -> tvm.IRModule:
    from tvm.relax.frontend.torch import from_exported_program

    try:
        return from_exported_program(program, keep_params_as_input=False, unwrap_unit_return_tuple=True)
    except Exception as error:
        raise ImportModelError(f"Cannot import the exported program: {first_line(error)}") from error


def _check_weights(program: ExportedProgram) -> None:
    for name, tensor in [*program.state_dict.items(), *program.constants.items()]:
        if getattr(tensor, "is_floating_point", bool)() and bool(tensor.isnan().any()):
            raise ImportModelError(
                f"The program has NaN in weight '{name}': its training or conversion went wrong."
            )


def _check_shapes(
    program: ExportedProgram, names: Sequence[str], shapes: Mapping[str, Sequence[int]]
) -> None:
    """Shapes are part of an exported program: open ones and others than asked for are errors."""
    values = {node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"}
    for name in shapes:
        if name not in names:
            raise ImportModelError(
                f"The input shapes name '{name}', which is not an input. Expected inputs: {list(names)}."
            )
    for name in names:
        shape = list(values[name].shape)
        if not all(isinstance(size, int) for size in shape):
            raise ImportModelError(
                f"Input '{name}' has open dimensions {shape}: export the program without dynamic_shapes."
            )
        if name in shapes and list(shapes[name]) != shape:
            raise ImportModelError(
                f"The shape {list(shapes[name])} does not fit input '{name}', which was exported "
                f"with shape {shape}."
            )
