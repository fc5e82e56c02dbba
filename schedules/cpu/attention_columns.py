"""Attention over columns: scores, softmax and weighted sum for a few vectors of queries; scores never leave the cache.

Both products read their operands as the projections left them: the scores of a key are the sum over the head's
channels of a broadcast ``K[d][key]`` times the vectors ``Q[d][lanes of queries]``, the output's channel `d` the sum
over the keys of a broadcast ``V[d][key]`` times the probabilities. Softmax runs down the keys, lane by lane. Queries,
keys and values may be ranges of channels of one tensor.

A task is one head of one *piece* of a query panel, as many vectors as a register tile is wide: its queries and scores
lie next to each other, so that both stay in the first-level cache.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import e, log2

from tvm.script.ir_builder import tirx as T
from tvm.tirx import PrimFunc

from . import math
from .ir import Flat, Register, TableReader, as_long, bind_lets, broadcast, build_function, constant, registers
from .isa import Isa
from .tile import accumulate, pieces, row_sizes, tile_registers

FIELDS = (
    "images", "heads", "query_panels", "depth", "value_depth",
    "query_base", "query_image", "query_panel",  # first element; elements between images, panels
    "key_base", "key_image", "key_lanes",  # `key_lanes`: elements between channels
    "value_base", "value_image",
    "output_panel",
    "tokens", "groups", "group_keys", "group_values", "key_tokens",
)  # fmt: skip

# Keys that are multiplied at once; they lie next to each other, and any vector holds as many.
GROUP = 4
# Start of the scores of lanes that hold no key: their probability is nothing, also where every key is masked.
_NO_KEY = -3e38
# Lowest number that a mask adds to a score; exporters write the lowest of float32, to which nothing can be added.
_MASKED = -1e38
# Channels of the scores in one iteration: fewer iterations than the branch predictor remembers.
_UNROLL = 4


@dataclass(frozen=True)
class AttentionColumns:
    """A kernel of the family.

    Parameters
    ----------
    vectors : int
        Vectors of a query panel.
    masked : bool
        Whether a tensor ``[batch, 1, 1, keys]`` is added to the scores.
    """

    vectors: int
    masked: bool = False

    def symbol(self, isa: Isa) -> str:
        """Name of the compiled function."""
        return f"tvm_sparse_attention_columns_{self.vectors}{'_masked' if self.masked else ''}_{isa.name}"

    def build(self, isa: Isa) -> PrimFunc:
        """Build the kernel: ``(q, k, v[, mask], scale, table, y)``; q, k, v and y in columns."""
        arguments = [(name, 4, "float32") for name in ("q", "k", "v", "mask")][: 4 if self.masked else 3]
        arguments += [("scale", 1, "float32"), ("table", 1, "int32"), ("y", 4, "float32")]
        return build_function(self.symbol(isa), arguments, isa.lanes, lambda *flats: self._body(isa, *flats))

    def _body(self, isa: Isa, q: Flat, k: Flat, v: Flat, *rest: Flat) -> None:
        parts = pieces(isa, GROUP, self.vectors)
        task = _Task(isa, self.vectors, q, k, v, rest[0] if self.masked else None, *rest[-3:])
        table = task.table
        # The keys and values of a head are read by all pieces of all panels in turn.
        panels = table.scalar("query_panels") * len(parts)
        with T.parallel(0, table.scalar("images") * table.scalar("heads") * panels) as number:
            piece = T.bind(T.truncmod(number, len(parts)))
            first = T.bind(T.truncdiv(piece * self.vectors, len(parts)))
            count = T.bind(T.truncdiv((piece + 1) * self.vectors, len(parts)) - first)
            panel = T.bind(T.truncmod(T.truncdiv(number, len(parts)), table.scalar("query_panels")))
            place = T.bind(T.truncdiv(number, panels))
            head = T.bind(T.truncmod(place, table.scalar("heads")))
            image = T.bind(T.truncdiv(place, table.scalar("heads")))
            for width in sorted({len(part) for part in parts}):
                with T.If(count == width):
                    with T.Then():
                        task.emit(width, image, head, panel, first)


@dataclass
class _Task:
    """Emits the work of one head on one piece of a query panel."""

    isa: Isa
    vectors: int
    q: Flat
    k: Flat
    v: Flat
    mask: Flat | None
    scale: Flat
    table_buffer: Flat
    y: Flat

    def __post_init__(self) -> None:
        self.table = TableReader(self.table_buffer, FIELDS)

    def emit(self, width: int, image, head, panel, first) -> None:
        """Emit the task for pieces of `width` vectors, from vector `first` on."""
        table, lanes = self.table, self.isa.lanes
        pitch, row = self.vectors * lanes, width * lanes
        depth, value_depth = T.bind(table.scalar("depth")), T.bind(table.scalar("value_depth"))
        key_lanes, groups = T.bind(table.scalar("key_lanes")), T.bind(table.scalar("groups"))
        # Sizes are read from the table, since allocations move ahead of bound variables.
        queries = Flat(T.alloc_buffer((table.scalar("depth") * row,), "float32", scope="global"), lanes)
        scores = Flat(T.alloc_buffer((table.scalar("groups") * (GROUP * row),), "float32", scope="global"), lanes)
        at = table.scalar("query_base") + image * table.scalar("query_image") + panel * table.scalar("query_panel")
        query = T.bind(as_long(at + head * depth * pitch + first * lanes))
        keys = T.bind(as_long(table.scalar("key_base") + image * table.scalar("key_image") + head * depth * key_lanes))
        at = table.scalar("value_base") + image * table.scalar("value_image")
        values = T.bind(as_long(at + head * value_depth * key_lanes))
        at = (image * table.scalar("query_panels") + panel) * table.scalar("output_panel")
        output = T.bind(as_long(at + head * value_depth * pitch + first * lanes))

        # Powers of two are cheaper than exponentials.
        factor = T.bind(broadcast(self.scale[0] * T.float32(log2(e)), lanes))
        with T.serial(0, depth) as d:
            for s in range(width):
                value = self.q.load_vector(query + as_long(d * pitch + s * lanes))
                queries.store_vector(as_long(d * row + s * lanes), value * factor)
        highest, total = registers(width, lanes), registers(width, lanes)
        for s in range(width):
            highest[s].set(constant(_NO_KEY, lanes))
            total[s].set(constant(0.0, lanes))
        with T.serial(0, groups) as group:
            self._scores(width, queries, scores, highest, keys, image, group, depth, key_lanes)
        with T.serial(0, groups) as group:
            for i in range(GROUP):
                for s in range(width):
                    at = as_long(group * (GROUP * row) + (i * row + s * lanes))
                    difference = T.bind(scores.load_vector(at) - highest[s].value)
                    value = T.bind(bind_lets(math.exp2_nonpositive(difference)))
                    total[s].set(total[s].value + value)
                    scores.store_vector(at, value)
        for s in range(width):
            total[s].set(constant(1.0, lanes) / total[s].value)
        self._weighted(width, scores, total, values, output, groups, value_depth, key_lanes)

    def _scores(
        self, width: int, queries: Flat, scores: Flat, highest: list[Register], keys, image, group, depth, key_lanes
    ) -> None:  # fmt: skip
        """Scores of a group of keys, in powers of two, and their maxima."""
        table, lanes = self.table, self.isa.lanes
        row = width * lanes
        base = T.bind(keys + as_long(table.at("group_keys", group)))
        tokens = [T.bind(table.at("key_tokens", group * GROUP + i)) for i in range(GROUP)]
        starts = [
            T.bind(broadcast(T.Select(token >= 0, T.float32(0), T.float32(_NO_KEY)), lanes)) for token in tokens
        ]
        tile = tile_registers(starts, width, lanes)

        def step(d) -> None:
            at = as_long(d * row)
            key = T.bind(base + as_long(d * key_lanes))
            vectors = [queries.load_vector(at + s * lanes) for s in range(width)]
            accumulate(tile, vectors, [self.k[key + i] for i in range(GROUP)], lanes)

        _unrolled(depth, _UNROLL, step)
        for i, token in enumerate(tokens):
            added = None
            if self.mask is not None:
                value = self.mask[image * table.scalar("tokens") + T.max(token, T.int32(0))]
                added = T.bind(broadcast(T.max(value * T.float32(log2(e)), T.float32(_MASKED)), lanes))
            for s, accumulator in enumerate(tile[i]):
                value = accumulator.value if added is None else T.bind(accumulator.value + added)
                highest[s].set(T.max(highest[s].value, value))
                scores.store_vector(as_long((group * GROUP + i) * row + s * lanes), value)

    def _weighted(
        self, width: int, scores: Flat, total: list[Register], values, output, groups, value_depth, key_lanes
    ) -> None:  # fmt: skip
        """Sum of the values, weighted with the probabilities."""
        table, lanes = self.table, self.isa.lanes
        pitch, row = self.vectors * lanes, width * lanes
        done = T.int32(0)
        for rows in _row_sizes(self.isa, width):
            count = T.bind(T.truncdiv(value_depth - done, rows))
            with T.serial(0, count) as step:
                channel = T.bind(done + step * rows)
                base = T.bind(values + as_long(channel * key_lanes))
                tile = tile_registers([constant(0.0, lanes)] * rows, width, lanes)
                with T.serial(0, groups) as group:
                    at = T.bind(base + as_long(table.at("group_values", group)))
                    for i in range(GROUP):
                        score = as_long((group * GROUP + i) * row)
                        vectors = [scores.load_vector(score + s * lanes) for s in range(width)]
                        weights = [self.v[at + as_long(c * key_lanes) + i] for c in range(rows)]
                        accumulate(tile, vectors, weights, lanes)
                for c in range(rows):
                    at = T.bind(output + as_long((channel + c) * pitch))
                    for s, accumulator in enumerate(tile[c]):
                        self.y.store_vector(at + s * lanes, accumulator.value * total[s].value)
            done = T.bind(done + count * rows)


def _row_sizes(isa: Isa, width: int) -> tuple[int, ...]:
    """Channels of the output that a tile computes at once, descending; depths of heads are multiples of eight."""
    return (8, 4, 2, 1) if isa.registers >= 32 and width <= 3 else row_sizes(isa, width)


def _unrolled(count, factor: int, step: Callable) -> None:
    """A loop of `count` steps, `factor` of them in an iteration."""
    whole = T.bind(T.truncdiv(count, factor))
    with T.serial(0, whole) as outer:
        for i in range(factor):
            step(outer * factor + i)
    with T.serial(0, count - whole * factor) as rest:
        step(whole * factor + rest)




