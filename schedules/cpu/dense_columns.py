"""Dense convolutions and linear layers over columns: a register tile of rows x vectors.

For each k of a block (input channel and tap), the vectors of a piece of the tile are loaded once and multiplied with
one weight of each row of a strip.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T
from tvm.tirx import PrimFunc

from .driver import DRIVER_FIELDS, HALO_FIELDS, Block, emit_tasks
from .epilogue import emit_activation
from .ir import Flat, TableReader, as_int, broadcast, build_function, registers
from .isa import Isa

FIELDS = (*DRIVER_FIELDS, *HALO_FIELDS, "strip", "strip_pointers", "depth")


def row_sizes(isa: Isa) -> tuple[int, ...]:
    """Heights of the strips that a kernel computes at once, descending."""
    return (6, 4, 2, 1) if isa.registers >= 32 else (4, 2, 1)


def piece_size(isa: Isa, rows: int) -> int:
    """Vectors that a strip of so many rows keeps in registers, next to weights and loads."""
    if isa.registers >= 32:
        return 4
    return 3 if rows >= 4 else 4


@dataclass(frozen=True)
class DenseColumnsKernel:
    """A kernel of the family; parameters as in :class:`.sparse_columns.SparseColumns`."""

    tile: tuple[int, int]
    halo: bool
    activation: str = "clip"
    residual: bool = False

    def symbol(self, isa: Isa) -> str:
        """Name of the compiled function."""
        source = "window" if self.halo else "panel"
        residual = "_residual" if self.residual else ""
        return (
            f"tvm_sparse_dense_columns_{source}_{self.tile[0]}x{self.tile[1]}_{self.activation}{residual}_{isa.name}"
        )

    def build(self, isa: Isa) -> PrimFunc:
        """Build the kernel: ``(x[, residual], values, offsets, numbers, table, y)``."""
        arguments = [("x", 4, "float32"), ("residual", 4, "float32")][: 2 if self.residual else 1]
        arguments += [
            ("values", 1, "float32"),
            ("offsets", 1, "uint16"),
            ("numbers", 1, "float32"),
            ("table", 1, "int32"),
            ("y", 4, "float32"),
        ]
        return build_function(self.symbol(isa), arguments, isa.lanes, lambda *flats: self._body(isa, *flats))

    def _body(self, isa: Isa, source: Flat, *rest: Flat) -> None:
        residual = rest[0] if self.residual else None
        values, offsets, numbers, table_buffer, output = rest[-5:]
        table = TableReader(table_buffer, FIELDS)
        sizes = row_sizes(isa)

        def rows(block: Block) -> None:
            depth = T.bind(table.at("depth", block.index))
            for number, size in enumerate(sizes):
                pointer = block.index * len(sizes) + number
                begin = T.bind(table.at("strip_pointers", pointer))
                count = T.bind(table.at("strip_pointers", pointer + 1) - begin)
                with T.serial(0, count) as strip:
                    row = T.bind(table.at("strip", (begin + strip) * 2))
                    position = T.bind(table.at("strip", (begin + strip) * 2 + 1))
                    for piece in _pieces(self.tile[0] * self.tile[1], piece_size(isa, size)):
                        self._tile(
                            isa, block, table, values, offsets, numbers, output, residual,
                            row, position, depth, size, piece,
                        )  # fmt: skip

        emit_tasks(isa, table, source, self.halo, rows)

    def _tile(
        self, isa: Isa, block: Block, table: TableReader, values: Flat, offsets: Flat, numbers: Flat,
        output: Flat, residual: Flat | None, row, position, depth, size: int, piece: range,
    ) -> None:  # fmt: skip
        """Emit one register tile: `size` rows, the vectors of `piece`."""
        lanes, width = isa.lanes, len(piece)
        channels = table.scalar("channels_out")
        accumulators = [registers(width, lanes) for _ in range(size)]
        for i in range(size):
            start = T.bind(broadcast(numbers[row + i + channels * (1 - block.first)], lanes))
            for accumulator in accumulators[i]:
                accumulator.set(start)
        with T.serial(0, depth) as k:
            origin = T.bind(block.base + as_int(offsets[k]))
            vectors = []
            for s in piece:
                column, r = divmod(s, self.tile[0])
                shift = origin + r * lanes if column == 0 else origin + (block.pitch * column + r * lanes)
                vectors.append(T.bind(block.source.load_vector(shift)))
            for i in range(size):
                weight = T.bind(broadcast(values[position + k * size + i], lanes))
                for accumulator, vector in zip(accumulators[i], vectors, strict=True):
                    accumulator.set(accumulator.value + weight * vector)
        for i in range(size):
            y = T.bind(block.output + (row + i) * table.scalar("output_channel") + piece.start * lanes)
            with T.If(block.first == 0):
                with T.Then():
                    for s, accumulator in enumerate(accumulators[i]):
                        accumulator.set(accumulator.value + output.load_vector(y + s * lanes))
            with T.If(block.last == 1):
                with T.Then():
                    for s, accumulator in enumerate(accumulators[i]):
                        value = accumulator.value
                        if residual is not None:
                            value = value + residual.load_vector(y + s * lanes)
                        accumulator.set(
                            emit_activation(self.activation, value, numbers, channels, row + i, lanes)
                        )
            for s, accumulator in enumerate(accumulators[i]):
                output.store_vector(y + s * lanes, accumulator.value)


def _pieces(vectors: int, size: int) -> list[range]:
    """Cut the vectors of a tile into nearly equal pieces."""
    count = -(-vectors // size)
    bounds = [vectors * i // count for i in range(count + 1)]
    return [range(a, b) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]
