"""Dense convolutions over columns with the output channels in the lanes.

Small images do not fill the lanes of columns: a multiply-add tile of some pixels and some vectors of output channels
computes the pixels that there are and no others. For each k of a block (input channel and tap), the weights of a strip
are loaded and multiplied with one broadcast input for each pixel. Sums stay in a buffer ``[pixel][output channel]``
from block to block; at the end they are transposed to columns, vector by vector.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T

from .column_layer import ColumnLayer
from .driver import DRIVER_FIELDS, HALO_FIELDS, Block, emit_tasks
from .epilogue import emit_activation
from .ir import LINE, Flat, TableReader, as_long, broadcast, prefetch, registers
from .isa import Isa
from .lanes import transpose

FIELDS = (
    *DRIVER_FIELDS,
    *HALO_FIELDS,
    "strip",
    "strip_pointers",
    "depth",
    "pixel_pointers",  # per tile: its first group of pixels
    "pixel_groups",  # per tile: groups of pixels
    "pixels",  # per group: elements from the tile's origin to each pixel
    "slot_pointers",  # per tile: its first entry of `slots`
    "slots",  # per vector and lane of a tile: element of the pixel's sums in the buffer
    "sums_pixel",  # elements of the buffer between pixels
    "chunk_vectors",  # vectors of output channels of a chunk
)

# Elements of a task's sums. The packer cuts the output channels into chunks that fit.
SUMS_ELEMENTS = 1 << 16


def pixel_tile(isa: Isa) -> tuple[int, int]:
    """Pixels and vectors of output channels of the register tile: enough sums that none waits for the one before."""
    return (7, 3) if isa.registers >= 32 else (5, 2)


def strip_sizes(isa: Isa) -> tuple[int, ...]:
    """Output channels of strips, descending."""
    return tuple(isa.lanes * vectors for vectors in range(pixel_tile(isa)[1], 0, -1))


@dataclass(frozen=True)
class DensePixels(ColumnLayer):
    """A kernel of the family."""

    family = "dense_pixels"

    def _body(self, isa: Isa, source: Flat, *rest: Flat) -> None:
        residual = rest[0] if self.residual else None
        values, offsets, numbers, table_buffer, output = rest[-5:]
        table = TableReader(table_buffer, FIELDS)
        sizes = strip_sizes(isa)

        def rows(block: Block) -> None:
            assert block.sums is not None
            depth = T.bind(table.at("depth", block.index))
            pointer = block.index * len(sizes)
            first_row = T.bind(table.at("strip", table.at("strip_pointers", pointer) * 2))
            for number, size in enumerate(sizes):
                begin = T.bind(table.at("strip_pointers", pointer + number))
                count = T.bind(table.at("strip_pointers", pointer + number + 1) - begin)
                with T.serial(0, count) as strip:
                    row = T.bind(table.at("strip", (begin + strip) * 2))
                    position = T.bind(table.at("strip", (begin + strip) * 2 + 1))
                    # The weights of a strip stay cached from group to group.
                    with T.serial(0, table.at("pixel_groups", block.tile)) as group:
                        self._group(
                            isa, block, table, values, offsets, numbers, row, first_row, position, depth, size, group
                        )
            with T.If(block.last == 1):
                with T.Then():
                    self._finish(isa, block, table, numbers, residual, output, first_row)

        emit_tasks(isa, table, source, self.halo, self.tile, rows, sums=SUMS_ELEMENTS)

    def _group(
        self, isa: Isa, block: Block, table: TableReader, values: Flat, offsets: Flat, numbers: Flat, row, first_row,
        position, depth, size: int, group,
    ) -> None:  # fmt: skip
        """Emit the register tile of a group of pixels and a strip of output channels."""
        lanes, pixels, width = isa.lanes, pixel_tile(isa)[0], size // isa.lanes
        sums = block.sums
        assert sums is not None
        entry = T.bind((table.at("pixel_pointers", block.tile) + group) * pixels)
        places = [T.bind(as_long(block.base + table.at("pixels", entry + p))) for p in range(pixels)]
        step = T.bind(as_long(table.scalar("sums_pixel")))
        target = T.bind(as_long(row - first_row) + as_long(group) * pixels * step)
        flat = registers(pixels * width, lanes)
        accumulators = [flat[p * width : (p + 1) * width] for p in range(pixels)]
        with T.If(block.first == 1):
            with T.Then():
                starts = [T.bind(numbers.load_vector(row + o * lanes)) for o in range(width)]
                for of_pixel in accumulators:
                    for accumulator, start in zip(of_pixel, starts, strict=True):
                        accumulator.set(start)
            with T.Else():
                for p, of_pixel in enumerate(accumulators):
                    for o, accumulator in enumerate(of_pixel):
                        accumulator.set(sums.load_vector(target + step * p + o * lanes))
        first = as_long(position)
        # While the groups of pixels use the weights of a strip, those of the next one come from memory, a line a step.
        next_strip = T.bind(first + as_long(depth) * (size + group * LINE))
        with T.serial(0, depth) as k:
            prefetch(values, next_strip + as_long(k) * LINE)
            at = T.bind(first + as_long(k) * size)
            weights = [T.bind(values.load_vector(at + o * lanes)) for o in range(width)]
            offset = T.bind(as_long(offsets[k]))
            for place, of_pixel in zip(places, accumulators, strict=True):
                value = T.bind(broadcast(block.source[place + offset], lanes))
                for accumulator, weight in zip(of_pixel, weights, strict=True):
                    accumulator.set(accumulator.value + weight * value)
        for p, of_pixel in enumerate(accumulators):
            for o, accumulator in enumerate(of_pixel):
                sums.store_vector(target + step * p + o * lanes, accumulator.value)

    def _finish(
        self, isa: Isa, block: Block, table: TableReader, numbers: Flat, residual: Flat | None, output: Flat, first_row
    ) -> None:  # fmt: skip
        """Emit what brings finished sums to columns: as many output channels as a vector has lanes at once."""
        lanes = isa.lanes
        sums = block.sums
        assert sums is not None
        channels, step = table.scalar("channels_out"), T.bind(as_long(table.scalar("output_channel")))
        with T.serial(0, self.tile[0] * self.tile[1]) as vector:
            slot = T.bind(table.at("slot_pointers", block.tile) + vector * lanes)
            slots = [T.bind(as_long(table.at("slots", slot + lane))) for lane in range(lanes)]
            with T.serial(0, table.scalar("chunk_vectors")) as part:
                shift = T.bind(as_long(part * lanes))
                columns = transpose([T.bind(sums.load_vector(at + shift)) for at in slots])
                row = T.bind(first_row + part * lanes)
                origin = T.bind(as_long(block.output) + as_long(row) * step + as_long(vector * lanes))
                for i, column in enumerate(columns):
                    place = T.bind(origin + step * i)
                    value = column if residual is None else T.bind(column + residual.load_vector(place))
                    value = emit_activation(self.activation, value, numbers, channels, row + i, lanes)
                    output.store_vector(place, value)
