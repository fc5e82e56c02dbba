"""Names, shapes and dtypes of an imported module's inputs and outputs."""

from __future__ import annotations

from collections.abc import Sequence

import tvm
from tvm import relax

from tvm_sparse.errors import ImportModelError
from tvm_sparse.runtime.spec import TensorSpec


def signature(
    module: tvm.IRModule, input_names: Sequence[str], output_names: Sequence[str]
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Specifications of the inputs and outputs of ``main``.

    Parameters
    ----------
    module : tvm.IRModule
        A module with the function ``main``.
    input_names, output_names : sequence of str
        Names in the order of parameters and results.

    Returns
    -------
    inputs, outputs : tuple of TensorSpec

    Raises
    ------
    ImportModelError
        An input or output is not a tensor of static shape.
    """
    main = module["main"]
    returned = main.body.ty
    results = list(returned.fields) if isinstance(returned, relax.TupleType) else [returned]
    return (
        _specs("Input", input_names, [param.ty for param in main.params]),
        _specs("Output", output_names, results),
    )


def _specs(role: str, names: Sequence[str], types: Sequence[tvm.ir.Type]) -> tuple[TensorSpec, ...]:
    if len(names) != len(types):
        raise ImportModelError(
            f"The model has {len(names)} {role.lower()}s ({list(names)}), but {len(types)} were imported."
        )
    return tuple(_spec(role, name, ty) for name, ty in zip(names, types, strict=True))


def _spec(role: str, name: str, ty: tvm.ir.Type) -> TensorSpec:
    if not isinstance(ty, relax.TensorType):
        raise ImportModelError(f"{role} '{name}' is not a tensor.")
    sizes = None if ty.shape is None else getattr(ty.shape, "values", None)
    if sizes is None or not all(isinstance(size, tvm.tirx.IntImm) for size in sizes):
        raise ImportModelError(
            f"{role} '{name}' has a shape that depends on the data ({ty}), which is not supported."
        )
    return TensorSpec(name, tuple(int(size) for size in sizes), str(ty.dtype))
