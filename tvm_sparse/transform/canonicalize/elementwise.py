"""Which Relax operators work element by element."""

from __future__ import annotations

UNARY = frozenset(
    {
        "relax.nn.relu",
        "relax.nn.relu6",
        "relax.nn.leakyrelu",
        "relax.nn.gelu",
        "relax.nn.gelu_tanh",
        "relax.nn.silu",
        "relax.nn.selu",
        "relax.nn.softplus",
        "relax.sigmoid",
        "relax.tanh",
        "relax.erf",
        "relax.exp",
        "relax.log",
        "relax.sqrt",
        "relax.rsqrt",
        "relax.square",
        "relax.abs",
        "relax.negative",
        "relax.sin",
        "relax.cos",
        "relax.floor",
        "relax.ceil",
        "relax.round",
        "relax.clip",
        "relax.astype",
        "tvm_sparse.hard_swish",
        "tvm_sparse.hard_sigmoid",
    }
)
"""Operators of one tensor; arguments that follow it are numbers."""

BINARY = frozenset(
    {
        "relax.add",
        "relax.subtract",
        "relax.multiply",
        "relax.divide",
        "relax.power",
        "relax.maximum",
        "relax.minimum",
    }
)
"""Operators of two tensors that broadcast."""
