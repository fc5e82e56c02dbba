"""Inlining: stages that only rename, or are computed once per use, disappear into their consumers."""

from __future__ import annotations

import tvm_ffi
from tvm import tirx
from tvm.ir import Call, Expr, TensorLoad
from tvm.tirx import Var

from .flat import flat_index, flat_indices
from .nest import Program, Stage, analyzer_for, loads, make_load, replace_loads, simplify, substitute

# A consumer's expression may grow to this many nodes; beyond, the intermediate is kept.
_MAX_NODES = 400
# Cost of an expression, in arithmetic operations, below which it may be computed for each of several consumers.
_CHEAP = 2
_CALL_COST = 16


def cost(expr: Expr) -> int:
    """Arithmetic operations of an expression, not counting those in indices; a call of libm counts as 16.

    A condition counts as much: repeated in each consumer it breaks up their vector loops.
    """
    total = 0

    def count(node: object) -> None:
        nonlocal total
        if isinstance(node, Call):
            total += _CALL_COST
        elif isinstance(node, tirx.Add | tirx.Sub | tirx.Mul | tirx.Div | tirx.Min | tirx.Max | tirx.Select):
            total += 1

    # Indices are cheap beside memory and mostly constant along the inner loop.
    hidden = replace_loads(expr, lambda load: tirx.const(0, str(load.ty)))
    tvm_ffi.structural_walk(hidden, (Expr, count))
    return total


def inline(program: Program) -> None:
    """Inline stages into their consumers and drop reshapes at the end, as far as that repeats no work."""
    changed = True
    while changed:
        changed = any(_inline_stage(program, stage) for stage in list(program.stages))
        changed = _drop_final_reshape(program) or changed


def _identity(stage: Stage) -> list[Var | None] | None:
    """The axis of each dimension of a stage's result (None where the index is 0); None if not that simple."""
    if len(stage.stores) != 1:
        return None
    dims: list[Var | None] = []
    for index in stage.stores[0].indices:
        if isinstance(index, Var) and index not in dims:
            dims.append(index)
        elif isinstance(index, tirx.IntImm) and int(index) == 0:
            dims.append(None)
        else:
            return None
    return dims if len([d for d in dims if d is not None]) == len(stage.spatial) else None


def _inline_stage(program: Program, stage: Stage) -> bool:
    if stage.is_reduction or len(stage.stores) != 1:
        return False
    buffer, value = stage.stores[0].buffer, stage.stores[0].value
    dims = _identity(stage)
    if dims is None or not program.is_local(buffer) or program.producer(buffer) is not stage:
        return False
    consumers = program.consumers(buffer)
    if not consumers or not _worthwhile(program, stage, consumers):
        return False

    def replace(load: TensorLoad) -> Expr:
        if not load.source.same_as(buffer):
            return load
        mapping = {var: index for var, index in zip(dims, load.indices, strict=True) if var is not None}
        return substitute(value, mapping)

    for consumer in consumers:
        for store in consumer.stores:
            store.indices = [replace_loads(index, replace) for index in store.indices]
            store.value = replace_loads(store.value, replace)
        simplify(consumer)
    program.stages = [other for other in program.stages if other is not stage]
    program.locals = [other for other in program.locals if not other.same_as(buffer)]
    return True


def _worthwhile(program: Program, stage: Stage, consumers: list[Stage]) -> bool:
    value, buffer = stage.stores[0].value, stage.stores[0].buffer
    if isinstance(value, TensorLoad | tirx.IntImm | tirx.FloatImm):
        return True
    if isinstance(value, tirx.Cast) and isinstance(value.value, TensorLoad):
        return True
    price, nodes = cost(value), _nodes(value)
    if price >= _CALL_COST and any(cost(s.value) >= _CALL_COST for consumer in consumers for s in consumer.stores):
        # FastMath nests the polynomials of nested calls, and the code generator's time grows with the nesting.
        return False
    for consumer in consumers:
        uses = [ld for s in consumer.stores for ld in loads([*s.indices, s.value]) if ld.source.same_as(buffer)]
        if nodes * len(uses) + sum(_nodes(s.value) for s in consumer.stores) > _MAX_NODES:
            return False
        distinct = {str(use.indices) for use in uses}
        once = len(distinct) == 1 and consumer.points <= stage.points
        if not (once and len(consumers) == 1) and not (price <= _CHEAP and consumer.points <= stage.points):
            return False
    return True


def _nodes(expr: Expr) -> int:
    total = 0

    def count(_: object) -> None:
        nonlocal total
        total += 1

    tvm_ffi.structural_walk(expr, (Expr, count))
    return total


def _drop_final_reshape(program: Program) -> bool:
    """Let the last computing stage store straight into the result that a final reshape would copy to."""
    last = program.stages[-1]
    if last.is_reduction or len(last.stores) != 1 or not isinstance(last.stores[0].value, TensorLoad):
        return False
    source, target = last.stores[0].value, last.stores[0]
    producer = program.producer(source.source)
    if (
        not program.is_local(source.source)
        or program.is_local(target.buffer)
        or producer is None
        or any(consumer is not last for consumer in program.consumers(source.source))
        or str(source.ty) != str(target.buffer.dtype)
    ):
        return False
    if last.points != producer_points(producer):
        return False
    analyzer = analyzer_for(last.axes)
    if not analyzer.can_prove_equal(
        flat_index(source.source, source.indices), flat_index(target.buffer, target.indices)
    ):
        return False
    buffer, result = source.source, target.buffer

    def replace(load: TensorLoad) -> Expr:
        if not load.source.same_as(buffer):
            return load
        return make_load(result, flat_indices(result, flat_index(buffer, load.indices)))

    for store in [*producer.stores, *producer.init]:
        store.value = replace_loads(store.value, replace)
        if store.buffer.same_as(buffer):
            store.indices = flat_indices(result, flat_index(buffer, store.indices))
            store.buffer = result
    simplify(producer)
    program.stages.pop()
    program.locals = [other for other in program.locals if not other.same_as(buffer)]
    return True


def producer_points(stage: Stage) -> int:
    """Number of elements that a stage writes."""
    points = 1
    for axis in stage.spatial:
        points *= axis.extent
    return points
