"""A function as a list of stages: what the rules of this folder read and rewrite.

The functions that TVM's legalisation and fusion produce are sequences of perfect loop nests around one block.
`parse` takes such a function apart; rules then write new loops around the same expressions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import tvm
import tvm_ffi
from tvm import s_tir, tirx
from tvm.ir import Expr, TensorLoad
from tvm.tirx import Var


@dataclass(frozen=True)
class Axis:
    """One loop of a stage: variable from 0 to extent - 1; ``reduce`` says whether it is summed over."""

    var: Var
    extent: int
    reduce: bool = False


@dataclass
class Store:
    """``buffer[indices] = value``."""

    buffer: Var
    indices: list[Expr]
    value: Expr


@dataclass
class Stage:
    """One block: stores executed for every point of the axes; ``init`` starts the reduction, if it is one."""

    name: str
    axes: list[Axis]
    stores: list[Store]
    init: list[Store] = field(default_factory=list)

    @property
    def spatial(self) -> list[Axis]:
        """Axes that are not reduced."""
        return [axis for axis in self.axes if not axis.reduce]

    @property
    def reduced(self) -> list[Axis]:
        """Axes that are reduced."""
        return [axis for axis in self.axes if axis.reduce]

    @property
    def is_reduction(self) -> bool:
        """Whether the stage accumulates."""
        return bool(self.init)

    @property
    def points(self) -> int:
        """Number of points of the iteration domain."""
        return volume(self.axes)

    def rewrite(self, function: Callable[[Expr], Expr]) -> None:
        """Apply a function to every index and value."""
        for store in [*self.stores, *self.init]:
            store.indices = [function(index) for index in store.indices]
            store.value = function(store.value)


@dataclass
class Program:
    """A function's stages in order of execution; ``locals`` are its intermediate buffers."""

    func: tirx.PrimFunc
    stages: list[Stage]
    locals: list[Var]

    def is_local(self, buffer: Var) -> bool:
        """Whether a buffer is an intermediate, not a parameter."""
        return any(buffer.same_as(other) for other in self.locals)

    def producer(self, buffer: Var) -> Stage | None:
        """The only stage that writes a buffer; None if there is none or several."""
        found = [stage for stage in self.stages if any(s.buffer.same_as(buffer) for s in stage.stores)]
        return found[0] if len(found) == 1 else None

    def consumers(self, buffer: Var) -> list[Stage]:
        """Stages that read a buffer, other than its own reduction."""
        return [
            stage
            for stage in self.stages
            if not any(s.buffer.same_as(buffer) for s in stage.stores)
            and any(load.source.same_as(buffer) for load in stage_loads(stage))
        ]


def volume(axes: Sequence[Axis]) -> int:
    """Number of points of a set of axes."""
    points = 1
    for axis in axes:
        points *= axis.extent
    return points


def const(value: int) -> Expr:
    """An int64 constant, the type of all indices."""
    return tirx.IntImm("int64", value)


def loads(expr: Expr | Sequence[Expr]) -> list[TensorLoad]:
    """All loads in an expression, also those in indices of others."""
    found: list[TensorLoad] = []
    tvm_ffi.structural_walk(expr, (TensorLoad, lambda load: found.append(load)))
    return found


def stage_loads(stage: Stage) -> list[TensorLoad]:
    """All loads of a stage, without those of its start value."""
    return [load for store in stage.stores for load in loads([*store.indices, store.value])]


def variables(expr: Expr) -> set[Var]:
    """Variables that occur in an expression, without buffers."""
    found: set[Var] = set()
    tvm_ffi.structural_walk(expr, (Var, lambda var: None if _is_buffer(var) else found.add(var)))
    return found


def substitute(expr: Expr, mapping: Mapping[Var, Expr]) -> Expr:
    """Replace variables."""
    if not mapping:
        return expr
    return tvm_ffi.structural_map(expr, (Var, lambda var: mapping.get(var, var)))


def replace_loads(expr: Expr, function: Callable[[TensorLoad], Expr]) -> Expr:
    """Replace loads, innermost first."""
    return tvm_ffi.structural_map(expr, (TensorLoad, function), order="post")


def make_load(buffer: Var, indices: Sequence[Expr]) -> Expr:
    """A load from a buffer."""
    return tirx.BufferLoad(buffer, list(indices))


def shape_of(buffer: Var) -> list[int]:
    """The buffer's static shape."""
    return [int(extent) for extent in buffer.shape]


