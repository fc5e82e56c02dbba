"""Segments: an iteration domain cut where conditions change, so that no piece has a condition left.

Padding, concatenation and slicing are conditions on single axes against constants: each piece is a plain copy.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import dataclass

import tvm_ffi
from tvm import tirx
from tvm.ir import Expr

from .flat import linear
from .nest import Axis, Stage, Store, const, simplify, substitute

_COMPARISONS = (tirx.LT, tirx.LE, tirx.GT, tirx.GE, tirx.EQ, tirx.NE)
# More pieces than this cost more in code than conditions cost in time.
_MAX_PIECES = 24


@dataclass
class Piece:
    """A part of a stage's domain, and what became of each axis there (None: a single point)."""

    stage: Stage
    axes: dict[tirx.Var, Axis | None]


def cut(stage: Stage, along: Collection[tirx.Var]) -> list[Piece]:
    """Cut a stage without reduction at the thresholds of its conditions.

    Parameters
    ----------
    stage : Stage
        An injective stage.
    along : collection of Var
        Axes that may be cut.

    Returns
    -------
    list of Piece
        Pieces that together cover the domain; the stage itself where there is nothing to cut.
    """
    whole = Piece(stage, {axis.var: axis for axis in stage.axes})
    thresholds: dict[int, set[int]] = {}
    for store in stage.stores:
        tvm_ffi.structural_walk(
            store.value,
            tuple((kind, lambda node: _add_thresholds(node, stage, along, thresholds)) for kind in _COMPARISONS),
        )
    if not thresholds:
        return [whole]
    ranges = []
    for position, axis in enumerate(stage.axes):
        points = [0, *sorted(thresholds.get(position, ())), axis.extent]
        ranges.append(list(itertools.pairwise(points)))
    count = 1
    for parts in ranges:
        count *= len(parts)
    if count > _MAX_PIECES:
        return [whole]
    return [_piece(stage, box) for box in itertools.product(*ranges)]


def _add_thresholds(
    node: Expr, stage: Stage, along: Collection[tirx.Var], thresholds: dict[int, set[int]]
) -> None:
    if not str(node.a.ty).startswith("int"):
        return
    form = linear(node.a - node.b, [axis.var for axis in stage.axes])
    used = [(var, stride) for var, stride in form.coefficients.items() if stride]
    if form.rest is not None or len(used) != 1:
        return
    var, stride = used[0]
    if var not in along:
        return
    position = next(i for i, axis in enumerate(stage.axes) if axis.var.same_as(var))
    extent = stage.axes[position].extent
    kind = type(node)

    def holds(x: int) -> bool:
        value = stride * x + form.offset
        return {
            tirx.LT: value < 0,
            tirx.LE: value <= 0,
            tirx.GT: value > 0,
            tirx.GE: value >= 0,
            tirx.EQ: value == 0,
            tirx.NE: value != 0,
        }[kind]

    root = -form.offset // stride
    for point in range(max(1, root - 1), min(extent, root + 3)):
        if holds(point - 1) != holds(point):
            thresholds.setdefault(position, set()).add(point)


def _piece(stage: Stage, box: tuple[tuple[int, int], ...]) -> Piece:
    """One piece, its axes starting from 0 again; axes of a single point disappear."""
    mapping: dict[tirx.Var, Expr] = {}
    became: dict[tirx.Var, Axis | None] = {}
    for axis, (low, high) in zip(stage.axes, box, strict=True):
        if high - low == 1:
            mapping[axis.var] = const(low)
            became[axis.var] = None
            continue
        if (low, high) == (0, axis.extent):
            became[axis.var] = axis
            continue
        var = tirx.Var(axis.var.name, "int64")
        mapping[axis.var] = var + const(low) if low else var
        became[axis.var] = Axis(var, high - low)
    stores = [
        Store(s.buffer, [substitute(i, mapping) for i in s.indices], substitute(s.value, mapping))
        for s in stage.stores
    ]
    piece = Stage(stage.name, [axis for axis in became.values() if axis is not None], stores)
    simplify(piece)
    return Piece(piece, became)
