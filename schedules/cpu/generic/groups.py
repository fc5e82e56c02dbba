"""Groups: consecutive stages that can share one loop nest, because they agree on some of their axes.

All stages of a softmax over rows agree on the rows; padding and pooling agree on the channels. A group runs all its
stages for one point of the shared axes before the next, so that intermediates are small and stay in cache.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tvm.tirx import Var

from .flat import accesses, can_fuse_accesses, opaque
from .nest import Axis, Program, Stage, const, loads, substitute

# Fewer shared points than this are no reason to join stages: they would lose their own parallelism.
_MIN_SHARED = 8


@dataclass
class Shared:
    """An axis that all stages of a group have; ``vars`` holds each stage's variable."""

    extent: int
    vars: list[Var]


@dataclass
class Group:
    """Stages with shared axes; ``private`` are the buffers that only live within one point of them.

    ``dropped[buffer]`` says which dimensions of a private buffer are shared axes, and so disappear.
    """

    stages: list[Stage]
    shared: list[Shared]
    private: list[Var] = field(default_factory=list)
    dropped: dict[Var, list[bool]] = field(default_factory=dict)

    def own_axes(self, index: int) -> list[Axis]:
        """Axes of a stage that are not shared."""
        taken = [shared.vars[index] for shared in self.shared]
        return [axis for axis in self.stages[index].axes if axis.var not in taken]


def make_groups(program: Program) -> list[Group]:
    """Split a program into groups, from its end backwards.

    Parameters
    ----------
    program : Program
        After inlining; parameters flat, intermediates not.

    Returns
    -------
    list of Group
        In order of execution; private buffers determined.
    """
    groups: list[Group] = []
    pending = list(program.stages)
    while pending:
        members = [pending.pop()]
        while pending:
            candidate = [pending[-1], *members]
            before, after = _points(_shared_axes(members)), _points(_shared_axes(candidate))
            if after < min(before, _MIN_SHARED) or not after:
                break
            members = candidate
            pending.pop()
        groups.insert(0, Group(members, _shared_axes(members)))
    for group in groups:
        _find_private(program, group)
    return groups


def fuse_shared(group: Group) -> None:
    """Fuse neighbouring shared axes where every access walks over both with one stride."""
    position = 0
    while position + 1 < len(group.shared):
        outer, inner = group.shared[position], group.shared[position + 1]
        if not _can_fuse(group, outer, inner):
            position += 1
            continue
        for stage, a, b in zip(group.stages, outer.vars, inner.vars, strict=True):
            mapping = {a: const(0)}
            stage.rewrite(lambda expr, mapping=mapping: substitute(expr, mapping))
            stage.axes = [
                Axis(b, outer.extent * inner.extent) if axis.var.same_as(b) else axis
                for axis in stage.axes
                if not axis.var.same_as(a)
            ]
        group.shared[position : position + 2] = [Shared(outer.extent * inner.extent, inner.vars)]


def _can_fuse(group: Group, outer: Shared, inner: Shared) -> bool:
    for stage, a, b in zip(group.stages, outer.vars, inner.vars, strict=True):
        if {a, b} & opaque(stage):
            return False
        if not can_fuse_accesses(accesses(stage, group.private), a, b, inner.extent):
            return False
    return True


def _points(shared: list[Shared]) -> int:
    """Number of points of shared axes; 0 if there are none."""
    points = 1 if shared else 0
    for axis in shared:
        points *= axis.extent
    return points


def _shared_axes(stages: list[Stage]) -> list[Shared]:
    """Axes of the last stage that every other stage has too."""
    last = stages[-1]
    number = {axis.var: i for i, axis in enumerate(last.spatial)}
    for position in range(len(stages) - 2, -1, -1):
        number.update(_match(stages[position], stages[position + 1 :], last, number))
    shared = []
    for i, axis in enumerate(last.spatial):
        found = [[a.var for a in stage.spatial if number.get(a.var) == i] for stage in stages]
        if all(len(vars_) == 1 for vars_ in found):
            shared.append(Shared(axis.extent, [vars_[0] for vars_ in found]))
    return shared


def _match(stage: Stage, later: list[Stage], last: Stage, number: dict[Var, int]) -> dict[Var, int]:
    """Numbers of a stage's axes, from the places where later stages read its results."""
    matched: dict[Var, int | None] = {}
    read = False
    for store in stage.stores:
        for consumer in later:
            for consumer_store in consumer.stores:
                for load in loads([*consumer_store.indices, consumer_store.value]):
                    if not load.source.same_as(store.buffer):
                        continue
                    read = True
                    seen: dict[Var, int | None] = {}
                    for own, index in zip(store.indices, load.indices, strict=True):
                        if isinstance(own, Var):
                            seen[own] = number.get(index) if isinstance(index, Var) else None
                    for axis in stage.spatial:
                        value = seen.get(axis.var)
                        if matched.setdefault(axis.var, value) != value:
                            matched[axis.var] = None
    if not read:
        # An independent result: any order of its points will do, so pair axes of equal extents.
        free = list(enumerate(last.spatial))
        for axis in stage.spatial:
            for i, other in free:
                if other.extent == axis.extent:
                    matched[axis.var] = i
                    free.remove((i, other))
                    break
    return {var: value for var, value in matched.items() if value is not None}


def _find_private(program: Program, group: Group) -> None:
    """Intermediates written and read in this group only; their shared dimensions are found by the writer's indices."""
    inside = group.stages
    for buffer in program.locals:
        writers = [i for i, s in enumerate(inside) if any(st.buffer.same_as(buffer) for st in s.stores)]
        outside = [s for s in program.stages if not any(s is member for member in inside)]
        used_outside = any(
            any(st.buffer.same_as(buffer) for st in s.stores)
            or any(load.source.same_as(buffer) for st in s.stores for load in loads([*st.indices, st.value]))
            for s in outside
        )
        if len(writers) != 1 or used_outside:
            continue
        taken = [shared.vars[writers[0]] for shared in group.shared]
        store = next(s for s in inside[writers[0]].stores if s.buffer.same_as(buffer))
        dropped = [isinstance(index, Var) and index in taken for index in store.indices]
        if sum(dropped) == len(taken):
            group.private.append(buffer)
            group.dropped[buffer] = dropped
