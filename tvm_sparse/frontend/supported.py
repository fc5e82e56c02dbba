"""Finding operators that cannot be imported, and where they stand."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from tvm.relax.frontend.onnx import onnx_frontend as upstream

from tvm_sparse.errors import ImportModelError
from tvm_sparse.frontend.onnx_ops import converters

_DOMAINS = ("", "ai.onnx")
_WITHOUT_CONVERTER = frozenset({"If", "Constant"})
# TVM's converter of this name is for ONNX Runtime's operator.
_ONLY_BY_EXPANSION = frozenset({"Attention"})
# Operators of ONNX Runtime's domain that the importer knows; others there share names but not meaning.
_MICROSOFT = frozenset({"FastGelu", "BiasGelu", "Gelu", "SkipLayerNormalization", "EmbedLayerNormalization"})


def is_supported(node: onnx.NodeProto) -> bool:
    """Whether there is a converter for the node's operator."""
    if node.domain == "com.microsoft":
        return node.op_type in _MICROSOFT
    if node.domain not in _DOMAINS or node.op_type in _ONLY_BY_EXPANSION:
        return False
    return (
        node.op_type in _WITHOUT_CONVERTER
        or node.op_type in converters()
        or node.op_type in upstream._get_convert_map()
    )


def check_supported(model: onnx.ModelProto, original: onnx.ModelProto) -> None:
    """Refuse a model with operators that cannot be imported.

    Parameters
    ----------
    model : onnx.ModelProto
        The model to import, simplified: what simplification removed does not count.
    original : onnx.ModelProto
        The model as its user knows it, for the places in the message.

    Raises
    ------
    ImportModelError
        Lists every unsupported operator with its node and place.
    """
    kinds = {_kind(node) for node, _ in walk(model.graph) if not is_supported(node)}
    if not kinds:
        return
    found = [place for node, place in walk(original.graph) if _kind(node) in kinds]
    found = found or [place for node, place in walk(model.graph) if _kind(node) in kinds]
    shown = [f"  {place}" for place in found[:_MAX_LISTED]]
    if len(found) > _MAX_LISTED:
        shown.append(f"  ... and {len(found) - _MAX_LISTED} more nodes")
    names = ", ".join(sorted(f"{domain}.{op}" if domain not in _DOMAINS else op for domain, op in kinds))
    raise ImportModelError(f"Operators that are not supported: {names}\n" + "\n".join(shown))


_MAX_LISTED = 50


def walk(graph: onnx.GraphProto, where: str = "") -> Iterator[tuple[onnx.NodeProto, str]]:
    """Nodes of a graph and of the subgraphs of its control flow, each with a description of its place."""
    for i, node in enumerate(graph.node):
        name = node_name(node)
        yield node, f"{node.op_type} (node '{name}', {_ordinal(i + 1)} of {len(graph.node)}{where})"
        for attribute in node.attribute:
            for subgraph in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                yield from walk(subgraph, f" in {attribute.name} of {node.op_type} '{name}'{where}")


def node_name(node: onnx.NodeProto) -> str:
    """Name of a node; nameless ones go by their first output."""
    outputs = [name for name in node.output if name]
    return node.name or (f"output {outputs[0]}" if outputs else "?")


def _kind(node: onnx.NodeProto) -> tuple[str, str]:
    return node.domain, node.op_type


def _ordinal(number: int) -> str:
    if number % 100 in (11, 12, 13):
        return f"{number}th"
    return f"{number}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th') }"
