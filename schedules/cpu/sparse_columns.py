"""Unstructured sparse convolutions and linear layers over columns.

For each row of a block and each of its nonzeros, one weight is broadcast and multiplied with the vectors of the tile:
``acc[s] += w * source[offset + s]``. Rows come grouped by their count of nonzeros (see
:mod:`tvm_sparse.sparsity.formats.columns`), so the inner loops run without mispredicted branches. Sums of later
K-blocks are added at the end of a row: the multiply-add chain must not wait for the second-level cache.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T

from tvm_sparse.sparsity.formats.columns import QUAD

from .column_layer import ColumnLayer
from .driver import DRIVER_FIELDS, HALO_FIELDS, Block, emit_tasks
from .epilogue import emit_activation
from .ir import Flat, TableReader, as_long, broadcast, prefetch, registers
from .isa import Isa
from .lanes import can_spread, load_quad, spread

FIELDS = (*DRIVER_FIELDS, *HALO_FIELDS, "rows", "group", "group_pointers", "prefetch", "spread")


@dataclass(frozen=True)
class SparseColumns(ColumnLayer):
    """A kernel of the family.

    Parameters
    ----------
    in_place : bool
        Whether the output may overwrite the input: rows of a block read no channel that another block's rows write.
    """

    in_place: bool = False

    family = "sparse_columns"

    @property
    def shared_argument(self) -> int | None:
        """Position of the argument that the output may overwrite."""
        return 0 if self.in_place else super().shared_argument

    def _body(self, isa: Isa, source: Flat, *rest: Flat) -> None:
        residual = rest[0] if self.residual else None
        values, offsets, numbers, table_buffer, output = rest[-5:]
        table = TableReader(table_buffer, FIELDS)

        def rows(block: Block) -> None:
            spread_weights = can_spread(isa, self.tile[0] * self.tile[1])
            indices = [T.bind(table.vector("spread", i * isa.lanes)) for i in range(QUAD * spread_weights)]
            first_of_block = T.bind(table.at("group", table.at("group_pointers", block.index * QUAD) * 4))
            for tail in range(QUAD):
                pointer = block.index * QUAD + tail
                begin = T.bind(table.at("group_pointers", pointer))
                count = T.bind(table.at("group_pointers", pointer + 1) - begin)
                with T.serial(0, count) as group:
                    entry = T.bind((begin + group) * 4)
                    first_row = T.bind(table.at("group", entry))
                    position = T.bind(table.at("group", entry + 2))
                    quads = T.bind(table.at("group", entry + 3))
                    with T.serial(0, table.at("group", entry + 1)) as row:
                        # Positions are 64 bit, so that constant distances fold into the addresses.
                        at = T.bind(as_long(position + row * (quads * QUAD + tail)))
                        channel = T.bind(table.at("rows", first_row + row))
                        self._row(
                            isa, block, table, values, offsets, numbers, output, residual,
                            channel, at, quads, tail, first_row - first_of_block + row, indices,
                        )  # fmt: skip

        emit_tasks(isa, table, source, self.halo, self.tile, rows)

    def _row(
        self, isa: Isa, block: Block, table: TableReader, values: Flat, offsets: Flat, numbers: Flat,
        output: Flat, residual: Flat | None, channel, at, quads, tail: int, number, indices: list,
    ) -> None:  # fmt: skip
        """Emit one row: start, quads, tail, earlier sums, residual, activation, store."""
        lanes, (tile_rows, tile_columns) = isa.lanes, self.tile
        count = tile_rows * tile_columns
        accumulators = registers(count, lanes)
        channels = table.scalar("channels_out")
        y = T.bind(as_long(block.output + channel * table.scalar("output_channel")))
        start = T.bind(numbers[channel + channels * (1 - block.first)])
        for accumulator in accumulators:
            accumulator.set(broadcast(start, lanes))
        base, pitch = as_long(block.base), as_long(block.pitch)
        if not self.halo:
            # The next block's activations follow this block's in memory: each row fetches some lines of them.
            lines = T.bind(table.at("prefetch", block.index))
            with T.If(lines > 0):
                with T.Then():
                    distance = table.at("block", block.index * 4 + 1) * table.scalar("input_channel")
                    ahead = T.bind(base + as_long(distance))
                    with T.serial(0, lines) as line:
                        prefetch(block.source, ahead + as_long((number * lines + line) * 16))

        def multiply(position, weight) -> None:
            origin = T.bind(base + as_long(offsets[position]))
            for s, accumulator in enumerate(accumulators):
                column, r = divmod(s, tile_rows)
                shift = origin + r * lanes if column == 0 else origin + (pitch * column + r * lanes)
                accumulator.set(accumulator.value + weight * block.source.load_vector(shift))

        with T.serial(0, quads) as quad:
            step = T.bind(at + as_long(quad * QUAD))
            for i, weight in enumerate(self._weights(isa, values, step, QUAD, indices)):
                multiply(step + i, weight)
        rest = T.bind(at + as_long(quads * QUAD))
        for i, weight in enumerate(self._weights(isa, values, rest, tail, indices)):
            multiply(rest + i, weight)
        with T.If(block.first == 0):
            with T.Then():
                for s, accumulator in enumerate(accumulators):
                    accumulator.set(accumulator.value + output.load_vector(y + s * lanes))
        if residual is not None:
            with T.If(block.first == 1):
                with T.Then():
                    for s, accumulator in enumerate(accumulators):
                        accumulator.set(accumulator.value + residual.load_vector(y + s * lanes))
        with T.If(block.last == 1):
            with T.Then():
                for accumulator in accumulators:
                    accumulator.set(
                        emit_activation(self.activation, accumulator.value, numbers, channels, channel, lanes)
                    )
        for s, accumulator in enumerate(accumulators):
            output.store_vector(y + s * lanes, accumulator.value)

    def _weights(self, isa: Isa, values: Flat, position, count: int, indices: list):
        """Up to four consecutive weights, each in every lane of a vector; emitted one by one, as they are used."""
        if not indices or not count:
            for i in range(count):
                yield T.bind(broadcast(values[position + i], isa.lanes))
            return
        quad = T.bind(load_quad(isa, values, position))
        for i in range(count):
            yield T.bind(spread(isa, quad, indices[i]))
