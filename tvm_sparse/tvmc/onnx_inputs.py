"""Inputs of an ONNX model, read without compiling it."""

from __future__ import annotations

from collections.abc import Mapping

from tvm_sparse.errors import InputError, MissingPackageError, TvmSparseError
from tvm_sparse.runtime import TensorSpec


def onnx_inputs(
    path: str, input_shapes: Mapping[str, tuple[int, ...]] | None, batch_size: int | None
) -> tuple[TensorSpec, ...]:
    """Inputs of an ONNX model with shapes fixed by the options.

    Raises
    ------
    TvmSparseError
        If the file is not an ONNX model, a name is unknown, a shape stays open or contradicts the model.
    """
    try:
        import onnx
    except ImportError:
        raise MissingPackageError("onnx", "pip install onnx") from None

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's own class, which depends on its back end
        raise TvmSparseError(f"'{path}' is not an ONNX model: {error}") from error
    constants = {tensor.name for tensor in model.graph.initializer}
    values = [value for value in model.graph.input if value.name not in constants]
    given = input_shapes or {}
    unknown = sorted(given.keys() - {value.name for value in values})
    if unknown:
        names = [value.name for value in values]
        raise InputError(f"the input tensor '{unknown[0]}' is not in the graph. Expected inputs: '{names}'")
    specs = []
    for value in values:
        tensor = value.type.tensor_type
        extents = [
            d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in tensor.shape.dim
        ]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
        specs.append(
            TensorSpec(value.name, _fixed(value.name, extents, given.get(value.name), batch_size), dtype)
        )
    return tuple(specs)


def _fixed(
    name: str, extents: list[int | None], given: tuple[int, ...] | None, batch_size: int | None
) -> tuple[int, ...]:
    if batch_size is not None and extents:
        if extents[0] not in (None, batch_size):
            raise InputError(
                f"--batch-size {batch_size}: the input '{name}' has the fixed batch {extents[0]}."
            )
        extents = [batch_size, *extents[1:]]
    if given is not None:
        if len(given) != len(extents) or any(e not in (None, g) for e, g in zip(extents, given, strict=True)):
            shape = [extent or "?" for extent in extents]
            raise InputError(f"--input-shapes gives '{name}' the shape {list(given)}, the model has {shape}.")
        return given
    if None in extents:
        shape = [extent or "?" for extent in extents]
        raise InputError(
            f"the input '{name}' has the open shape {shape}: give --batch-size or --input-shapes."
        )
    return tuple(extent for extent in extents if extent is not None)
