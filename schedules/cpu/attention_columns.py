"""Attention over columns: scores, softmax and weighted sum for one panel of queries; scores never leave the cache.

Both products read their operands as the projections left them: the scores of a key are the sum over the head's
channels of a broadcast ``K[d][key]`` times the vectors ``Q[d][lanes of queries]``, the output's channel `d` the sum
over the keys of a broadcast ``V[d][key]`` times the probabilities. Softmax runs down the keys, lane by lane.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T
from tvm.tirx import PrimFunc

from . import math
from .ir import Flat, TableReader, as_long, broadcast, build_function, constant, registers
from .isa import Isa
from .tile import multiply_tile, pieces, row_sizes

FIELDS = (
    "images", "heads", "query_panels", "key_panels", "key_lanes", "depth", "value_depth",
    "query_panel", "key_panel", "value_panel", "output_panel", "tokens", "key_tokens",
)  # fmt: skip

# Start of the scores of lanes that hold no key: their probability is exactly zero, also where every key is masked.
_NO_KEY = -3e38
# Lowest number that a mask adds to a score; exporters write the lowest of float32, to which nothing can be added.
_MASKED = -1e38


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
        mask = rest[0] if self.masked else None
        scale, table_buffer, y = rest[-3:]
        table, lanes = TableReader(table_buffer, FIELDS), isa.lanes
        width = self.vectors * lanes
        tasks = table.scalar("images") * table.scalar("query_panels") * table.scalar("heads")
        with T.parallel(0, tasks) as task:
            head = T.bind(T.truncmod(task, table.scalar("heads")))
            panel = T.bind(T.truncdiv(task, table.scalar("heads")))
            image = T.bind(T.truncdiv(panel, table.scalar("query_panels")))
            key_panels, key_lanes = T.bind(table.scalar("key_panels")), T.bind(table.scalar("key_lanes"))
            depth, value_depth = T.bind(table.scalar("depth")), T.bind(table.scalar("value_depth"))
            # Read from the table, since the allocation moves ahead of the bound variables.
            size = table.scalar("key_panels") * table.scalar("key_lanes") * width
            scores = Flat(T.alloc_buffer((size,), "float32", scope="global"), lanes)
            highest, total = registers(self.vectors, lanes), registers(self.vectors, lanes)
            for s in range(self.vectors):
                highest[s].set(constant(_NO_KEY, lanes))
                total[s].set(constant(0.0, lanes))
            query = T.bind(as_long(panel * table.scalar("query_panel") + head * depth * width))
            with T.serial(0, key_panels) as key_panel:
                place = T.bind(image * key_panels + key_panel)
                keys = T.bind(as_long(place * table.scalar("key_panel") + head * depth * key_lanes))
                self._scores(
                    isa, table, q, k, mask, scale, scores, highest, query, keys, image, key_panel, key_lanes, depth
                )
            with T.serial(0, key_panels * key_lanes) as key:
                for s in range(self.vectors):
                    at = as_long(key * width + s * lanes)
                    value = T.bind(math.exp(scores.load_vector(at) - highest[s].value))
                    total[s].set(total[s].value + value)
                    scores.store_vector(at, value)
            for s in range(self.vectors):
                total[s].set(constant(1.0, lanes) / total[s].value)
            values = T.bind(
                as_long(image * key_panels * table.scalar("value_panel") + head * value_depth * key_lanes)
            )
            output = T.bind(as_long(panel * table.scalar("output_panel") + head * value_depth * width))
            self._weighted(isa, table, v, scores, total, y, values, output, key_panels, key_lanes, value_depth)

    def _scores(
        self, isa: Isa, table: TableReader, q: Flat, k: Flat, mask: Flat | None, scale: Flat, scores: Flat,
        highest: list, query, keys, image, key_panel, key_lanes, depth,
    ) -> None:  # fmt: skip
        """Scaled scores of one key panel, and their maxima."""
        lanes, width = isa.lanes, self.vectors * isa.lanes
        rows = 4  # the keys of a panel are whole vectors of at least four lanes
        with T.serial(0, T.truncdiv(key_lanes, rows)) as step:
            first = T.bind(key_panel * key_lanes + step * rows)
            tokens = [T.bind(table.at("key_tokens", first + i)) for i in range(rows)]
            base = T.bind(keys + as_long(step * rows))
            for piece in pieces(isa, rows, self.vectors):

                def terms(d, piece=piece, base=base):
                    at = T.bind(query + as_long(d * width))
                    key = T.bind(base + as_long(d * key_lanes))
                    return [q.load_vector(at + s * lanes) for s in piece], [k[key + i] for i in range(rows)]

                zero = constant(0.0, lanes)
                tile = multiply_tile([zero] * rows, len(piece), lanes, depth, terms)
                for i in range(rows):
                    allowed = T.Select(tokens[i] >= 0, T.float32(0), T.float32(_NO_KEY))
                    if mask is not None:
                        added = mask[image * table.scalar("tokens") + T.max(tokens[i], T.int32(0))]
                        allowed = allowed + T.max(added, T.float32(_MASKED))
                    start = T.bind(broadcast(allowed, lanes))
                    for s, accumulator in zip(piece, tile[i], strict=True):
                        value = T.bind(accumulator.value * broadcast(scale[0], lanes) + start)
                        highest[s].set(T.max(highest[s].value, value))
                        scores.store_vector(as_long((first + i) * width + s * lanes), value)

    def _weighted(
        self, isa: Isa, table: TableReader, v: Flat, scores: Flat, total: list, y: Flat,
        values, output, key_panels, key_lanes, value_depth,
    ) -> None:  # fmt: skip
        """Sum of the values, weighted with the probabilities."""
        lanes, width = isa.lanes, self.vectors * isa.lanes
        done = T.int32(0)
        for rows in row_sizes(isa, self.vectors):
            count = T.bind(T.truncdiv(value_depth - done, rows))
            with T.serial(0, count) as step:
                channel = T.bind(done + step * rows)
                for piece in pieces(isa, rows, self.vectors):

                    def terms(key, piece=piece, channel=channel, rows=rows):
                        panel = T.bind(T.truncdiv(key, key_lanes))
                        lane = key - panel * key_lanes
                        at = T.bind(values + as_long(panel * table.scalar("value_panel") + channel * key_lanes + lane))
                        row = T.bind(as_long(key * width))
                        vectors = [scores.load_vector(row + s * lanes) for s in piece]
                        return vectors, [v[at + as_long(i * key_lanes)] for i in range(rows)]

                    zero = constant(0.0, lanes)
                    tile = multiply_tile([zero] * rows, len(piece), lanes, key_panels * key_lanes, terms)
                    for i in range(rows):
                        at = T.bind(output + as_long((channel + i) * width))
                        for s, accumulator in zip(piece, tile[i], strict=True):
                            y.store_vector(at + s * lanes, accumulator.value * total[s].value)
            done = T.bind(done + count * rows)
