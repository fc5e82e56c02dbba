"""MergeParallelLinears: linear layers that read the same tensor become one layer whose output is sliced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm import relax

from ..graph import constant
from ..rewrite import Rewriter, operator_name, rewrite_module, shape_of, tensor

# Layers of very different density belong to different kernels.
_MAX_DENSITY_DIFFERENCE = 0.25
# What may read the layers: anything else (an activation) fuses with each layer and would be lost.
_READERS = ("relax.reshape", "relax.permute_dims", "relax.nn.attention", "relax.nn.attention_bias")


@tvm.transform.module_pass(opt_level=0, name="MergeParallelLinears")
class MergeParallelLinears:
    """Merge query, key and value projections, and others that read the same tensor, into one linear layer.

    ``matmul(x, W_i) + b_i`` becomes slices of ``matmul(x, [W_1 W_2 ...]) + [b_1 b_2 ...]``, where the layers
    are of similar density and only views and attention read them.
    """

    def transform_module(self, module: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Rewrite every Relax function."""
        return rewrite_module(module, _merge)


@dataclass(frozen=True)
class _Linear:
    last: relax.Var
    weight: np.ndarray
    bias: np.ndarray | None

    @property
    def width(self) -> int:
        return int(self.weight.shape[1])


def _merge(rewriter: Rewriter, variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
    first = _linear(rewriter, variable, value)
    if first is None:
        return None
    density = np.count_nonzero(first.weight) / first.weight.size
    group = []
    for user in rewriter.users(value.args[0]):
        call = rewriter.producer(user)
        linear = _linear(rewriter, user, call) if call is not None else None
        if linear is None or not rewriter.resolve(call.args[0]).same_as(rewriter.resolve(value.args[0])):
            continue
        other = np.count_nonzero(linear.weight) / linear.weight.size
        if linear.weight.dtype == first.weight.dtype and abs(other - density) <= _MAX_DENSITY_DIFFERENCE:
            group.append(linear)
    if len(group) < 2:
        return None
    merged: relax.Expr = relax.op.matmul(
        value.args[0], tensor(np.concatenate([linear.weight for linear in group], axis=1))
    )
    if any(linear.bias is not None for linear in group):
        biases = [np.zeros(g.width, g.weight.dtype) if g.bias is None else g.bias for g in group]
        merged = relax.op.add(merged, tensor(np.concatenate(biases)))
    merged = rewriter.emit(merged)
    axis, begin, result = len(shape_of(value) or ()) - 1, 0, None
    for linear in group:
        piece = relax.op.strided_slice(merged, [axis], [begin], [begin + linear.width])
        begin += linear.width
        if linear.last.same_as(variable):
            result = piece
        else:
            rewriter.bind(linear.last, piece)
    # With a bias the layer in hand is no longer read; without one it is a slice itself.
    return result


def _linear(rewriter: Rewriter, variable: relax.Var, value: relax.Expr) -> _Linear | None:
    if operator_name(value) != "relax.matmul":
        return None
    weight = constant(value.args[1])
    if weight is None or weight.ndim != 2 or not str(weight.dtype).startswith("float"):
        return None
    last, bias = variable, None
    users = rewriter.users(variable)
    if len(users) == 1 and not rewriter.is_output(variable):
        addition = rewriter.call(users[0], "relax.add")
        array = constant(addition.args[1]) if addition is not None else None
        if array is not None and array.size in (1, weight.shape[1]) and shape_of(addition) == shape_of(value):
            if array.size == 1 or array.shape[-1] == weight.shape[1]:
                last, bias = users[0], np.broadcast_to(array.reshape(-1), (weight.shape[1],))
    readers = [rewriter.producer(user) for user in rewriter.users(last)]
    if rewriter.is_output(last) or not readers or any(operator_name(r) not in _READERS for r in readers):
        return None
    return _Linear(last, weight, bias)
