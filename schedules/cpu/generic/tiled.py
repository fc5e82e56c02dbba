"""The general rule: groups of stages over shared axes, each stage vectorised along a contiguous axis.

It covers elementwise functions, broadcasts, copies with conditions, softmax and norms along any axis, reductions,
pooling and matrix-vector products. Within a group the vectors lie either along a shared axis, cut into tiles of a
few vectors (then every stage computes on whole tiles), or along an axis of each stage's own.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from math import prod

from tvm import tirx
from tvm.ir import Expr, TensorLoad
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Var

from ..isa import Isa
from .emit import MIN_PARALLEL_WORK, Tiles, alloc, build, local_buffer, nested, stage_strided, tile_width, tiles
from .flat import accesses, flat_index, flatten, fuse_adjacent, linear, offset_of
from .groups import Group, Shared, fuse_shared, make_groups
from .inline import cost, inline
from .nest import (
    Axis,
    Program,
    Stage,
    Store,
    const,
    make_load,
    replace_loads,
    shape_of,
    stage_loads,
    substitute,
    volume,
)
from .reduce import combination, horizontal
from .segments import cut

# Vectors of one iteration: independent work hides the latency of light operations; heavy ones fill the registers.
_VECTORS_LIGHT, _VECTORS_HEAVY = 4, 2
_HEAVY = 12
# Reductions of at most this many steps (pooling windows) are unrolled.
_MAX_UNROLL = 16


def tiled(program: Program, isa: Isa) -> tirx.PrimFunc | None:
    """Schedule any program of stages.

    Parameters
    ----------
    program : Program
        Is changed.
    isa : Isa
        Vector instruction set.

    Returns
    -------
    tirx.PrimFunc
        Vectorised and, above a minimum of work, parallel.
    """
    inline(program)
    flatten(program)
    if len(program.stages) == 1 and not program.stages[0].is_reduction:
        stage = program.stages[0]
        pieces = cut(stage, [axis.var for axis in stage.axes])
        groups = [make_groups(Program(program.func, [piece.stage], []))[0] for piece in pieces]
    else:
        groups = make_groups(program)
    private = [buffer for group in groups for buffer in group.private]
    outer = _flat_locals(groups, [buffer for buffer in program.locals if buffer not in private])
    emitters = [GroupEmitter(group, isa, outer) for group in groups]

    def emit() -> None:
        for buffer in outer:
            alloc(buffer)
        for emitter in emitters:
            emitter.emit()

    return build(program, emit)


def _flat_locals(groups: list[Group], buffers: list[Var]) -> list[Var]:
    """Give intermediates that several groups share one dimension.

    Later passes shrink an allocation to the region that its indices reach, dimension by dimension: offsets along the
    last dimension would be cut off.
    """
    flat = {buffer: local_buffer(prod(shape_of(buffer)), str(buffer.dtype), buffer.name) for buffer in buffers}

    def load(old: TensorLoad) -> Expr:
        if old.source not in flat:
            return old
        return make_load(flat[old.source], [flat_index(old.source, old.indices)])

    for group in groups:
        for stage in group.stages:
            for store in [*stage.stores, *stage.init]:
                store.value = replace_loads(store.value, load)
                store.indices = [replace_loads(index, load) for index in store.indices]
                if store.buffer in flat:
                    store.indices = [flat_index(store.buffer, store.indices)]
                    store.buffer = flat[store.buffer]
    return list(flat.values())


@dataclass
class Lane:
    """A vector axis at one tile: its variable in a stage, the tile's width and start."""

    var: Var
    width: int
    start: Expr


