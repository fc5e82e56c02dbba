"""Dense convolutions over columns with the output channels in the lanes.

Small images do not fill the lanes of columns: a multiply-add tile of some pixels and some vectors of output channels
computes the pixels that there are and no others. For each k of a block (input channel and tap), the weights of a strip
are loaded and multiplied with one broadcast input for each pixel. Some strips are computed together for each group of
pixels: their weights stay in the first-level cache, and inputs come from the second one once for all of them. Sums
stay in a buffer ``[pixel][output channel]`` from block to block; at the end they are transposed to columns, vector by
vector.
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
    "pixel_pointers",  # per tile: its first pixel
    "pixel_groups",  # per tile: groups of each size
    "pixels",  # elements from the tile's origin to each pixel
    "slot_pointers",  # per tile: its first entry of `slots`
    "slots",  # per vector and lane of a tile: element of the pixel's sums in the buffer
    "sums_pixel",  # elements of the buffer between pixels
    "chunk_vectors",  # vectors of output channels of a chunk
    "strips_together",  # strips that are computed for a group of pixels before the next one
)

# Elements of a task's sums. The packer cuts the output channels into chunks that fit.
SUMS_ELEMENTS = 1 << 16


def pixel_tile(isa: Isa) -> tuple[int, int]:
    """Pixels and vectors of output channels of the register tile: enough sums that none waits for the one before."""
    return (7, 3) if isa.registers >= 32 else (6, 2)


def group_sizes(isa: Isa) -> tuple[int, int]:
    """Pixels of a group: of most of them, and of those that take what is left without a rest."""
    largest = pixel_tile(isa)[0]
    return largest, largest - 1


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
                together = table.scalar("strips_together")
                with T.serial(0, T.truncdiv(count + together - 1, together)) as part:
                    first = T.bind(part * together)
                    strips = T.bind(begin + first), T.bind(T.min(together, count - first))
                    self._strips(isa, block, table, values, offsets, numbers, *strips, first_row, depth, size)
            with T.If(block.last == 1):
                with T.Then():
                    self._finish(isa, block, table, numbers, residual, output, first_row)

        emit_tasks(isa, table, source, self.halo, self.tile, rows, sums=SUMS_ELEMENTS)

    def _strips(
        self, isa: Isa, block: Block, table: TableReader, values: Flat, offsets: Flat, numbers: Flat, begin, count,
        first_row, depth, size: int,
    ) -> None:  # fmt: skip
        """Emit the loops over groups of pixels and over some strips, of `size` output channels each."""
        step = T.bind(as_long(table.scalar("sums_pixel")))
        sizes = group_sizes(isa)
        counts = [T.bind(table.at("pixel_groups", block.tile * len(sizes) + kind)) for kind in range(len(sizes))]
        total = T.bind(sum(counts))
        # While they use these weights, those of the next strips come from memory, as many elements a step as it takes.
        pace = T.bind(as_long(T.min(LINE, T.truncdiv(size + total - 1, T.max(total, 1)))))
        first_group, first_pixel = 0, 0
        for pixels, groups in zip(sizes, counts, strict=True):
            with T.serial(0, groups) as group:
                pixel = T.bind(first_pixel + group * pixels)
                entry = T.bind(table.at("pixel_pointers", block.tile) + pixel)
                places = [T.bind(as_long(block.base + table.at("pixels", entry + p))) for p in range(pixels)]
                with T.serial(0, count) as strip:
                    row = T.bind(table.at("strip", (begin + strip) * 2))
                    position = T.bind(as_long(table.at("strip", (begin + strip) * 2 + 1)))
                    ahead = as_long(depth) * (as_long(count) * size + as_long(first_group + group) * pace)
                    fetched = T.bind(position + ahead), pace
                    target = T.bind(as_long(row - first_row) + as_long(pixel) * step)
                    self._tile(
                        isa, block, values, offsets, numbers, row, position, depth, size, places, target, step, fetched
                    )
            first_group, first_pixel = groups, T.bind(groups * pixels)

    def _tile(
        self, isa: Isa, block: Block, values: Flat, offsets: Flat, numbers: Flat, row, first, depth, size: int,
        places: list, target, step, fetched: tuple,
    ) -> None:  # fmt: skip
        """Emit the register tile of a group of pixels and a strip of output channels."""
        lanes, pixels, width = isa.lanes, len(places), size // isa.lanes
        sums = block.sums
        assert sums is not None
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
        next_weights, pace = fetched
        with T.serial(0, depth) as k:
            prefetch(values, next_weights + as_long(k) * pace)
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
