"""Flat accesses: every buffer as one dimension, indices as sums of axes times strides.

In this form adjacent axes can be fused, strides compared and vector axes chosen without looking at shapes.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr, TensorLoad
from tvm.tirx import Var

from .nest import (
    Axis,
    Program,
    Stage,
    Store,
    analyzer_for,
    const,
    loads,
    make_load,
    replace_loads,
    shape_of,
    substitute,
    variables,
)


@dataclass(frozen=True)
class Linear:
    """``sum(coefficients[v] * v) + offset + rest``; ``rest`` (None if absent) may use axes in other ways."""

    coefficients: dict[Var, int]
    offset: int
    rest: Expr | None

    def stride(self, var: Var) -> int | None:
        """Stride along an axis; None if the axis also occurs in the rest."""
        if self.rest is not None and var in variables(self.rest):
            return None
        return self.coefficients.get(var, 0)

    def expr(self) -> Expr:
        """Back to an expression."""
        total: Expr | None = self.rest
        for var, stride in self.coefficients.items():
            if stride:
                term = var if stride == 1 else var * const(stride)
                total = term if total is None else total + term
        if total is None:
            return const(self.offset)
        return total + const(self.offset) if self.offset else total


def linear(expr: Expr, axes: Collection[Var]) -> Linear:
    """Split an index into its linear part in some variables and a rest.

    Parameters
    ----------
    expr : Expr
        int64 expression.
    axes : collection of Var
        Variables to look for.

    Returns
    -------
    Linear
        The same value.
    """
    if isinstance(expr, tirx.IntImm):
        return Linear({}, int(expr), None)
    if isinstance(expr, Var) and expr in axes:
        return Linear({expr: 1}, 0, None)
    if isinstance(expr, tirx.Add | tirx.Sub):
        sign = 1 if isinstance(expr, tirx.Add) else -1
        a, b = linear(expr.a, axes), linear(expr.b, axes)
        rest = a.rest
        if b.rest is not None:
            if rest is None:
                rest = b.rest if sign > 0 else const(0) - b.rest
            else:
                rest = rest + b.rest if sign > 0 else rest - b.rest
        coefficients = dict(a.coefficients)
        for var, stride in b.coefficients.items():
            coefficients[var] = coefficients.get(var, 0) + sign * stride
        return Linear(coefficients, a.offset + sign * b.offset, rest)
    if isinstance(expr, tirx.Mul):
        a, b = expr.a, expr.b
        if isinstance(a, tirx.IntImm):
            a, b = b, a
        if isinstance(b, tirx.IntImm):
            scale, inner = int(b), linear(a, axes)
            rest = None if inner.rest is None else inner.rest * const(scale)
            coefficients = {var: stride * scale for var, stride in inner.coefficients.items()}
            return Linear(coefficients, inner.offset * scale, rest)
    return Linear({}, 0, expr)


def strides_of(buffer: Var) -> list[int]:
    """Row-major strides."""
    shape = shape_of(buffer)
    return [math.prod(shape[d + 1 :]) for d in range(len(shape))]


def flat_index(buffer: Var, indices: Iterable[Expr]) -> Expr:
    """The row-major offset of an element."""
    total: Expr | None = None
    for index, stride in zip(indices, strides_of(buffer), strict=True):
        if isinstance(index, tirx.IntImm) and int(index) == 0:
            continue
        term = index if stride == 1 else index * const(stride)
        total = term if total is None else total + term
    return const(0) if total is None else total


def flat_indices(buffer: Var, offset: Expr) -> list[Expr]:
    """Indices that address an element by its offset: zeros, then the offset along the last dimension."""
    return [const(0)] * (len(buffer.shape) - 1) + [offset]


def flatten(program: Program) -> None:
    """Give every access of a parameter flat indices; intermediates keep their dimensions."""
    for stage in program.stages:
        analyzer = analyzer_for(stage.axes)
        axes = [axis.var for axis in stage.axes]

        def index(buffer: Var, indices: Iterable[Expr], analyzer=analyzer, axes=axes) -> list[Expr]:
            if len(buffer.shape) == 0:
                return []
            offset = analyzer.simplify(flat_index(buffer, indices))
            return flat_indices(buffer, linear(offset, axes).expr())

        def load(old: TensorLoad, index=index) -> Expr:
            if program.is_local(old.source):
                return old
            return make_load(old.source, index(old.source, old.indices))

        for store in [*stage.stores, *stage.init]:
            store.value = replace_loads(store.value, load)
            store.indices = [replace_loads(i, load) for i in store.indices]
            if not program.is_local(store.buffer):
                store.indices = index(store.buffer, store.indices)


def buffer_of(access: Store | TensorLoad) -> Var:
    """The buffer that an access is to."""
    return access.buffer if isinstance(access, Store) else access.source


def offset_of(access: Store | TensorLoad) -> Expr:
    """The row-major offset of an access."""
    return flat_index(buffer_of(access), access.indices)


def accesses(stage: Stage, skip: Collection[Var] = ()) -> list[Store | TensorLoad]:
    """Stores and loads of a stage; loads from buffers in ``skip`` and from the stage's own result left out."""
    own = [store.buffer for store in stage.stores] if stage.is_reduction else []
    found: list[Store | TensorLoad] = [s for s in stage.stores if s.buffer not in skip]
    for store in stage.stores:
        for load in loads([*store.indices, store.value]):
            if load.source not in own and load.source not in skip:
                found.append(load)
    return found


