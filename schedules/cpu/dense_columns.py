"""Dense convolutions and linear layers over columns: a register tile of rows x vectors.

For each k of a block (input channel and tap), the vectors of a piece of the tile are loaded once and multiplied with
one weight of each row of a strip.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T

from .column_layer import ColumnLayer
from .driver import DRIVER_FIELDS, HALO_FIELDS, Block, emit_tasks
from .epilogue import emit_activation, emit_stored_activation, is_applied_in_memory
from .ir import Flat, TableReader, as_long, broadcast, prefetch
from .isa import Isa
from .tile import DENSE_AHEAD, multiply_tile, pieces, row_sizes

FIELDS = (*DRIVER_FIELDS, *HALO_FIELDS, "strip", "strip_pointers", "depth")


@dataclass(frozen=True)
class DenseColumnsKernel(ColumnLayer):
    """A kernel of the family."""

    family = "dense_columns"

    def _body(self, isa: Isa, source: Flat, *rest: Flat) -> None:
        residual = rest[0] if self.residual else None
        values, offsets, numbers, table_buffer, output = rest[-5:]
        table = TableReader(table_buffer, (*FIELDS, *self.window_fields))
        sizes = row_sizes(isa, self.tile[0] * self.tile[1])

        def rows(block: Block) -> None:
            depth = T.bind(table.at("depth", block.index))
            for number, size in enumerate(sizes):
                pointer = block.index * len(sizes) + number
                begin = T.bind(table.at("strip_pointers", pointer))
                count = T.bind(table.at("strip_pointers", pointer + 1) - begin)
                # A piece's activations stay in the first-level cache while the weights of all strips stream by.
                for piece in pieces(isa, size, self.tile[0] * self.tile[1]):
                    with T.serial(0, count) as strip:
                        row = T.bind(table.at("strip", (begin + strip) * 2))
                        position = T.bind(table.at("strip", (begin + strip) * 2 + 1))
                        self._tile(
                            isa, block, table, values, offsets, numbers, output, residual,
                            row, position, depth, size, piece,
                        )  # fmt: skip

        fill_buffer = self._fill_buffer(isa, table, source, rest)
        emit_tasks(isa, table, source, self.halo, self.tile, rows, fill_buffer=fill_buffer)

    def _tile(
        self, isa: Isa, block: Block, table: TableReader, values: Flat, offsets: Flat, numbers: Flat,
        output: Flat, residual: Flat | None, row, position, depth, size: int, piece: range,
    ) -> None:  # fmt: skip
        """Emit one register tile: `size` rows, the vectors of `piece`."""
        lanes, width = isa.lanes, len(piece)
        channels = table.scalar("channels_out")
        starts = [
            T.bind(broadcast(numbers[row + i + channels * (1 - block.first)], lanes)) for i in range(size)
        ]
        base, pitch = as_long(block.base), as_long(block.pitch)
        first = as_long(position)

        def step(k) -> tuple[list, list]:
            origin = T.bind(base + as_long(offsets[k]))
            vectors = []
            for s in piece:
                column, r = divmod(s, self.tile[0])
                shift = origin + r * lanes if column == 0 else origin + (pitch * column + r * lanes)
                vectors.append(block.source.load_vector(shift))
            at = T.bind(first + as_long(k * size))
            if self.streamed:
                prefetch(values, at + DENSE_AHEAD)
            return vectors, [values[at + i] for i in range(size)]

        accumulators = multiply_tile(starts, width, lanes, depth, step)
        for i in range(size):
            y = T.bind(
                as_long(block.output + (row + i) * table.scalar("output_channel") + piece.start * lanes)
            )
            with T.If(block.first == 0):
                with T.Then():
                    for s, accumulator in enumerate(accumulators[i]):
                        accumulator.set(accumulator.value + output.load_vector(y + s * lanes))
            if residual is not None:
                with T.If(block.first == 1):
                    with T.Then():
                        for s, accumulator in enumerate(accumulators[i]):
                            accumulator.set(accumulator.value + residual.load_vector(y + s * lanes))
            in_memory = is_applied_in_memory(self.activation, isa)
            if not in_memory:
                with T.If(block.last == 1):
                    with T.Then():
                        for accumulator in accumulators[i]:
                            accumulator.set(
                                emit_activation(self.activation, accumulator.value, numbers, channels, row + i, lanes)
                            )
            for s, accumulator in enumerate(accumulators[i]):
                output.store_vector(y + s * lanes, accumulator.value)
            if in_memory:
                with T.If(block.last == 1):
                    with T.Then():
                        emit_stored_activation(
                            self.activation, output, y, len(accumulators[i]), numbers, channels, row + i, lanes
                        )
