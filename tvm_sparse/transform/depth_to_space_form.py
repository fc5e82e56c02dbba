"""DepthToSpaceForm: reshape, transpose, reshape that move blocks of channels to pixels become one operator."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax

from .graph import Graph
from .ops import DEPTH_TO_SPACE, make_layer, static_shape

# Axes of [N, block, block, C, H, W] and [N, C, block, block, H, W] in the order of the pixels.
_ORDERS = {(0, 3, 4, 1, 5, 2): "DCR", (0, 1, 4, 2, 5, 3): "CRD"}


@tvm.transform.module_pass(opt_level=0, name="DepthToSpaceForm")
class DepthToSpaceForm:
    """Recognise depth-to-space of images, whatever exporter wrote it."""

    def transform_module(self, module: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Rewrite every Relax function."""
        updated = tvm.IRModule(module.functions, attrs=module.attrs)
        for name, function in module.functions_items():
            if isinstance(function, relax.Function):
                updated.update_func(name, _rewrite(function))
        return updated


def _rewrite(function: relax.Function) -> relax.Function:
    graph = Graph(function)
    blocks, changed = [], False
    for block in function.body.blocks:
        bindings = []
        for binding in block.bindings:
            call = _match(graph, binding.value)
            changed = changed or call is not None
            bindings.append(binding if call is None else relax.VarBinding(binding.var, call))
        make = relax.DataflowBlock if isinstance(block, relax.DataflowBlock) else relax.BindingBlock
        blocks.append(make(bindings))
    if not changed:
        return function
    body = relax.BlockBuilder().normalize(relax.SeqExpr(blocks, function.body.body))
    return relax.Function(function.params, body, function.ret_ty, function.is_pure, function.attrs)


def _match(graph: Graph, value: relax.Expr) -> relax.Call | None:
    transposed = _argument(value, "relax.reshape")
    split = _argument(graph.producer(transposed), "relax.permute_dims") if transposed is not None else None
    x = _argument(graph.producer(split), "relax.reshape") if split is not None else None
    if x is None or split is None or transposed is None:
        return None
    axes = graph.producer(transposed).attrs.axes
    order = _ORDERS.get(tuple(int(a) for a in axes)) if axes is not None else None
    shapes = [static_shape(e) for e in (x, split, value)]
    if order is None or None in shapes or value.ty.dtype != "float32":
        return None
    before, middle, after = shapes
    if len(before) != 4 or len(middle) != 6 or len(after) != 4:
        return None
    down, across = middle[1:3] if order == "DCR" else middle[2:4]
    channels = middle[3] if order == "DCR" else middle[1]
    if after != (before[0], channels, before[2] * down, before[3] * across) or middle[4:] != before[2:]:
        return None
    attributes = {"block": [down, across], "order": order, "crop": [0, 0], "size": list(after[2:])}
    call = make_layer(DEPTH_TO_SPACE, [x], attributes)
    return relax.Call(call.op, call.args, call.attrs, ret_ty=value.ty)


def _argument(value: relax.Expr | None, name: str) -> relax.Var | None:
    """First argument of a call of an operator, if it is a variable."""
    if isinstance(value, relax.Call) and getattr(value.op, "name", "") == name:
        return value.args[0] if isinstance(value.args[0], relax.Var) else None
    return None
