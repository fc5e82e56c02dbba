"""A BERT encoder as an ONNX graph, written the way PyTorch's exporter decomposes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper


class _Graph:
    """Nodes and weights of a graph under construction."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}

    def weight(self, name: str, value: Any, dtype: str = "float32") -> str:
        self.weights[name] = np.asarray(value, dtype=dtype)
        return name

    def op(self, op_type: str, *inputs: str, **attrs: Any) -> str:
        name = f"{op_type}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, list(inputs), [name], name=name, **attrs))
        return name


def bert_encoder(
    tensors: Mapping[str, np.ndarray], config: Mapping[str, Any], shape: Sequence[int]
) -> onnx.ModelProto:
    """ONNX graph of a BERT checkpoint.

    Parameters
    ----------
    tensors : mapping of str to numpy.ndarray
        Weights under their Hugging Face names.
    config : mapping
        The checkpoint's ``config.json``.
    shape : sequence of int
        Batch and sequence length.

    Returns
    -------
    onnx.ModelProto
        Inputs ``input_ids``, ``attention_mask``, ``token_type_ids``, int64 ``[batch, sequence]``; output
        ``last_hidden_state``, float32 ``[batch, sequence, hidden]``.
    """
    g = _Graph()
    hidden = config["hidden_size"]
    x = _embeddings(g, tensors, shape[1], config["layer_norm_eps"])
    ones = g.weight("one", 1.0)
    mask = g.op("Unsqueeze", "attention_mask", g.weight("mask_axes", [1, 2], "int64"))
    mask = g.op("Sub", ones, g.op("Cast", mask, to=onnx.TensorProto.FLOAT))
    mask = g.op("Mul", mask, g.weight("lowest", np.finfo("float32").min))
    for i in range(config["num_hidden_layers"]):
        x = _layer(g, tensors, f"encoder.layer.{i}", x, mask, config)
    g.nodes[-1].output[0] = "last_hidden_state"
    ids = [
        helper.make_tensor_value_info(name, onnx.TensorProto.INT64, list(shape))
        for name in ("input_ids", "attention_mask", "token_type_ids")
    ]
    result = helper.make_tensor_value_info("last_hidden_state", onnx.TensorProto.FLOAT, [*shape, hidden])
    weights = [numpy_helper.from_array(value, name) for name, value in g.weights.items()]
    graph = helper.make_graph(g.nodes, "bert", ids, [result], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _embeddings(g: _Graph, tensors: Mapping[str, np.ndarray], length: int, epsilon: float) -> str:
    words = g.weight("words", tensors["embeddings.word_embeddings.weight"])
    types = g.weight("types", tensors["embeddings.token_type_embeddings.weight"])
    positions = g.weight("positions", tensors["embeddings.position_embeddings.weight"][None, :length])
    x = g.op("Add", g.op("Gather", words, "input_ids"), g.op("Gather", types, "token_type_ids"))
    return _norm(g, tensors, "embeddings.LayerNorm", g.op("Add", x, positions), epsilon)


def _layer(
    g: _Graph, tensors: Mapping[str, np.ndarray], name: str, x: str, mask: str, config: Mapping[str, Any]
) -> str:
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    size = hidden // heads
    split = g.weight("split", [0, 0, heads, size], "int64")
    merge = g.weight("merge", [0, 0, hidden], "int64")

    def projected(which: str, order: Sequence[int]) -> str:
        y = _linear(g, tensors, f"{name}.attention.self.{which}", x)
        return g.op("Transpose", g.op("Reshape", y, split), perm=order)

    scores = g.op("MatMul", projected("query", (0, 2, 1, 3)), projected("key", (0, 2, 3, 1)))
    scores = g.op("Add", g.op("Div", scores, g.weight("root", np.sqrt(size))), mask)
    context = g.op("MatMul", g.op("Softmax", scores, axis=-1), projected("value", (0, 2, 1, 3)))
    context = g.op("Reshape", g.op("Transpose", context, perm=(0, 2, 1, 3)), merge)
    y = _linear(g, tensors, f"{name}.attention.output.dense", context)
    epsilon = config["layer_norm_eps"]
    x = _norm(g, tensors, f"{name}.attention.output.LayerNorm", g.op("Add", y, x), epsilon)
    y = _gelu(g, _linear(g, tensors, f"{name}.intermediate.dense", x))
    y = _linear(g, tensors, f"{name}.output.dense", y)
    return _norm(g, tensors, f"{name}.output.LayerNorm", g.op("Add", y, x), epsilon)


def _linear(g: _Graph, tensors: Mapping[str, np.ndarray], name: str, x: str) -> str:
    weight = g.weight(f"{name}.weight", tensors[f"{name}.weight"].T)
    return g.op("Add", g.op("MatMul", x, weight), g.weight(f"{name}.bias", tensors[f"{name}.bias"]))


def _norm(g: _Graph, tensors: Mapping[str, np.ndarray], name: str, x: str, epsilon: float) -> str:
    scale = g.weight(f"{name}.weight", tensors[f"{name}.weight"])
    bias = g.weight(f"{name}.bias", tensors[f"{name}.bias"])
    return g.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=epsilon)


def _gelu(g: _Graph, x: str) -> str:
    erf = g.op("Erf", g.op("Div", x, g.weight("root2", np.sqrt(2))))
    return g.op("Mul", g.op("Mul", x, g.op("Add", erf, "one")), g.weight("half", 0.5))
