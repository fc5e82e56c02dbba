"""Unstructured sparse convolutions and linear layers over columns.

For each row of a block and each of its nonzeros, one weight is broadcast and multiplied with the vectors of the tile:
``acc[s] += w * source[offset + s]``. Rows come in bundles, which one body computes at once: chains of multiply-adds
wait four cycles for each other, so small tiles need several rows. Bundles come grouped by their count of nonzeros (see
:mod:`tvm_sparse.sparsity.formats.columns`), so the inner loops run without mispredicted branches.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import tvm
from tvm.script.ir_builder import tirx as T

from tvm_sparse.sparsity.formats.columns import GROUP, QUAD, aligned

from .column_layer import ColumnLayer
from .driver import DRIVER_FIELDS, HALO_FIELDS, Block, emit_tasks
from .epilogue import emit_activation, emit_stored_activation, is_applied_in_memory
from .ir import AHEAD, LINE, Flat, TableReader, as_long, broadcast, constant, load_bits, prefetch, registers
from .isa import Isa
from .lanes import can_spread, load_quad, spread, spread_rows

# Most lines that a quad of every row fetches, a power of two.
MOST_LINES = 8
# Bundles from now whose outputs are fetched.
LATER = 2
# Accumulators of a bundle, where the registers allow: two multiply-adds a cycle wait four cycles for their sums.
_SUMS = 16
# Registers that a column of a pair of rows needs beside their sums: a vector and two weights.
_BESIDE_SUMS = 3

FIELDS = (
    *DRIVER_FIELDS, *HALO_FIELDS, "rows", "row_places", "group", "group_pointers", "prefetch", "fetch_outputs"
)  # fmt: skip


def has_long_vectors(isa: Isa) -> bool:
    """Whether a vector fills a cache line: with shorter ones, fetching with every quad takes longer than waiting."""
    return isa.lanes >= LINE


def can_pair(vectors: int, isa: Isa) -> bool:
    """Whether the sums of two rows of so many vectors fit the registers."""
    return 2 * vectors + _BESIDE_SUMS <= isa.registers


@dataclass(frozen=True)
class SparseColumns(ColumnLayer):
    """A kernel of the family.

    Parameters
    ----------
    in_place : bool
        Whether the output may overwrite the input: rows of a block read no channel that another block's rows write.
    pairs : bool
        Whether pairs of rows may share columns.
    parts : int
        Parts of about one size that the tile is computed in, one after the other for each K-block.
    """

    in_place: bool = False
    pairs: bool = False
    parts: int = 1

    @property
    def family(self) -> str:
        """Name of the format in the symbol."""
        return "sparse_columns_pairs" if self.pairs else "sparse_columns"

    @property
    def tile_name(self) -> str:
        """The tile in the symbol."""
        parts = f"_in_{self.parts}" if self.parts > 1 else ""
        return super().tile_name + parts

    @property
    def part_sizes(self) -> list[int]:
        """Vectors of each part of the tile, larger ones first."""
        vectors = self.tile[0] * self.tile[1]
        return [(vectors + i) // self.parts for i in reversed(range(self.parts))]

    def bundle(self, isa: Isa) -> int:
        """Rows that a body computes at once."""
        vectors = max(self.part_sizes)
        rows = max(1, min(4, _SUMS // vectors if isa.registers >= 32 else spread_rows(isa, vectors)))
        if not self.pairs:
            return rows
        return min(4, (isa.registers - _BESIDE_SUMS) // vectors, rows + rows % 2) // 2 * 2

    @property
    def shared_argument(self) -> int | None:
        """Position of the argument that the output may overwrite."""
        return 0 if self.in_place else super().shared_argument

    def _body(self, isa: Isa, source: Flat, *rest: Flat) -> None:
        residual = rest[0] if self.residual else None
        values, offsets, numbers, table_buffer, output = rest[-5:]
        table = TableReader(table_buffer, (*FIELDS, *self.window_fields))

        size = self.bundle(isa)
        parts = self.part_sizes

        def rows(block: Block) -> None:
            spread_weights = can_spread(isa, parts[0], size)
            emit = _BundleEmitter(self, isa, table, values, offsets, numbers, output, residual, spread_weights)
            begin = before = 0
            for vectors, count in Counter(parts).items():
                with T.serial(0, count) as part:
                    shift = T.bind((part * vectors + begin) * isa.lanes)
                    fetch = None
                    if has_long_vectors(isa) and not self.halo:
                        fetch = _Fetch.of_part(table, block, before + part, len(parts), size)
                    place = replace(
                        block, base=T.bind(block.base + shift), output=T.bind(block.output + shift)
                    )
                    self._groups(emit, place, table, size, vectors, fetch)
                begin += vectors * count
                before += count

        fill_buffer = self._fill_buffer(isa, table, source, rest)
        emit_tasks(isa, table, source, self.halo, self.tile, rows, fill_buffer=fill_buffer)

    def _groups(
        self, emit: _BundleEmitter, block: Block, table: TableReader, size: int, vectors: int, fetch: _Fetch | None
    ) -> None:
        """Emit the loops over groups and bundles of a block, for one part of the tile."""
        for tail in range(QUAD):
            pointer = block.index * QUAD + tail
            begin = T.bind(table.at("group_pointers", pointer))
            count = T.bind(table.at("group_pointers", pointer + 1) - begin)
            with T.serial(0, count) as group:
                entry = T.bind((begin + group) * GROUP)
                first_row = T.bind(table.at("group", entry))
                position = T.bind(table.at("group", entry + 2))
                quads = T.bind(table.at("group", entry + 3))
                shared = T.bind(table.at("group", entry + 4))
                with T.serial(0, table.at("group", entry + 1)) as bundle:
                    # Positions are 64 bit, so that constant distances fold into the addresses.
                    stride = aligned(size * shared) + aligned(size * (quads * QUAD + tail))
                    at = T.bind(as_long(position + bundle * stride))
                    row = T.bind(first_row + bundle * size)
                    emit.prefetch_outputs(block, row + LATER * size, size, vectors)
                    emit.bundle(block, row, size, vectors, at, shared, quads, tail, fetch)


@dataclass(frozen=True)
class _Fetch:
    """Fetches lines of the next block's activations, which follow this block's in memory, some with every quad.

    All at once they would fill the queue of the second-level cache, and loads would wait behind them.
    """

    source: Flat
    lines: object  # of a quad of every row
    pace: object  # elements for every value
    start: object  # first element that the part of the tile fetches
    first_value: object  # of the block

    @staticmethod
    def of_part(table: TableReader, block: Block, part, parts: int, size: int) -> _Fetch:
        """What one part of a tile fetches, each its share of the block, with bundles of `size` rows."""
        distance = T.bind(table.at("block", block.index * 4 + 1) * table.scalar("input_channel"))
        share = T.bind(T.truncdiv(distance * part, parts))
        lines = T.bind(table.at("prefetch", block.index))
        return _Fetch(
            source=block.source,
            lines=lines,
            pace=T.bind(as_long(T.truncdiv(lines * LINE + size * QUAD - 1, size * QUAD))),
            start=T.bind(as_long(block.base) + as_long(distance + share)),
            first_value=T.bind(
                as_long(table.at("group", table.at("group_pointers", block.index * QUAD) * GROUP + 2))
            ),
        )

    def quad(self, position) -> None:
        """Fetch the lines of the quad whose first value is at a position."""
        self._some(position, 0, 1)

    def _some(self, position, begin: int, end: int) -> None:
        """Fetch lines from number `begin` to `end` where so many are wanted, then twice as many."""
        with T.If(self.lines > begin):
            with T.Then():
                place = T.bind(self.start + (position - self.first_value) * self.pace)
                for line in range(begin, end):
                    prefetch(self.source, place + line * LINE)
                if end < MOST_LINES:
                    self._some(position, end, 2 * end)


@dataclass(frozen=True)
class _BundleEmitter:
    """Emits the body of a bundle of rows."""

    kernel: SparseColumns
    isa: Isa
    table: TableReader
    values: Flat
    offsets: Flat
    numbers: Flat
    output: Flat
    residual: Flat | None
    spread_weights: bool

    def prefetch_outputs(self, block: Block, row, size: int, vectors: int) -> None:
        """Fetch the lines that a later bundle writes, where the output lies beyond the second-level cache."""
        with T.If(tvm.tirx.all(block.first == 1, self.table.scalar("fetch_outputs") == 1)):
            with T.Then():
                for r in range(size):
                    place = T.bind(as_long(block.output + self.table.at("row_places", row + r)))
                    for s in range(vectors):
                        prefetch(self.output, place + s * self.isa.lanes, write=True)

    def bundle(
        self, block: Block, first_row, size: int, vectors: int, at, shared, quads, tail: int, fetch: _Fetch | None
    ) -> None:
        """Starts, shared columns, quads, tails, earlier sums, activation, stores."""
        lanes, output, residual = self.isa.lanes, self.output, self.residual
        accumulators = registers(vectors * size, lanes)
        sums = [accumulators[r * vectors : (r + 1) * vectors] for r in range(size)]
        channels = self.table.scalar("channels_out")
        places = [T.bind(as_long(block.output + self.table.at("row_places", first_row + r))) for r in range(size)]
        rows = [self.table.at("rows", first_row + r) for r in range(size)]

        def add(earlier: Flat) -> None:
            for place, tile in zip(places, sums, strict=True):
                for s, accumulator in enumerate(tile):
                    accumulator.set(accumulator.value + earlier.load_vector(place + s * lanes))

        with T.If(block.first == 1):
            with T.Then():
                for row, tile in zip(rows, sums, strict=True):
                    start = T.bind(broadcast(self.numbers[row], lanes))
                    for accumulator in tile:
                        accumulator.set(start)
            with T.Else():
                for accumulator in accumulators:
                    accumulator.set(constant(0.0, lanes))
        if self.kernel.pairs:
            if self.kernel.streamed:
                prefetch(self.values, at + as_long(AHEAD))
            with T.serial(0, shared) as column:
                self._shared_column(block, sums, T.bind(at + as_long(column * size)))
            at = T.bind(at + as_long(aligned(shared * size)))
        with T.serial(0, quads) as quad:
            now = T.bind(at + as_long(quad * (QUAD * size)))
            if self.kernel.streamed:
                prefetch(self.values, now + as_long(AHEAD))
            if fetch is not None:
                fetch.quad(now)
            self._step(block, sums, now, QUAD)
        self._step(block, sums, T.bind(at + as_long(quads * (QUAD * size))), tail)
        # Earlier sums and residuals come from the second-level cache, in the order of the rows' counts: where they are
        # added last, no multiply-add waits for them.
        with T.If(block.first == 0):
            with T.Then():
                add(output)
            if residual is not None:
                with T.Else():
                    add(residual)
        kind = self.kernel.activation
        in_memory = is_applied_in_memory(kind, self.isa)
        if not in_memory:
            with T.If(block.last == 1):
                with T.Then():
                    for row, tile in zip(rows, sums, strict=True):
                        for accumulator in tile:
                            value = emit_activation(kind, accumulator.value, self.numbers, channels, row, lanes)
                            accumulator.set(value)
        for place, tile in zip(places, sums, strict=True):
            for s, accumulator in enumerate(tile):
                output.store_vector(place + s * lanes, accumulator.value)
        if in_memory:
            with T.If(block.last == 1):
                with T.Then():
                    for i, (row, place) in enumerate(zip(rows, places, strict=True)):
                        # The last bundle repeats a row, or a pair of rows, whose sums are activated already.
                        new = tvm.tirx.all(True, *(row != earlier for earlier in rows[max(0, i - 2) : i]))
                        with T.If(new):
                            with T.Then():
                                emit_stored_activation(
                                    kind, output, place, vectors, self.numbers, channels, row, lanes
                                )

    def _shared_column(self, block: Block, sums: list, position) -> None:
        """A column of every pair of rows: what both multiply is loaded once.

        That leaves loads free for broadcasting the weights; permutes would take turns with the multiply-adds.
        """
        base, lanes = as_long(block.base), self.isa.lanes
        for p in range(0, len(sums), 2):
            origin = T.bind(base + as_long(self.offsets[position + p]))
            weights = [T.bind(broadcast(self.values[position + p + r], lanes)) for r in range(2)]
            for s in range(len(sums[p])):
                vector = T.bind(block.source.load_vector(self._shift(block, origin, s)))
                for row, weight in zip(sums[p : p + 2], weights, strict=True):
                    row[s].set(row[s].value + weight * vector)

    def _shift(self, block: Block, origin, s: int):
        """Position of a vector of the tile, from that of its first one."""
        column, row = divmod(s, self.kernel.tile[0])
        down = row * self.isa.lanes
        return origin + down if column == 0 else origin + (as_long(block.pitch) * column + down)

    def _step(self, block: Block, sums: list, position, count: int) -> None:
        """Some consecutive nonzeros of every row of the bundle."""
        base = as_long(block.base)
        if not count:
            return
        starts = [position + r * count for r in range(len(sums))]
        nonzeros = [zip(self._offsets(at, count), self._weights(at, count), strict=True) for at in starts]
        for of_rows in zip(*nonzeros, strict=True):
            for tile, (offset, weight) in zip(sums, of_rows, strict=True):
                origin = T.bind(base + offset)
                for s, accumulator in enumerate(tile):
                    vector = block.source.load_vector(self._shift(block, origin, s))
                    accumulator.set(accumulator.value + weight * vector)

    def _offsets(self, position, count: int):
        """Up to four consecutive offsets, cut out of one load: loads bound the kernel, shifts are free."""
        four = T.bind(load_bits(self.offsets, position, QUAD))
        for i in range(count):
            yield as_long((four >> T.uint64(16 * i)) & T.uint64(0xFFFF))

    def _weights(self, position, count: int):
        """Up to four consecutive weights, each in every lane of a vector; emitted one by one, as they are used."""
        if not self.spread_weights or not count:
            for i in range(count):
                yield T.bind(broadcast(self.values[position + i], self.isa.lanes))
            return
        quad = T.bind(load_quad(self.isa, self.values, position))
        for i in range(count):
            yield T.bind(spread(self.isa, quad, i))
