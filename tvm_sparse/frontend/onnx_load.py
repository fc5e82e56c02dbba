"""Reading an ONNX model and checking that it is one."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from tvm_sparse.errors import ImportModelError

_REMEDY = "export the model again or fetch the file once more"


def load_onnx(model: str | os.PathLike | onnx.ModelProto) -> onnx.ModelProto:
    """Read an ONNX model, with its external data, and check it.

    Parameters
    ----------
    model : path or onnx.ModelProto
        The model; an object is copied, not changed.

    Returns
    -------
    onnx.ModelProto
        A model of the caller's own, in which weights given as ``Constant`` nodes are initialisers, no
        initialiser is listed as an input, and model-local functions are inlined.

    Raises
    ------
    ImportModelError
        Not an ONNX file, truncated, external data missing, or a weight holds NaN.
    """
    if isinstance(model, onnx.ModelProto):
        proto = onnx.ModelProto()
        proto.CopyFrom(model)
        name = f"model '{proto.graph.name}'"
        if any(onnx.external_data_helper.uses_external_data(tensor) for tensor in proto.graph.initializer):
            raise ImportModelError(
                f"The weights of {name} are in external files: load it with onnx.load, or pass its path."
            )
    else:
        path = Path(model)
        proto = _read(path)
        name = f"file '{path}'"
    _check(proto, name)
    if proto.functions:
        proto = onnx.inliner.inline_local_functions(proto)
    constants_to_initializers(proto.graph)
    _drop_weight_inputs(proto.graph)
    _check_weights(proto, name)
    return proto


def _read(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        raise ImportModelError(
            f"Input file '{path}' doesn't exist, is a broken symbolic link, or a directory."
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImportModelError(f"Cannot read '{path}': {error.strerror}.") from error
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        raise ImportModelError(
            f"'{path}' is not an ONNX file, or it is truncated ({len(data)} bytes): {_REMEDY}."
        ) from error
    try:
        onnx.load_external_data_for_model(proto, str(path.parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ImportModelError(
            f"'{path}' keeps weights in external files that cannot be read: {error}. "
            "Put them beside the model, or save the model as one file."
        ) from error
    return proto


def _check(proto: onnx.ModelProto, name: str) -> None:
    """Refuse what parses as a protocol buffer but is not a usable model."""
    if not proto.graph.output or not proto.opset_import or proto.ir_version < 3:
        raise ImportModelError(
            f"The {name} is not an ONNX model (no outputs, no operator set, or a format before 2017): "
            f"{_REMEDY}."
        )
    for tensor in proto.graph.initializer:
        try:
            onnx.numpy_helper.to_array(tensor)
        except (ValueError, TypeError) as error:
            raise ImportModelError(
                f"The {name} is damaged: weight '{tensor.name}' of shape {list(tensor.dims)} "
                f"cannot be read ({error}): {_REMEDY}."
            ) from error


def constants_to_initializers(graph: onnx.GraphProto) -> None:
    """Turn ``Constant`` nodes that hold tensors or numbers into initialisers, in place."""
    kept = []
    for node in graph.node:
        tensor = constant_tensor(node) if node.op_type == "Constant" else None
        if tensor is None:
            kept.append(node)
        else:
            graph.initializer.append(tensor)
    if len(kept) < len(graph.node):
        nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
        del graph.node[:]
        graph.node.extend(nodes)


def constant_tensor(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """The tensor of a ``Constant`` node, named as its output, or None when it holds something else."""
    attribute = node.attribute[0]
    if attribute.name == "value":
        tensor = onnx.TensorProto()
        tensor.CopyFrom(attribute.t)
        tensor.name = node.output[0]
        return tensor
    dtype = {"value_float": "float32", "value_floats": "float32", "value_int": "int64", "value_ints": "int64"}
    if attribute.name not in dtype:
        return None
    value = np.array(onnx.helper.get_attribute_value(attribute), dtype=dtype[attribute.name])
    return onnx.numpy_helper.from_array(value, node.output[0])


def _drop_weight_inputs(graph: onnx.GraphProto) -> None:
    """Until opset 8 initialisers were listed as inputs too: they are weights, not inputs."""
    weights = {tensor.name for tensor in graph.initializer}
    for value in [value for value in graph.input if value.name in weights]:
        graph.input.remove(value)


def _check_weights(proto: onnx.ModelProto, name: str) -> None:
    """NaN weights are an error; infinities are not, since attention masks hold them."""
    for tensor in proto.graph.initializer:
        if tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16):
            count = int(np.isnan(onnx.numpy_helper.to_array(tensor)).sum())
            if count:
                raise ImportModelError(
                    f"The {name} has NaN in weight '{tensor.name}' ({count} of {np.prod(tensor.dims)}"
                    " values): its training or conversion went wrong."
                )


def opset_version(model: onnx.ModelProto) -> int:
    """Version of the default operator set that a model uses."""
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx"):
            return opset.version
    return 1
