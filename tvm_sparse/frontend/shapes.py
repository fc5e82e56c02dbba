"""Fixing the shapes of an ONNX model's inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

from tvm_sparse.errors import ImportModelError

_NAMELESS = ("", "?")


def fix_input_shapes(model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]]) -> None:
    """Set the shapes of inputs, in place.

    A dimension that is named (``batch``) and fixed in one input is fixed wherever the name occurs.

    Parameters
    ----------
    model : onnx.ModelProto
        The model; initialisers must not be listed among its inputs.
    shapes : mapping of str to sequence of int
        Shapes by input name.

    Raises
    ------
    ImportModelError
        A name is not an input, a shape contradicts the model, or a dimension stays open.
    """
    inputs = {value.name: value for value in model.graph.input}
    for name in shapes:
        if name not in inputs:
            raise ImportModelError(
                f"The input shapes name '{name}', which is not an input. Expected inputs: {list(inputs)}."
            )
    sizes: dict[str, int] = {}
    for name, shape in shapes.items():
        _unify(inputs[name], shape, sizes)
    for value in inputs.values():
        if value.name not in shapes and value.type.tensor_type.HasField("shape"):
            for dim in value.type.tensor_type.shape.dim:
                if dim.dim_param in sizes:
                    dim.dim_value = sizes[dim.dim_param]
    # Shapes inferred with open dimensions would contradict the fixed ones.
    del model.graph.value_info[:]
    for value in model.graph.output:
        if not _is_static(value):
            value.type.tensor_type.ClearField("shape")
    still_open = [value for value in inputs.values() if not _is_static(value)]
    if still_open:
        listed = ", ".join(f"{value.name}: {describe_shape(value)}" for value in still_open)
        raise ImportModelError(
            f"These inputs have open dimensions: {listed}. Give their shapes, as in "
            f'--input-shapes "{still_open[0].name}:[{_example(still_open[0])}]" '
            "or input_shapes={...} in Python."
        )


def _unify(value: onnx.ValueInfoProto, shape: Sequence[int], sizes: dict[str, int]) -> None:
    """Write ``shape`` into ``value`` and the sizes of its named dimensions into ``sizes``."""
    if any(size < 1 for size in shape):
        raise ImportModelError(
            f"The shape {list(shape)} for input '{value.name}' has a size below 1: there would be nothing to compute."
        )
    known = value.type.tensor_type
    if known.HasField("shape"):
        dims = list(known.shape.dim)
        fits = len(dims) == len(shape) and all(
            not dim.HasField("dim_value") or dim.dim_value <= 0 or dim.dim_value == size
            for dim, size in zip(dims, shape, strict=True)
        )
        if not fits:
            raise ImportModelError(
                f"The shape {list(shape)} does not fit input '{value.name}' of shape {describe_shape(value)}."
            )
        for dim, size in zip(dims, shape, strict=True):
            # Some exporters write "?" for any open dimension: it is not a name.
            if dim.dim_param not in _NAMELESS and sizes.setdefault(dim.dim_param, size) != size:
                raise ImportModelError(
                    f"Dimension '{dim.dim_param}' is {sizes[dim.dim_param]} in one input and {size} in "
                    f"'{value.name}'."
                )
    del known.shape.dim[:]
    for size in shape:
        known.shape.dim.add().dim_value = size
    if not shape:
        known.shape.SetInParent()


def _is_static(value: onnx.ValueInfoProto) -> bool:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return False
    # Some exporters write -1 for an open dimension; 0 is a legal, empty, size.
    return all(dim.HasField("dim_value") and dim.dim_value >= 0 for dim in tensor.shape.dim)


def describe_shape(value: onnx.ValueInfoProto) -> str:
    """Shape of a value for messages: ``[batch, 3, ?]``."""
    if not value.type.tensor_type.HasField("shape"):
        return "unknown rank"
    dims = value.type.tensor_type.shape.dim
    return "[" + ", ".join(_dim(dim) for dim in dims) + "]"


def _dim(dim: onnx.TensorShapeProto.Dimension) -> str:
    if dim.HasField("dim_value") and dim.dim_value >= 0:
        return str(dim.dim_value)
    return dim.dim_param or "?"


def _example(value: onnx.ValueInfoProto) -> str:
    """A shape for the hint: known sizes kept, open ones 1."""
    dims = value.type.tensor_type.shape.dim
    return ",".join(_dim(dim) if _dim(dim).isdigit() else "1" for dim in dims)
