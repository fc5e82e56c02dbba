"""Block-sparse convolutions and linear layers over columns: a register tile of a few rows x a few vectors.

For each block of R rows, the vectors of its input channel are loaded once and multiplied with one weight of each row:
the multiply-add units bound this kernel, not the loads that bound the unstructured one. Blocks of one row and several
channels save offsets only. Strips of rows come grouped by their count of blocks (see
:mod:`tvm_sparse.sparsity.formats.blocks`), so that the loops' ends are predicted.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tvm.script.ir_builder import tirx as T

from tvm_sparse.sparsity.formats.blocks import strip_sizes

from .column_layer import ColumnLayer
from .driver import DRIVER_FIELDS, HALO_FIELDS, Block, emit_tasks
from .epilogue import emit_activation
from .ir import AHEAD, LINE, Flat, Register, TableReader, as_long, broadcast, prefetch, registers
from .isa import Isa
from .lanes import can_spread, load_quad, spread

FIELDS = (*DRIVER_FIELDS, *HALO_FIELDS, "rows", "group", "group_pointers", "prefetch")

# Entries of a group: first strip, strips, first offset, first value, blocks of a strip, first row.
GROUP = 6


def block_pieces(isa: Isa, rows: int, vectors: int) -> list[range]:
    """Cut the vectors of a tile into nearly equal pieces whose sums, weights and vectors fit the registers."""
    if rows == 1:
        return [range(vectors)]
    # Beside the sums, either the vectors or the weights of a step stay in registers, the others come one by one.
    size = max(s for s in range(1, vectors + 1) if s == 1 or rows * s + min(rows, s) + 1 <= isa.registers)
    count = -(-vectors // size)
    bounds = [vectors * i // count for i in range(count + 1)]
    return [range(a, b) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]


@dataclass(frozen=True)
class BlockColumnsKernel(ColumnLayer):
    """A kernel of the family.

    Parameters
    ----------
    shape : tuple of int
        Rows and channels of a block.
    """

    shape: tuple[int, int] = field(kw_only=True)

    @property
    def family(self) -> str:
        """Name of the format in the symbol."""
        return f"block{self.shape[0]}x{self.shape[1]}_columns"

    def _body(self, isa: Isa, source: Flat, *rest: Flat) -> None:
        _Emitter(self, isa, source, *rest).emit()


class _Emitter:
    """Emits the body of one kernel."""

    def __init__(self, kernel: BlockColumnsKernel, isa: Isa, source: Flat, *rest: Flat) -> None:
        self.kernel, self.isa, self.lanes = kernel, isa, isa.lanes
        self.source = source
        self.residual = rest[0] if kernel.residual else None
        self.values, self.offsets, self.numbers, table, self.output = rest[-5:]
        self.table = TableReader(table, FIELDS)

    def emit(self) -> None:
        """Emit the loops over tasks and K-blocks, and the work of each."""
        emit_tasks(self.isa, self.table, self.source, self.kernel.halo, self.kernel.tile, self._strips)

    def _strips(self, block: Block) -> None:
        """Loops over sizes of strips, pieces of the tile, groups and strips."""
        table, sizes = self.table, strip_sizes(self.kernel.shape[0])
        vectors, width = self.kernel.tile[0] * self.kernel.tile[1], self.kernel.shape[1]
        spread_weights = width == 4 and can_spread(self.isa, vectors)
        first_pointer = block.index * len(sizes)
        first_of_block = T.bind(table.at("group", table.at("group_pointers", first_pointer) * GROUP))
        for number, size in enumerate(sizes):
            begin = T.bind(table.at("group_pointers", first_pointer + number))
            groups = T.bind(table.at("group_pointers", first_pointer + number + 1) - begin)
            # A piece's activations stay in the first-level cache while the weights of all strips stream by.
            for piece in block_pieces(self.isa, size, vectors):
                with T.serial(0, groups) as group:
                    entry = T.bind((begin + group) * GROUP)
                    first, offset, value, count, row = (
                        T.bind(table.at("group", entry + i)) for i in (0, 2, 3, 4, 5)
                    )
                    with T.serial(0, table.at("group", entry + 1)) as strip:
                        rows = [T.bind(table.at("rows", row + (strip * size + i))) for i in range(size)]
                        if not self.kernel.halo and piece.start == 0:
                            self._prefetch(block, first - first_of_block + strip)
                        # Positions are 64 bit, so that constant distances fold into the addresses.
                        at = T.bind(as_long(offset + strip * count))
                        weights_at = T.bind(as_long(value + strip * count * (size * width)))
                        self._strip(block, rows, at, weights_at, count, piece, spread_weights)

    def _prefetch(self, block: Block, number) -> None:
        """The next block's activations follow this block's in memory: each strip fetches some lines of them."""
        table = self.table
        lines = T.bind(table.at("prefetch", block.index))
        with T.If(lines > 0):
            with T.Then():
                distance = table.at("block", block.index * 4 + 1) * table.scalar("input_channel")
                ahead = T.bind(as_long(block.base) + as_long(distance))
                with T.serial(0, lines) as line:
                    prefetch(block.source, ahead + as_long((number * lines + line) * LINE))

    def _strip(self, block: Block, rows: list, at, weights_at, count, piece: range, spread_weights: bool) -> None:
        """Emit one strip on one piece: start, blocks, then each row's end."""
        lanes, size, channels = self.lanes, len(rows), self.table.scalar("channels_out")
        accumulators = [registers(len(piece), lanes) for _ in rows]
        for row, row_registers in zip(rows, accumulators, strict=True):
            start = T.bind(broadcast(self.numbers[row + channels * (1 - block.first)], lanes))
            for accumulator in row_registers:
                accumulator.set(start)
        base, width = as_long(block.base), self.kernel.shape[1]
        stride = T.bind(as_long(self.table.scalar("buffer_channel" if self.kernel.halo else "input_channel")))
        with T.serial(0, as_long(count)) as k:
            origin = T.bind(base + as_long(self.offsets[at + k]))
            weights = T.bind(weights_at + k * (size * width))
            prefetch(self.values, weights + AHEAD)
            quad = T.bind(load_quad(self.isa, self.values, weights)) if spread_weights else None
            for channel in range(width):
                shifts = [self._shift(block, origin + stride * channel if channel else origin, s) for s in piece]
                if quad is not None:
                    self._multiply(block, accumulators, shifts, [T.bind(spread(self.isa, quad, channel))])
                else:
                    scalars = [self.values[weights + (channel * size + i)] for i in range(size)]
                    self._multiply(block, accumulators, shifts, [broadcast(w, lanes) for w in scalars])
        self._finish(block, accumulators, rows, piece)

    def _shift(self, block: Block, origin, vector: int):
        column, r = divmod(vector, self.kernel.tile[0])
        return origin + r * self.lanes if column == 0 else origin + (as_long(block.pitch) * column + r * self.lanes)

    def _multiply(self, block: Block, accumulators: list[list[Register]], shifts: list, weights: list) -> None:
        """Add one channel: each vector is loaded once, and each weight; the fewer ones are loaded first."""
        if len(weights) == 1:
            for accumulator, shift in zip(accumulators[0], shifts, strict=True):
                accumulator.set(accumulator.value + weights[0] * block.source.load_vector(shift))
        elif len(weights) <= len(shifts):
            bound = [T.bind(weight) for weight in weights]
            for s, shift in enumerate(shifts):
                vector = T.bind(block.source.load_vector(shift))
                for row, weight in zip(accumulators, bound, strict=True):
                    row[s].set(row[s].value + weight * vector)
        else:
            vectors = [T.bind(block.source.load_vector(shift)) for shift in shifts]
            for row, weight in zip(accumulators, weights, strict=True):
                value = T.bind(weight)
                for accumulator, vector in zip(row, vectors, strict=True):
                    accumulator.set(accumulator.value + value * vector)

    def _finish(self, block: Block, accumulators: list[list[Register]], rows: list, piece: range) -> None:
        """Emit the end of a strip: earlier sums, residual, activation, store; a branch serves all its rows."""
        lanes, output = self.lanes, self.output
        channels, stride = self.table.scalar("channels_out"), self.table.scalar("output_channel")
        starts = [T.bind(as_long(block.output + row * stride)) for row in rows]
        places = [
            (accumulator, row, start + (piece.start + s) * lanes)
            for row, start, row_registers in zip(rows, starts, accumulators, strict=True)
            for s, accumulator in enumerate(row_registers)
        ]

        def add(source: Flat) -> None:
            for accumulator, _, place in places:
                accumulator.set(accumulator.value + source.load_vector(place))

        with T.If(block.first == 0):
            with T.Then():
                add(output)
        if self.residual is not None:
            with T.If(block.first == 1):
                with T.Then():
                    add(self.residual)
        if self.kernel.activation != "none":
            with T.If(block.last == 1):
                with T.Then():
                    for accumulator, row, _ in places:
                        accumulator.set(
                            emit_activation(
                                self.kernel.activation, accumulator.value, self.numbers, channels, row, lanes
                            )
                        )
        for accumulator, _, place in places:
            output.store_vector(place, accumulator.value)
