"""Calls of kernels, marked with what later passes need to know of them."""

from __future__ import annotations

from tvm import relax

LAYER = "layer"
STRIPES = "stripes"


def call_of(symbol: str, layer: str | None, stripes: str | None = None) -> relax.ExternFunc:
    """The kernel as an operator of a call.

    Parameters
    ----------
    symbol : str
        The kernel.
    layer : str, optional
        Name of the plan's layer that the call computes.
    stripes : str, optional
        Key of how it runs in parts, among those of the compilation's context.
    """
    function = relax.ExternFunc(symbol)
    for name, value in ((LAYER, layer), (STRIPES, stripes)):
        function = function if value is None else function.with_attr(name, value)
    return function


def mark_of(expression: relax.Expr, name: str) -> str | None:
    """What a call of a kernel is marked with, None where it is not (or no such call)."""
    if not isinstance(expression, relax.Call) or not isinstance(expression.op, relax.ExternFunc):
        return None
    attrs = expression.op.attrs
    return str(attrs[name]) if attrs is not None and name in attrs else None