def opaque(stage: Stage) -> set[Var]:
    """Axes that occur outside the linear part of an index: in conditions, gathers, casts."""
    axes = {axis.var for axis in stage.axes}
    found: set[Var] = set()

    def look(load: TensorLoad) -> Expr:
        for index in load.indices:
            rest = linear(index, axes).rest
            if rest is not None:
                found.update(variables(rest))
        # Hide the indices from the search below.
        return tirx.const(0, str(load.ty))

    for store in [*stage.stores, *stage.init]:
        for index in store.indices:
            rest = linear(replace_loads(index, look), axes).rest
            if rest is not None:
                found.update(variables(rest))
        found.update(variables(replace_loads(store.value, look)))
    return found & axes


def can_fuse(stage: Stage, outer: Axis, inner: Axis) -> bool:
    """Whether two axes of a stage can become one: each access walks over both with one stride."""
    if outer.reduce != inner.reduce or {outer.var, inner.var} & opaque(stage):
        return False
    return can_fuse_accesses(accesses(stage), outer.var, inner.var, inner.extent)


def can_fuse_accesses(found: Iterable[Store | TensorLoad], outer: Var, inner: Var, extent: int) -> bool:
    """Whether each access walks over an outer and an inner axis (of the given extent) with one stride."""
    for access in found:
        form = linear(offset_of(access), [outer, inner])
        if form.coefficients.get(outer, 0) != form.coefficients.get(inner, 0) * extent:
            return False
    return True


def fuse(stage: Stage, outer: Axis, inner: Axis) -> Axis:
    """Fuse two axes for which `can_fuse` holds; the inner one's variable now runs over both."""
    mapping = {outer.var: const(0)}
    stage.rewrite(lambda expr: substitute(expr, mapping))
    fused = Axis(inner.var, outer.extent * inner.extent, inner.reduce)
    stage.axes = [fused if axis is inner else axis for axis in stage.axes if axis is not outer]
    return fused


def fuse_adjacent(stage: Stage, candidates: Collection[Var]) -> None:
    """Fuse neighbouring axes of a stage among the candidates, as far as possible."""
    position = 0
    while position + 1 < len(stage.axes):
        outer, inner = stage.axes[position], stage.axes[position + 1]
        if outer.var in candidates and inner.var in candidates and can_fuse(stage, outer, inner):
            fuse(stage, outer, inner)
        else:
            position += 1
