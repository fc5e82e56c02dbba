"""FuseLayers: convolutions and matmuls with constant weights become layers with bias, residual and activation fused."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tvm
from tvm import relax

from .graph import Graph, constant
from .ops import CONV2D, LINEAR, make_layer, static_shape


@tvm.transform.module_pass(opt_level=0, name="FuseLayers")
class FuseLayers:
    """Rewrite ``conv2d``/``matmul`` with constant float32 weights, and what follows them, to layer operators.

    What follows: additions of a constant per channel (bias), one addition of a tensor of the same shape (residual),
    one activation; each only where nobody else reads the intermediate value.
    """

    def transform_module(self, module: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Rewrite every Relax function."""
        updated = tvm.IRModule(module.functions, attrs=module.attrs)
        for name, function in module.functions_items():
            if isinstance(function, relax.Function):
                updated.update_func(name, _fuse(function))
        return updated


@dataclass
class _Layer:
    """A layer being grown: its call, and the last variable that it computes."""

    op: str
    x: relax.Expr
    weight: np.ndarray
    attributes: dict[str, Any]
    last: relax.Var
    bias: np.ndarray
    residual: relax.Expr | None = None
    slopes: np.ndarray | None = None
    activation: str = "clip"
    parameters: tuple[float, ...] = (float("-inf"), float("inf"))
    absorbed: set[relax.Var] = field(default_factory=set)

    def call(self) -> relax.Call:
        arguments = [self.x, relax.const(self.weight), relax.const(self.bias)]
        if self.residual is not None:
            arguments.append(self.residual)
        if self.slopes is not None:
            arguments.append(relax.const(self.slopes))
        # Infinities do not survive printing and parsing as text; the largest float32 does the same work.
        limit = float(np.finfo(np.float32).max)
        parameters = [float(np.clip(p, -limit, limit)) for p in self.parameters]
        attributes = {
            **self.attributes,
            "activation": self.activation,
            "parameters": parameters,
            "residual": int(self.residual is not None),
            "slopes": int(self.slopes is not None),
        }
        return make_layer(self.op, arguments, attributes)


def _fuse(function: relax.Function) -> relax.Function:
    graph = Graph(function)
    layers: dict[relax.Var, _Layer] = {}
    absorbed: set[relax.Var] = set()
    for variable, value in graph.bindings:
        if variable in absorbed or not isinstance(value, relax.Call):
            continue
        layer = _start(variable, value, len(layers))
        if layer is None:
            continue
        while _absorb(graph, layer, absorbed | layers.keys()):
            pass
        layers[layer.last] = layer
        absorbed |= layer.absorbed
    if not layers:
        return function
    return _rebuild(function, layers, absorbed)


def _rebuild(
    function: relax.Function, layers: dict[relax.Var, _Layer], absorbed: set[relax.Var]
) -> relax.Function:
    """Rewrite bindings: a layer stands where its last operation stood, so that all its inputs are defined."""

    def bind(binding: relax.Binding) -> list[relax.Binding]:
        if binding.var in layers:
            return [relax.VarBinding(binding.var, _typed(layers[binding.var].call(), binding.var))]
        return [] if binding.var in absorbed else [binding]

    blocks = []
    for block in function.body.blocks:
        bindings = [new for binding in block.bindings for new in bind(binding)]
        make = relax.DataflowBlock if isinstance(block, relax.DataflowBlock) else relax.BindingBlock
        blocks.append(make(bindings))
    body = relax.BlockBuilder().normalize(relax.SeqExpr(blocks, function.body.body))
    return relax.Function(function.params, body, function.ret_ty, function.is_pure, function.attrs)


def _typed(call: relax.Call, variable: relax.Var) -> relax.Call:
    return relax.Call(call.op, call.args, call.attrs, ret_ty=variable.ty)


def _start(variable: relax.Var, call: relax.Call, number: int) -> _Layer | None:
    """A layer from a convolution or matmul with constant weights."""
    name = getattr(call.op, "name", "")
    if static_shape(call) is None or call.ty.dtype != "float32":
        return None
    if name == "relax.nn.conv2d":
        weight, attrs = constant(call.args[1]), call.attrs
        plain = (
            attrs.data_layout == "NCHW" and attrs.kernel_layout == "OIHW" and attrs.out_layout in ("", "NCHW")
        )
        if weight is None or not plain:
            return None
        padding = [int(p) for p in attrs.padding]
        attributes = {
            "name": f"conv{number}",
            "strides": [int(s) for s in attrs.strides],
            "padding": padding * 2 if len(padding) == 2 else padding,
            "dilation": [int(d) for d in attrs.dilation],
            "groups": int(attrs.groups),
        }
        return _Layer(CONV2D, call.args[0], weight, attributes, variable, np.zeros(len(weight), np.float32))
    if name == "relax.matmul":
        weight = constant(call.args[1])
        rank = len(static_shape(call.args[0]) or ())
        if weight is None or weight.ndim != 2 or rank < 2 or 0 in weight.shape:
            return None
        weight = np.ascontiguousarray(weight.T)
        return _Layer(
            LINEAR,
            call.args[0],
            weight,
            {"name": f"linear{number}"},
            variable,
            np.zeros(len(weight), np.float32),
        )
    return None


