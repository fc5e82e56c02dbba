"""Writing loops: the frames and small pieces that rules share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr, TensorLoad
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Var

from ..isa import Isa
from .flat import flat_indices, linear, offset_of
from .nest import Program, const, loads, make_load, replace_loads

# Below this many operations a function stays serial: starting a parallel loop costs half a microsecond, and what
# another core wrote before takes several times as long to read as what this core wrote.
MIN_PARALLEL_WORK = 20_000
# Enough iterations for a parallel loop to balance; more axes are not fused into it.
_PARALLEL_ITERATIONS = 64


def build(program: Program, emit: Callable[[], None]) -> tirx.PrimFunc:
    """A function of the same signature whose body is what ``emit`` writes.

    Parameters
    ----------
    program : Program
        Gives the signature.
    emit : callable
        Writes statements into the current IRBuilder.

    Returns
    -------
    tirx.PrimFunc
        The new function; its body is one opaque block.
    """
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            T.func_name("main")
            with T.sblock("root"):
                T.reads()
                T.writes()
                emit()
    return program.func.with_body(builder.get().body)


def alloc(buffer: Var) -> None:
    """Allocate a buffer that was made with `local_buffer`, here."""
    T.add_to_parent(tirx.AllocBuffer(buffer))


def local_buffer(size: int, dtype: str, name: str) -> Var:
    """A one-dimensional scratch buffer; under 1 KiB it becomes a stack slot, or registers where indices are known."""
    return tirx.decl_buffer((const(size),), dtype, name=name, scope="global")


@contextlib.contextmanager
def nested(extents: Sequence[int], parallel: bool = False) -> Iterator[list[Expr]]:
    """Loops around a body.

    Parameters
    ----------
    extents : sequence of int
        Extents from the outermost loop inwards.
    parallel : bool
        Whether the outermost loops, as many as balance needs, become one parallel loop.

    Yields
    ------
    list of Expr
        The loop indices.
    """
    with contextlib.ExitStack() as stack:
        indices: list[Expr] = []
        first = 0
        if parallel and extents:
            count, first = extents[0], 1
            while first < len(extents) and count < _PARALLEL_ITERATIONS:
                count *= extents[first]
                first += 1
            fused = stack.enter_context(T.parallel(const(0), const(count)))
            inner = count
            for position in range(first):
                inner //= extents[position]
                index = fused if inner == 1 else tirx.FloorDiv(fused, const(inner))
                indices.append(index if position == 0 else tirx.FloorMod(index, const(extents[position])))
        for extent in extents[first:]:
            indices.append(const(0) if extent == 1 else stack.enter_context(T.serial(const(0), const(extent))))
        yield indices


def tile_width(extent: int, isa: Isa, vectors: int) -> int:
    """Elements that one iteration of a vectorised loop takes.

    Parameters
    ----------
    extent : int
        Extent of the vector axis.
    isa : Isa
        Gives the vector width.
    vectors : int
        Most vectors to an iteration.

    Returns
    -------
    int
        A multiple of the vector width, the one that wastes least at the end; the extent itself where that is
        smaller than a vector.
    """
    if extent <= isa.lanes:
        return extent
    best, least = isa.lanes, None
    for count in range(1, vectors + 1):
        width = count * isa.lanes
        if width > extent:
            break
        # An iteration costs about as much as half a vector on top of its vectors.
        price = -(-extent // width) * (count + 0.5)
        if least is None or price <= least:
            best, least = width, price
    return best


@dataclass(frozen=True)
class Tiles:
    """Tiles of one width along an axis: the first starts at `first`, the last one ends at or before `stop`."""

    first: int
    count: int
    width: int
    stop: int

    def start(self, tile: Expr) -> Expr:
        """First element of a tile; a last tile that would reach beyond `stop` ends there, over its predecessor."""
        if self.count == 1:
            return const(self.first)
        start = tile * const(self.width) + const(self.first) if self.first else tile * const(self.width)
        whole = self.first + self.count * self.width <= self.stop
        return start if whole else tirx.Min(start, const(self.stop - self.width))


def tiles(extent: int, width: int, overlap: bool = True) -> list[Tiles]:
    """Tiles that cover an extent.

    Parameters
    ----------
    extent : int
        Extent of the axis.
    width : int
        What `tile_width` chose.
    overlap : bool
        Whether elements may be computed twice; otherwise the rest becomes a narrower tile. TVM lets a buffer take the
        place of one that is read for the last time with the same index: computed twice, an element would then be
        computed from its own result.

    Returns
    -------
    list of Tiles
        One entry, or two.
    """
    whole, left = divmod(extent, width)
    if overlap or not left:
        return [Tiles(0, -(-extent // width), width, extent)]
    return [Tiles(0, whole, width, whole * width), Tiles(whole * width, 1, left, extent)]


def stage_strided(value: Expr, lane: Var, width: int, isa: Isa) -> Expr:
    """Load every other element with two vector loads and a shuffle, instead of lane by lane.

    Parameters
    ----------
    value : Expr
        Expression of ``lane``; loads of stride 2 are written into small buffers here, before it.
    lane : Var
        The vector axis, from 0 to ``width - 1``.
    width : int
        A multiple of the vector width, or less than one vector (then nothing is done).
    isa : Isa
        Gives the vector width.

    Returns
    -------
    Expr
        The expression with those loads replaced.
    """
    if width % isa.lanes:
        return value
    staged: list[tuple[TensorLoad, Var]] = []
    for load in loads(value):
        if not len(load.indices) or str(load.ty) != "float32":
            continue
        form = linear(offset_of(load), [lane])
        if form.stride(lane) == 2 and not any(load.same_as(other) for other, _ in staged):
            staged.append((load, local_buffer(width, "float32", "every_other")))
    lanes = isa.lanes
    # First half from a load at the start; the second from one that ends at the last element needed.
    order = [2 * i if 2 * i < lanes else lanes + 2 * i - (lanes - 1) for i in range(lanes)]
    for load, buffer in staged:
        alloc(buffer)
        form = linear(offset_of(load), [lane])
        start = type(form)({}, form.offset, form.rest).expr()
        for first in range(0, width, lanes):
            parts = [
                make_load(
                    load.source, flat_indices(load.source, tirx.Ramp(start + const(2 * first + shift), const(1), lanes))
                )
                for shift in (0, lanes - 1)
            ]
            T.buffer_store(buffer, tirx.Shuffle(parts, [tirx.IntImm("int32", i) for i in order]), [
                tirx.Ramp(const(first), const(1), lanes)
            ])

    def replace(load: TensorLoad) -> Expr:
        for other, buffer in staged:
            if load.same_as(other):
                return make_load(buffer, [lane])
        return load

    return replace_loads(value, replace) if staged else value
