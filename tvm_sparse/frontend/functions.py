"""Expanding operators that ONNX defines by others."""

from __future__ import annotations

import logging

import onnx
import onnx.inliner

from tvm_sparse.frontend.onnx_load import constants_to_initializers, opset_version
from tvm_sparse.frontend.supported import is_supported, walk

_logger = logging.getLogger(__name__)

# Bodies may hold operators that have bodies.
_MAX_DEPTH = 4


def expand_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace operators without a converter by the function body that their ONNX schema defines, if any.

    Parameters
    ----------
    model : onnx.ModelProto
        A model; not changed.

    Returns
    -------
    onnx.ModelProto
        An equivalent model; ``model`` itself when there is nothing to expand.
    """
    for _ in range(_MAX_DEPTH):
        expandable = {node.op_type for node, _ in walk(model.graph) if _is_expandable(node)}
        if not expandable:
            break
        prepared = _typed(model)
        for node, _ in walk(prepared.graph):
            if node.op_type in expandable:
                _fill_defaults(node, opset_version(model))
        names = [("", op_type) for op_type in sorted(expandable)]
        try:
            model = onnx.inliner.inline_selected_functions(prepared, names, inline_schema_functions=True)
        except RuntimeError as error:
            # The body of some depends on types that inference cannot find; the operator is then reported.
            _logger.info("cannot expand %s: %s", sorted(expandable), error)
            break
        constants_to_initializers(model.graph)
    return model


def _is_expandable(node: onnx.NodeProto) -> bool:
    if node.domain not in ("", "ai.onnx") or not _has_body(node.op_type):
        return False
    return not is_supported(node)


def _typed(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with the types of all values, weights included: bodies that depend on types need them."""
    typed = onnx.shape_inference.infer_shapes(model, data_prop=True)
    for tensor in typed.graph.initializer:
        info = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        typed.graph.value_info.append(info)
    return typed


def _fill_defaults(node: onnx.NodeProto, opset: int) -> None:
    """Write out default attributes: bodies refer to them, and inlining does not know the defaults."""
    given = {attribute.name for attribute in node.attribute}
    for name, attribute in onnx.defs.get_schema(node.op_type, opset).attributes.items():
        if name not in given and attribute.default_value.name:
            node.attribute.append(attribute.default_value)


def _has_body(op_type: str) -> bool:
    if not onnx.defs.has(op_type):
        return False
    schema = onnx.defs.get_schema(op_type)
    return schema.has_function or schema.has_context_dependent_function
