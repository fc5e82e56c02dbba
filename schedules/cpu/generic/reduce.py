"""Reductions: how an update combines, and combining the lanes of a vector."""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx
from tvm.ir import Expr, TensorLoad
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Var

from .nest import Store, const, loads, make_load

Combine = Callable[[Expr, Expr], Expr]

_COMBINE: tuple[tuple[type, Combine], ...] = (
    (tirx.Add, lambda a, b: a + b),
    (tirx.Mul, lambda a, b: a * b),
    (tirx.Max, tirx.Max),
    (tirx.Min, tirx.Min),
)


def combination(store: Store) -> tuple[Combine, Expr] | None:
    """Split an update ``r = r (+) element`` into operation and element.

    Parameters
    ----------
    store : Store
        The update of a reduction.

    Returns
    -------
    (callable, Expr) or None
        None unless the update is a sum, product, maximum or minimum of the result and one element.
    """
    for kind, combine in _COMBINE:
        if not isinstance(store.value, kind):
            continue
        for own, element in ((store.value.a, store.value.b), (store.value.b, store.value.a)):
            if not (isinstance(own, TensorLoad) and own.source.same_as(store.buffer)):
                continue
            if not any(load.source.same_as(store.buffer) for load in loads(element)):
                return combine, element
    return None


def horizontal(buffer: Var, width: int, combine: Combine) -> Expr:
    """Combine the first ``width`` elements of a buffer into one.

    Halves are combined as vectors, as long as they are even.
    """
    if width == 1:
        return make_load(buffer, [const(0)])
    value = T.Bind(make_load(buffer, [tirx.Ramp(const(0), const(1), width)]))
    while width % 2 == 0 and width > 2:
        width //= 2
        low = tirx.Shuffle([value], [tirx.IntImm("int32", i) for i in range(width)])
        high = tirx.Shuffle([value], [tirx.IntImm("int32", i) for i in range(width, 2 * width)])
        value = T.Bind(combine(low, high))
    parts = [tirx.Shuffle([value], [tirx.IntImm("int32", i)]) for i in range(width)]
    total = parts[0]
    for part in parts[1:]:
        total = combine(total, part)
    return total