def _absorb(graph: Graph, layer: _Layer, taken: Set[relax.Var]) -> bool:
    """Fuse the only user of the layer's last value, if it can be and no other layer has it."""
    if graph.is_output(layer.last) or layer.activation != "clip" or layer.parameters[0] != float("-inf"):
        return False
    if layer.parameters[1] != float("inf"):
        return False
    users = graph.users(layer.last)
    if len(users) != 1:
        return False
    (user,) = users
    if user in taken:
        return False
    call = graph.producer(user)
    if not isinstance(call, relax.Call) or static_shape(user) != static_shape(layer.last):
        return False
    name = getattr(call.op, "name", "")
    if name == "relax.add":
        done = _absorb_addition(layer, call)
    else:
        done = _absorb_activation(layer, name, call)
    if done:
        layer.absorbed.add(layer.last)
        layer.last = user
    return done


def _absorb_addition(layer: _Layer, call: relax.Call) -> bool:
    other = call.args[1] if call.args[0].same_as(layer.last) else call.args[0]
    if other.same_as(layer.last):
        return False
    value = constant(other)
    if value is not None:
        if layer.residual is not None:
            return False
        per_channel = _per_channel(value, layer)
        if per_channel is None:
            return False
        layer.bias = layer.bias + per_channel
        return True
    if (
        layer.residual is None
        and static_shape(other) == static_shape(layer.last)
        and other.ty.dtype == "float32"
    ):
        layer.residual = other
        return True
    return False


def _per_channel(value: np.ndarray, layer: _Layer) -> np.ndarray | None:
    """A constant as one number per output channel, or None."""
    channels = len(layer.weight)
    if value.size == 1:
        return np.full(channels, value.reshape(-1)[0], np.float32)
    axis = -3 if layer.op == CONV2D else -1
    shape = (1,) * (4 - value.ndim) + value.shape if layer.op == CONV2D else value.shape
    if value.size != channels or shape[axis] != channels:
        return None
    return value.reshape(-1).astype(np.float32)


_SIMPLE_ACTIVATIONS = {
    "relax.nn.gelu": "gelu",
    "relax.nn.gelu_tanh": "gelu_tanh",
    "relax.nn.silu": "silu",
    "relax.sigmoid": "sigmoid",
    "relax.tanh": "tanh",
    "tvm_sparse.hard_swish": "hard_swish",
    "tvm_sparse.hard_sigmoid": "hard_sigmoid",
}


def _absorb_activation(layer: _Layer, name: str, call: relax.Call) -> bool:
    if name == "relax.nn.relu":
        layer.parameters = (0.0, float("inf"))
    elif name == "relax.clip":
        limits = [_scalar(argument) for argument in call.args[1:3]]
        if None in limits or not call.args[0].same_as(layer.last):
            return False
        layer.parameters = (float(limits[0] or 0.0), float(limits[1] or 0.0))
    elif name == "relax.nn.leakyrelu":
        layer.activation, layer.parameters = "leaky_relu", (float(call.attrs.alpha),)
    elif name == "relax.nn.prelu":
        slopes = constant(call.args[1])
        axis = int(call.attrs.axis) % len(static_shape(layer.last) or ())
        expected = 1 if layer.op == CONV2D else len(static_shape(layer.last) or ()) - 1
        if slopes is None or slopes.size not in (1, len(layer.weight)) or axis != expected:
            return False
        layer.slopes = np.broadcast_to(slopes.reshape(-1), (len(layer.weight),)).astype(np.float32).copy()
        layer.activation, layer.parameters = "prelu", ()
    elif name in _SIMPLE_ACTIVATIONS:
        layer.activation, layer.parameters = _SIMPLE_ACTIVATIONS[name], ()
    else:
        return False
    return True


def _scalar(expression: relax.Expr) -> float | None:
    value = getattr(expression, "value", None)
    if value is None:
        return None
    try:
        return float(getattr(value, "value", value))
    except TypeError:
        array = constant(expression)
        return float(array.reshape(-1)[0]) if array is not None and array.size == 1 else None