class GroupEmitter:
    """Writes the loops of one group; `outer` are the intermediates that it shares with other groups."""

    def __init__(self, group: Group, isa: Isa, outer: Collection[Var] = ()) -> None:
        self.group = group
        self.isa = isa
        self.outer = outer
        fuse_shared(group)
        for index, stage in enumerate(group.stages):
            fuse_adjacent(stage, [axis.var for axis in group.own_axes(index)])
        self.lane_axis = self._choose_lane()
        self.work = sum(stage.points * (1 + sum(cost(s.value) for s in stage.stores)) for stage in group.stages)
        self._localise()

    # Choosing the vector axis.

    def _vectors(self, stage: Stage) -> int:
        return _VECTORS_HEAVY if sum(cost(s.value) for s in stage.stores) >= _HEAVY else _VECTORS_LIGHT

    def _score(self, stage: Stage, axis: Axis) -> float:
        """How well a stage vectorises along an axis, per point."""
        score = 0.0
        for access in accesses(stage):
            stride = linear(offset_of(access), [axis.var]).stride(axis.var)
            if isinstance(access, Store):
                if stage.is_reduction:
                    score -= 1.0 if axis.reduce else (0.0 if stride == 1 else 2.0)
                else:
                    score += 2.0 if stride == 1 else -8.0
            else:
                score += {1: 2.0, 0: 1.0, 2: 1.0}.get(-1 if stride is None else stride, -3.0)
        used = -(-axis.extent // self.isa.lanes) * self.isa.lanes
        return score * axis.extent / used if score > 0 else score

    def _best_own(self, index: int) -> tuple[float, Axis | None]:
        scores = [(self._score(self.group.stages[index], axis), axis) for axis in self.group.own_axes(index)]
        return max(scores, key=lambda pair: pair[0], default=(0.0, None))

    def _choose_lane(self) -> int | None:
        """The shared axis to vectorise along; None if each stage takes its own best axis."""
        stages = self.group.stages
        own = sum(self._best_own(i)[0] * stage.points for i, stage in enumerate(stages))
        best, choice = own, None
        for number, shared in enumerate(self.group.shared):
            total = sum(
                self._score(stage, Axis(shared.vars[i], shared.extent)) * stage.points for i, stage in enumerate(stages)
            )
            if total > best:
                best, choice = total, number
        return choice

    # Intermediates: only the part of one point of the shared axes.

    def _localise(self) -> None:
        group = self.group
        self.lane_width = 0
        if self.lane_axis is not None:
            extent = group.shared[self.lane_axis].extent
            self.lane_width = tile_width(extent, self.isa, max(self._vectors(stage) for stage in group.stages))
        self.lane_index = tirx.Var("lane", "int64")
        self.locals: dict[Var, Var] = {}
        for buffer in group.private:
            kept = [e for e, gone in zip(shape_of(buffer), group.dropped[buffer], strict=True) if not gone]
            size = max(1, self.lane_width)
            for extent in kept:
                size *= extent
            self.locals[buffer] = local_buffer(size, str(buffer.dtype), buffer.name)
        for stage in group.stages:
            for store in [*stage.stores, *stage.init]:
                store.value = replace_loads(store.value, self._local_load)
                store.indices = [replace_loads(index, self._local_load) for index in store.indices]
                if store.buffer in self.locals:
                    store.indices = [self._local_index(store.buffer, store.indices)]
                    store.buffer = self.locals[store.buffer]

    def _renew_locals(self) -> None:
        """Other buffers in place of the private ones: each may be allocated in one place only."""
        fresh = {old: local_buffer(*shape_of(old), str(old.dtype), old.name) for old in self.locals.values()}
        self.locals = {buffer: fresh[old] for buffer, old in self.locals.items()}

        def load(old: TensorLoad) -> Expr:
            return make_load(fresh[old.source], old.indices) if old.source in fresh else old

        for stage in self.group.stages:
            stage.rewrite(lambda expr: replace_loads(expr, load))
            for store in [*stage.stores, *stage.init]:
                store.buffer = fresh.get(store.buffer, store.buffer)

    def _local_index(self, buffer: Var, indices: list[Expr]) -> Expr:
        total: Expr = const(0)
        dropped = self.group.dropped[buffer]
        stride = max(1, self.lane_width)
        for index, extent, gone in zip(
            reversed(list(indices)), reversed(shape_of(buffer)), reversed(dropped), strict=True
        ):
            if not gone:
                total = total + index * const(stride)
                stride *= extent
        return total + self.lane_index if self.lane_width else total

    def _local_load(self, load: TensorLoad) -> Expr:
        if load.source not in self.locals:
            return load
        return make_load(self.locals[load.source], [self._local_index(load.source, load.indices)])

    # Writing.

    def emit(self) -> None:
        """Write the group's loops into the current IRBuilder."""
        group = self.group
        others = [s for i, s in enumerate(group.shared) if i != self.lane_axis]
        if self.lane_axis is None:
            self._nest(others, None)
            return
        overlap = not any(_may_overwrite(stage, self.outer) for stage in group.stages)
        first, *rest = tiles(group.shared[self.lane_axis].extent, self.lane_width, overlap)
        self._nest(others, first)
        for part in rest:
            self._renew_locals()
            self._nest(others, part)

    def _nest(self, others: list[Shared], lanes: Tiles | None) -> None:
        """The loops over shared axes and all stages within; `lanes` are the tiles of a shared vector axis."""
        extents = [shared.extent for shared in others] + ([lanes.count] if lanes else [])
        with nested(extents, parallel=self.work >= MIN_PARALLEL_WORK) as indices:
            for buffer in self.locals.values():
                alloc(buffer)
            for number, stage in enumerate(self.group.stages):
                mapping = {s.vars[number]: index for s, index in zip(others, indices, strict=False)}
                lane = None
                if lanes is not None:
                    var = self.group.shared[self.lane_axis].vars[number]
                    lane = Lane(var, lanes.width, lanes.start(indices[-1]))
                self._stage(number, stage, mapping, lane)

    def _stage(self, number: int, stage: Stage, mapping: dict[Var, Expr], lane: Lane | None) -> None:
        own = self.group.own_axes(number)
        axis = None if lane is not None else self._best_own(number)[1]
        if stage.is_reduction:
            self._reduction(stage, own, axis, mapping, lane)
            return
        for piece in cut(stage, [a.var for a in own]):
            axes = [piece.axes[a.var] for a in own]
            vector = None if axis is None else piece.axes[axis.var]
            self._injective(piece.stage, [a for a in axes if a is not None], vector, mapping, lane)

    def _injective(
        self, stage: Stage, axes: list[Axis], axis: Axis | None, mapping: dict[Var, Expr], lane: Lane | None
    ) -> None:
        rest = [a for a in axes if a is not axis]
        with nested([a.extent for a in rest]) as indices:
            inner = {**mapping, **dict(zip([a.var for a in rest], indices, strict=True))}
            self._for_tiles(stage, axis, lane, lambda tile: self._vector_stores(stage.stores, inner, tile))

    def _for_tiles(
        self, stage: Stage, axis: Axis | None, lane: Lane | None, body: Callable[[Lane | None], None]
    ) -> None:
        """Loops over tiles of a stage's own vector axis; the given lane where that is shared already."""
        if axis is None:
            body(lane)
            return
        width = tile_width(axis.extent, self.isa, self._vectors(stage))
        overlap = not _may_overwrite(stage, [*self.outer, *self.locals.values()])
        for part in tiles(axis.extent, width, overlap):
            with nested([part.count]) as (index,):
                body(Lane(axis.var, part.width, part.start(index)))

    def _vector_stores(self, stores: list[Store], mapping: dict[Var, Expr], lane: Lane | None) -> None:
        """Stores for all lanes of a tile."""
        width = 1 if lane is None else lane.width
        lane_var = self.lane_index
        if lane is not None:
            mapping = {**mapping, lane.var: lane.start + lane_var}
        ready = []
        for store in stores:
            value = stage_strided(substitute(store.value, mapping), lane_var, width, self.isa)
            ready.append(Store(store.buffer, [substitute(i, mapping) for i in store.indices], value))
        with _lanes(width) as index:
            final = {lane_var: index}
            for store in ready:
                T.buffer_store(
                    store.buffer, substitute(store.value, final), [substitute(i, final) for i in store.indices]
                )

    def _reduction(
        self, stage: Stage, own: list[Axis], axis: Axis | None, mapping: dict[Var, Expr], lane: Lane | None
    ) -> None:
        spatial = [a for a in own if not a.reduce and a is not axis]
        reduced = [a for a in stage.reduced if a is not axis]
        along = axis if axis is not None and axis.reduce else None
        if along is not None and any(combination(store) is None for store in stage.stores):
            reduced, along, axis = stage.reduced, None, None
        with nested([a.extent for a in spatial]) as indices:
            inner = {**mapping, **dict(zip([a.var for a in spatial], indices, strict=True))}
            if along is not None:
                self._reduce_along(stage, reduced, along, inner)
            else:
                self._for_tiles(stage, axis, lane, lambda tile: self._reduce_lanes(stage, reduced, inner, tile))

    def _reduce_lanes(
        self, stage: Stage, reduced: list[Axis], mapping: dict[Var, Expr], lane: Lane | None
    ) -> None:
        """Reduce with one accumulator per lane of a tile."""
        width = 1 if lane is None else lane.width
        sums = {s.buffer: local_buffer(width, str(s.buffer.dtype), "sum") for s in stage.stores}
        for buffer in sums.values():
            alloc(buffer)

        def step(stores: list[Store], inner: dict[Var, Expr]) -> None:
            self._vector_stores(
                [Store(sums[s.buffer], [self.lane_index], _own_loads(s.value, sums, self.lane_index)) for s in stores],
                inner,
                lane,
            )

        step(stage.init, mapping)
        if volume(reduced) <= _MAX_UNROLL:
            for point in itertools.product(*(range(a.extent) for a in reduced)):
                at = {a.var: const(x) for a, x in zip(reduced, point, strict=True)}
                step(stage.stores, {**mapping, **at})
        else:
            with nested([a.extent for a in reduced]) as indices:
                step(stage.stores, {**mapping, **dict(zip([a.var for a in reduced], indices, strict=True))})
        done = [Store(s.buffer, s.indices, make_load(sums[s.buffer], [self.lane_index])) for s in stage.stores]
        self._vector_stores(done, mapping, lane)

    def _reduce_along(
        self, stage: Stage, reduced: list[Axis], along: Axis, mapping: dict[Var, Expr]
    ) -> None:
        """Reduce along the vector axis: partial results per lane, combined at the end."""
        width = tile_width(along.extent, self.isa, self._vectors(stage))
        if along.extent > self.isa.lanes and along.extent % width:
            width = max(w for w in range(self.isa.lanes, width + 1, self.isa.lanes) if w <= along.extent)
        sums = {s.buffer: local_buffer(width, str(s.buffer.dtype), "partial") for s in stage.stores}
        for buffer in sums.values():
            alloc(buffer)
        identity = {s.buffer: s.value for s in stage.init}
        start = [Store(sums[s.buffer], [self.lane_index], substitute(s.value, mapping)) for s in stage.init]
        self._vector_stores(start, mapping, Lane(along.var, width, const(0)))
        full, left = divmod(along.extent, width)
        with nested([a.extent for a in reduced]) as indices:
            inner = {**mapping, **dict(zip([a.var for a in reduced], indices, strict=True))}
            with nested([full]) as (tile,):
                lane = Lane(along.var, width, tile * const(width))
                self._vector_stores(
                    [Store(sums[s.buffer], [self.lane_index], _own_loads(s.value, sums, self.lane_index))
                     for s in stage.stores], inner, lane,
                )
            if left:
                # The rest once more as a whole tile that ends at the extent, its first elements masked.
                lane = Lane(along.var, width, const(along.extent - width))
                masked = []
                for store in stage.stores:
                    combine, element = combination(store)
                    kept = tirx.Select(self.lane_index >= const(width - left), element, identity[store.buffer])
                    own = make_load(sums[store.buffer], [self.lane_index])
                    masked.append(Store(sums[store.buffer], [self.lane_index], combine(own, kept)))
                self._vector_stores(masked, inner, lane)
        for store in stage.stores:
            combine, _ = combination(store)
            total = horizontal(sums[store.buffer], width, combine)
            T.buffer_store(store.buffer, total, [substitute(i, mapping) for i in store.indices])


def _may_overwrite(stage: Stage, scratch: Collection[Var]) -> bool:
    """Whether a stage writes scratch from scratch: from itself, or from a buffer whose place it may be given."""
    written = {store.buffer for store in stage.stores}
    read = {load.source for load in stage_loads(stage)} - (written if stage.is_reduction else set())
    return bool(written & set(scratch)) and bool(read & set(scratch))


@contextlib.contextmanager
def _lanes(width: int) -> Iterator[Expr]:
    """A vectorised loop; no loop for one lane."""
    if width == 1:
        yield const(0)
    else:
        with T.vectorized(const(0), const(width)) as index:
            yield index


def _own_loads(value: Expr, sums: dict[Var, Var], lane: Var) -> Expr:
    """An update with its loads of the result replaced by loads of the accumulator."""

    def replace(load: TensorLoad) -> Expr:
        return make_load(sums[load.source], [lane]) if load.source in sums else load

    return replace_loads(value, replace)

