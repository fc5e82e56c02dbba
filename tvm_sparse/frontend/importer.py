"""Walking an ONNX graph of static input shapes and emitting Relax."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import tvm
from tvm import relax
from tvm.relax.frontend.onnx import onnx_frontend as upstream

from tvm_sparse.errors import ImportModelError, TvmSparseError
from tvm_sparse.frontend.fold import fold_node
from tvm_sparse.frontend.messages import first_line
from tvm_sparse.frontend.onnx_load import opset_version
from tvm_sparse.frontend.onnx_ops import converters
from tvm_sparse.frontend.onnx_ops.common import tensor_constant
from tvm_sparse.frontend.supported import node_name


class GraphImporter(upstream.ONNXGraphImporter):
    """TVM's ONNX importer with constant folding, own converters, and errors that name the node.

    Every input shape is static, so whatever a graph computes from shapes is constant: nodes whose inputs
    are all known are evaluated here, and converters meet shapes, axes and sizes as constants.
    """

    def __init__(self) -> None:
        super().__init__({}, None, keep_params_in_input=False, sanitize=True)

    def convert(self, model: onnx.ModelProto) -> tvm.IRModule:
        """Convert a checked model to a module with the function ``main``."""
        with warnings.catch_warnings():
            # Upstream warns of every input that it renames.
            warnings.simplefilter("ignore")
            try:
                return self.from_onnx(model.graph, opset_version(model))
            except Exception:
                # TVM leaves a block open then, and would complain of it on stderr.
                self.bb._end_block()
                raise

    def _parse_graph_input(self, graph: onnx.GraphProto) -> None:
        """Inputs become parameters; upstream takes a size of 0 for an open one."""
        for value in graph.input:
            tensor = value.type.tensor_type
            self._num_input += 1
            self._input_names.append(value.name)
            self._nodes[value.name] = self._inputs[value.name] = self._new_var(
                self._sanitize_name(value.name),
                shape=[dim.dim_value for dim in tensor.shape.dim],
                dtype=upstream.get_type(tensor.elem_type),
            )

    def _check_for_unsupported_ops(self, graph: onnx.GraphProto) -> None:
        """Nothing: checked before, with the places of the nodes."""

    def _construct_nodes(self, graph: onnx.GraphProto) -> None:
        for node in graph.node:
            try:
                self._construct_node(node)
            except TvmSparseError:
                raise
            except Exception as error:
                raise ImportModelError(f"Cannot import {describe_node(node)}: {first_line(error)}") from error

    def _construct_node(self, node: onnx.NodeProto) -> None:
        inputs = upstream.onnx_input()
        inputs.extend(None if name == "" else self._as_tensor(self._nodes[name]) for name in node.input)
        folded = fold_node(node, inputs, self.opset)
        if folded is not None:
            for name, value in folded.items():
                self._nodes[name] = tensor_constant(value)
            return
        if node.op_type == "If":
            self._construct_if(node, inputs[0])
            return
        attributes = self._parse_attr(node.attribute)
        attributes["tvm_custom"] = {"name": node.name, "num_outputs": len(node.output)}
        self._bind_outputs(node, self._convert_operator(node.op_type, inputs, attributes, self.opset))

    def _convert_operator(self, op_name: str, inputs: list, attrs: dict, opset: int) -> relax.Expr:
        converter = converters().get(op_name)
        if converter is None:
            return super()._convert_operator(op_name, inputs, attrs, opset)
        return self.bb.normalize(converter(self.bb, inputs, attrs, opset))

    def _bind_outputs(self, node: onnx.NodeProto, result: relax.Expr) -> None:
        """Name the results of a node; a tuple gives one tensor to each output."""
        if isinstance(result, relax.Tuple):
            fields = list(result.fields)
        elif isinstance(result.ty, relax.TupleType):
            result = self.bb.emit(result)
            fields = [self.bb.emit(relax.TupleGetItem(result, i)) for i in range(len(result.ty.fields))]
        else:
            fields = [result]
        if len(fields) < len(node.output):
            raise ValueError(f"it has {len(node.output)} outputs, of which {len(fields)} are supported")
        for name, value in zip(node.output, fields, strict=False):
            if name:
                # Upstream's converters take an unbound TupleGetItem for a constant.
                bind = self.bb.emit if isinstance(value, relax.TupleGetItem) else self.bb.normalize
                self._nodes[name] = bind(value)

    def _construct_if(self, node: onnx.NodeProto, condition: relax.Expr) -> None:
        """A branch that is known now is inlined; else both become a Relax ``If``."""
        branches = {attribute.name: attribute.g for attribute in node.attribute}
        if isinstance(condition, tvm.ir.GenericConst):
            taken = branches["then_branch" if bool(condition.value.numpy().item()) else "else_branch"]
            outputs = self._branch_outputs(taken)
            for name, value in zip(node.output, outputs, strict=True):
                self._nodes[name] = value
            return
        arms = [self._convert_subgraph(self.bb, branches[key]) for key in ("then_branch", "else_branch")]
        result = self.bb.emit(relax.If(condition, *[relax.SeqExpr([], arm) for arm in arms]))
        self._bind_outputs(node, result)

    def _branch_outputs(self, graph: onnx.GraphProto) -> list[relax.Expr]:
        """Emit a subgraph here and return its outputs; names defined in it stay local."""
        outer = dict(self._nodes)
        for tensor in graph.initializer:
            self._nodes[tensor.name] = relax.const(self._parse_array(tensor))
        self._construct_nodes(graph)
        outputs = [self._nodes[value.name] for value in graph.output]
        self._nodes = outer
        return outputs

    def _convert_subgraph(self, bb: relax.BlockBuilder, graph: onnx.GraphProto) -> relax.Expr:
        outputs = self._branch_outputs(graph)
        return outputs[0] if len(outputs) == 1 else relax.Tuple(outputs)

    @staticmethod
    def _as_tensor(value: relax.Expr) -> relax.Expr:
        """Shapes are static here, so a shape expression is a constant tensor."""
        if isinstance(value, relax.ShapeExpr):
            return tensor_constant(np.array([int(size) for size in value.values], dtype="int64"))
        return value


def describe_node(node: onnx.NodeProto) -> str:
    """Operator and name of a node for messages: ``Conv (node 'conv1')``."""
    return f"{node.op_type} (node '{node_name(node)}')"