def analyzer_for(axes: Sequence[Axis]) -> tvm.sym.Analyzer:
    """An analyzer that knows the ranges of the axes."""
    analyzer = tvm.sym.Analyzer()
    for axis in axes:
        analyzer.bind(axis.var, tvm.ir.Range(const(0), const(axis.extent)))
    return analyzer


def simplify(stage: Stage) -> None:
    """Simplify a stage's expressions with the ranges of its axes."""
    analyzer = analyzer_for(stage.axes)
    stage.rewrite(analyzer.simplify)


def parse(func: tirx.PrimFunc) -> Program | None:
    """Take a function apart into stages.

    Parameters
    ----------
    func : tirx.PrimFunc
        An s_tir function of static shapes.

    Returns
    -------
    Program or None
        None if the function is not a sequence of perfect nests of single blocks of stores.
    """
    root = func.body
    if not isinstance(root, s_tir.SBlockRealize) or len(root.block.iter_vars) or root.block.match_buffers:
        return None
    body = root.block.body
    stages = []
    for stmt in body if isinstance(body, tirx.SeqStmt) else [body]:
        stage = _parse_stage(stmt)
        if stage is None:
            return None
        stages.append(stage)
    buffers = [*func.params, *root.block.alloc_buffers]
    if not all(_is_buffer(b) and all(isinstance(e, tirx.IntImm) for e in b.shape) for b in buffers):
        return None
    if any(buffer.strides for buffer in buffers if hasattr(buffer, "strides")):
        return None
    return Program(func, stages, list(root.block.alloc_buffers))


def _is_buffer(var: Var) -> bool:
    return isinstance(var.ty, tirx.BufferType)


def _parse_stage(stmt: tirx.Stmt) -> Stage | None:
    loops: dict[Var, int] = {}
    while isinstance(stmt, tirx.For):
        plain = stmt.kind == tirx.ForKind.SERIAL and isinstance(stmt.extent, tirx.IntImm)
        if not plain or not isinstance(stmt.min, tirx.IntImm) or int(stmt.min) != 0 or stmt.annotations:
            return None
        loops[stmt.loop_var] = int(stmt.extent)
        stmt = stmt.body
    if not isinstance(stmt, s_tir.SBlockRealize):
        return None
    if not (isinstance(stmt.predicate, tirx.IntImm) and int(stmt.predicate) == 1):
        return None
    block = stmt.block
    if block.alloc_buffers or block.match_buffers:
        return None
    axes: list[Axis] = []
    units: dict[Var, Expr] = {}
    used: list[Var] = []
    for iter_var, value in zip(block.iter_vars, stmt.iter_values, strict=True):
        extent = iter_var.dom.extent
        if not isinstance(extent, tirx.IntImm) or iter_var.iter_type not in (
            tirx.IterVar.DataPar,
            tirx.IterVar.CommReduce,
        ):
            return None
        if int(extent) == 1:
            units[iter_var.var] = tirx.IntImm(str(iter_var.var.ty), 0)
            continue
        if not isinstance(value, Var) or loops.get(value) != int(extent) or value in used:
            return None
        used.append(value)
        axes.append(Axis(iter_var.var, int(extent), iter_var.iter_type == tirx.IterVar.CommReduce))
    if any(extent != 1 and var not in used for var, extent in loops.items()):
        return None
    stores = _parse_stores(block.body)
    init = [] if block.init is None else _parse_stores(block.init)
    if stores is None or init is None:
        return None
    stage = Stage(block.name_hint, axes, stores, init)
    if bool(stage.reduced) and not init:
        return None
    stage.rewrite(lambda expr: substitute(expr, units))
    simplify(stage)
    return stage


def _parse_stores(body: tirx.Stmt) -> list[Store] | None:
    """Stores of a block; None if it has other statements or a store reads what an earlier one wrote."""
    bound: dict[Var, Expr] = {}
    stores: list[Store] = []
    for stmt in body if isinstance(body, tirx.SeqStmt) else [body]:
        if isinstance(stmt, tirx.Bind):
            bound[stmt.var] = substitute(stmt.value, bound)
        elif isinstance(stmt, tirx.BufferStore):
            indices = [substitute(index, bound) for index in stmt.indices]
            value = substitute(stmt.value, bound)
            written = [store.buffer for store in stores]
            if any(load.source.same_as(b) for load in loads([*indices, value]) for b in written):
                return None
            stores.append(Store(stmt.buffer, indices, value))
        else:
            return None
    return stores
