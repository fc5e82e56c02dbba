"""Dense convolutions over columns by fast algorithms (Winograd), lane by lane.

The window of a tile is combined along both axes, as :mod:`tvm_sparse.sparsity.formats.toom_cook` says; for each point,
a register tile of rows x vectors adds up the products of all channels; and the sums of a row's points are combined to
its outputs. Each vector of sums stands for a square of neighbouring outputs. Where a square does not divide the tile,
the last one overlaps the one before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product as pairs_of

import numpy as np
from tvm.script.ir_builder import tirx as T

from tvm_sparse.sparsity.formats.toom_cook import AxisAlgorithm, axis_algorithm

from .column_layer import ColumnLayer
from .driver import DRIVER_FIELDS, HALO_FIELDS, Block, emit_tasks
from .epilogue import emit_activation
from .ir import Flat, TableReader, as_long, broadcast, constant, prefetch
from .isa import Isa
from .tile import DENSE_AHEAD, multiply_tile

FIELDS = (
    *DRIVER_FIELDS,
    *HALO_FIELDS,
    "part",  # per block: first row, rows, first weight
    "points",  # first product of each point
    "product",  # per product down and across: its place in their order
    "row_places",  # elements from the window's origin to each of its rows, and columns
    "column_places",
)

# Elements of a task's buffers: combined windows of a K-block, sums of a strip, a channel combined down.
COMBINED_ELEMENTS, SUMS_ELEMENTS, CHANNEL_ELEMENTS = 1 << 16, 1 << 14, 1 << 13


def square_places(outputs: int, extent: int) -> tuple[int, ...]:
    """First output of each square along an axis of a tile."""
    return tuple(min(i, extent - outputs) for i in range(0, extent, outputs))


@dataclass(frozen=True)
class WinogradKernel(ColumnLayer):
    """A kernel of the family.

    Parameters
    ----------
    kernel, stride : tuple of int
        Taps and stride, down and across.
    outputs : tuple of int
        Rows and columns of the outputs that are computed together.
    strip : int
        Rows of output channels of the register tile.
    """

    kernel: tuple[int, int] = field(default=(3, 3), kw_only=True)
    stride: tuple[int, int] = field(default=(1, 1), kw_only=True)
    outputs: tuple[int, int] = field(default=(2, 2), kw_only=True)
    strip: int = field(default=8, kw_only=True)

    @property
    def family(self) -> str:
        """Name of the format in the symbol."""
        (kh, kw), (sy, sx), (my, mx) = self.kernel, self.stride, self.outputs
        return f"winograd_columns_k{kh}x{kw}_s{sy}x{sx}_f{my}x{mx}_{self.strip}"

    @property
    def axes(self) -> tuple[AxisAlgorithm, AxisAlgorithm]:
        """How rows and columns are computed."""
        down, across = (axis_algorithm(*a) for a in zip(self.outputs, self.kernel, self.stride, strict=True))
        return down, across

    @property
    def squares(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """First rows and columns of the squares of a tile."""
        down, across = (square_places(m, t) for m, t in zip(self.outputs, self.tile, strict=True))
        return down, across

    @property
    def vectors(self) -> int:
        """Squares of a tile."""
        return len(self.squares[0]) * len(self.squares[1])

    @property
    def points(self) -> int:
        """Sums of a square."""
        down, across = self.axes
        return down.points * across.points

    @property
    def window(self) -> tuple[int, int]:
        """Rows and columns that a tile reads."""
        height, width = ((t - 1) * s + k for t, s, k in zip(self.tile, self.stride, self.kernel, strict=True))
        return height, width

    def _body(self, isa: Isa, source: Flat, *rest: Flat) -> None:
        residual = rest[0] if self.residual else None
        values, _, numbers, table_buffer, output = rest[-5:]
        table = TableReader(table_buffer, (*FIELDS, *self.window_fields))
        strip, step = self.strip, self.vectors * isa.lanes
        down, across = self.axes
        products = down.products * across.products

        def rows(block: Block) -> None:
            assert block.sums is not None
            channels = T.bind(table.at("block", block.index * 4 + 1))
            self._combine_windows(isa, table, block, channels)
            first_row = T.bind(table.at("part", block.index * 3))
            count = T.bind(table.at("part", block.index * 3 + 1))
            first_value = T.bind(as_long(table.at("part", block.index * 3 + 2)))
            size = T.bind(channels * (products * strip))
            with T.serial(0, T.truncdiv(count + (strip - 1), strip)) as number:
                of_strip = T.bind(first_value + as_long(number) * as_long(size))
                with T.serial(0, self.points) as point:
                    start = T.bind(table.at("points", point) * channels)
                    depth = T.bind(table.at("points", point + 1) * channels - start)
                    weights = T.bind(of_strip + as_long(start * strip))
                    target = T.bind(as_long(point * step + COMBINED_ELEMENTS))
                    self._multiply(isa, values, block.sums, weights, T.bind(as_long(start * step)), depth, target)
                begin = T.bind(number * strip)
                with T.serial(0, T.min(strip, count - begin)) as row:
                    sums = T.bind(as_long(row * (self.points * step)) + COMBINED_ELEMENTS)
                    self._finish(isa, block, table, numbers, residual, output, T.bind(first_row + begin + row), sums)

        elements = COMBINED_ELEMENTS + SUMS_ELEMENTS + CHANNEL_ELEMENTS
        fill_buffer = self._fill_buffer(isa, table, source, rest)
        emit_tasks(isa, table, source, self.halo, self.tile, rows, sums=elements, fill_buffer=fill_buffer)

    def _combine_windows(self, isa: Isa, table: TableReader, block: Block, channels) -> None:
        """Emit what combines the inputs of every channel: first down, into a buffer of one channel, then across."""
        kept, lanes = block.sums, isa.lanes
        assert kept is not None
        (down, across), (top, left) = self.axes, self.squares
        height, width = self.window
        one_channel = COMBINED_ELEMENTS + SUMS_ELEMENTS
        row_places = [T.bind(as_long(table.at("row_places", row))) for row in range(height)]
        step = T.bind(as_long(channels * (self.vectors * lanes)))
        with T.serial(0, channels) as channel:
            origin = T.bind(as_long(block.base + channel * table.scalar("buffer_channel")))
            with T.serial(0, width) as column:
                at = T.bind(origin + as_long(table.at("column_places", column)))
                target = T.bind(as_long(column * lanes) + one_channel)
                for i, row in enumerate(top):
                    first = row * self.stride[0]
                    inputs = [block.source.load_vector(at + place) for place in row_places[first : first + down.window]]
                    for p, value in enumerate(combine_rows(down.read, inputs, lanes)):
                        kept.store_vector(target + (i * down.products + p) * width * lanes, value)
            of_channel = T.bind(as_long(channel * (self.vectors * lanes)))
            for i in range(len(top)):
                with T.serial(0, down.products) as product:
                    at = T.bind(as_long((product + i * down.products) * (width * lanes)) + one_channel)
                    targets = [
                        T.bind(as_long(table.at("product", product * across.products + q)) * step + of_channel)
                        for q in range(across.products)
                    ]
                    for j, column in enumerate(left):
                        first = column * self.stride[1]
                        inputs = [kept.load_vector(at + (first + x) * lanes) for x in range(across.window)]
                        place = (i * len(left) + j) * lanes
                        for target, value in zip(targets, combine_rows(across.read, inputs, lanes), strict=True):
                            kept.store_vector(target + place, value)

    def _multiply(self, isa: Isa, values: Flat, kept: Flat, weights, vectors, depth, target) -> None:
        """Emit the products of one point for a strip of rows, in pieces that fit the registers."""
        lanes, strip, width = isa.lanes, self.strip, register_tile(isa, self.vectors)[1]
        step = self.vectors * lanes
        for first in range(0, self.vectors, width):
            piece = range(first, min(first + width, self.vectors))

            def read(k, piece: range = piece) -> tuple[list, list]:
                inputs = T.bind(vectors + as_long(k * step))
                at = T.bind(weights + as_long(k * strip))
                prefetch(values, at + DENSE_AHEAD)
                return [kept.load_vector(inputs + s * lanes) for s in piece], [values[at + i] for i in range(strip)]

            sums = multiply_tile([constant(0.0, lanes)] * strip, len(piece), lanes, depth, read)
            for i, row in enumerate(sums):
                for s, accumulator in zip(piece, row, strict=True):
                    kept.store_vector(target + (i * self.points * step + s * lanes), accumulator.value)

    def _finish(
        self, isa: Isa, block: Block, table: TableReader, numbers: Flat, residual: Flat | None, output: Flat, row, sums
    ) -> None:  # fmt: skip
        """Emit what combines the sums of a row to its outputs, and stores them."""
        kept, lanes = block.sums, isa.lanes
        assert kept is not None
        (down, across), (top, left) = self.axes, self.squares
        channels = table.scalar("channels_out")
        start = T.bind(broadcast(numbers[row + channels * (1 - block.first)], lanes))
        origin = T.bind(as_long(block.output + row * table.scalar("output_channel")))
        outputs: dict[int, object] = {}
        for (i, y), (j, x) in pairs_of(enumerate(top), enumerate(left)):
            square = i * len(left) + j
            of_points = [
                [
                    kept.load_vector(sums + ((p * across.points + q) * self.vectors + square) * lanes)
                    for q in range(across.points)
                ]
                for p in range(down.points)
            ]
            for r, row_of_square in enumerate(combine_both(down.combine, across.combine, of_points, lanes)):
                for v, value in enumerate(row_of_square):
                    outputs[(x + v) * self.tile[0] + y + r] = value
        values = {s: T.bind(start + value) for s, value in sorted(outputs.items())}
        self._store(isa, block, numbers, residual, output, channels, row, origin, values)

    def _store(
        self, isa: Isa, block: Block, numbers: Flat, residual: Flat | None, output: Flat, channels, row, origin,
        values: dict[int, object],
    ) -> None:  # fmt: skip
        """Emit the epilogue of a row: what earlier blocks made of it, residual, activation."""
        lanes = isa.lanes

        def store(earlier: Flat | None, last: bool) -> None:
            for s, value in values.items():
                if earlier is not None:
                    value = T.bind(value + earlier.load_vector(origin + s * lanes))
                if last:
                    value = emit_activation(self.activation, value, numbers, channels, row, lanes)
                output.store_vector(origin + s * lanes, value)

        for first in (1, 0):
            earlier = residual if first else output
            with T.If(block.first == first):
                with T.Then():
                    with T.If(block.last == 1):
                        with T.Then():
                            store(earlier, last=True)
                        with T.Else():
                            store(earlier, last=False)


def register_tile(isa: Isa, vectors: int) -> tuple[int, int]:
    """Rows and vectors of the register tile, for so many squares."""
    most, sums = (4, 16) if isa.registers >= 32 else (3, 12)
    width = -(-vectors // -(-vectors // most))
    return sums // width, width


def combine_rows(matrix: np.ndarray, vectors: Sequence, lanes: int) -> list:
    """Emit ``matrix @ vectors``; rows that differ by signs alone share their sums."""
    known = [T.bind(vector) for vector in vectors]
    out: dict[int, object] = {}
    for i, row in enumerate(matrix):
        if i in out:
            continue
        twin = next((j for j in range(i + 1, len(matrix)) if j not in out and _are_twins(row, matrix[j])), None)
        if twin is None:
            out[i] = T.bind(_weighted(row, known, lanes))
            continue
        sign = np.sign(row[np.flatnonzero(row)[0]] * matrix[twin][np.flatnonzero(row)[0]])
        same = (row + sign * matrix[twin]) / 2
        common, other = (T.bind(_weighted(part, known, lanes)) for part in (same, row - same))
        out[i] = T.bind(common + other)
        out[twin] = T.bind(common - other if sign > 0 else other - common)
    return [out[i] for i in range(len(matrix))]


def combine_both(down: np.ndarray, across: np.ndarray, vectors: Sequence[Sequence], lanes: int) -> list[list]:
    """Emit ``down @ vectors @ across.T``, the cheaper side first."""

    def cost(first: np.ndarray, second: np.ndarray) -> int:
        """Nonzero coefficients that are multiplied where `first` comes first."""
        return np.count_nonzero(first) * second.shape[1] + np.count_nonzero(second) * first.shape[0]

    if cost(down, across) <= cost(across, down):
        columns = [combine_columns(down, column, lanes) for column in zip(*vectors, strict=True)]
        return [combine_columns(across, row, lanes) for row in zip(*columns, strict=True)]
    rows = [combine_columns(across, row, lanes) for row in vectors]
    columns = [combine_columns(down, column, lanes) for column in zip(*rows, strict=True)]
    return [list(row) for row in zip(*columns, strict=True)]


def combine_columns(matrix: np.ndarray, vectors: Sequence, lanes: int) -> list:
    """Emit ``matrix @ vectors``; columns that differ by signs alone are added and subtracted once."""
    columns, known = [*matrix.T], [T.bind(vector) for vector in vectors]
    j = 0
    while j < len(columns):
        twin = next((k for k in range(j + 1, len(columns)) if _are_twins(columns[j], columns[k])), None)
        if twin is not None:
            a, b = known[j], known[twin]
            same = (columns[j] + columns[twin]) / 2
            other = columns[j] - same
            known[j], known[twin] = T.bind(a + b), T.bind(a - b)
            columns[j], columns[twin] = same, other
        j += 1
    return [T.bind(_weighted(row, known, lanes)) for row in np.transpose(columns)]


def _are_twins(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether some coefficients are equal and all others opposite, at least two in total."""
    both = (a != 0) | (b != 0)
    return bool((np.abs(a) == np.abs(b)).all() and both.sum() > 1 and (a != b).any() and (a != -b).any())


def _weighted(coefficients: np.ndarray, vectors: Sequence, lanes: int):
    """A sum of vectors times constants."""
    total = None
    for index in np.argsort(coefficients != 1, kind="stable"):
        coefficient, vector = float(coefficients[index]), vectors[index]
        if coefficient == 0:
            continue
        if total is None:
            total = vector if coefficient == 1 else vector * constant(coefficient, lanes)
        elif coefficient == 1:
            total = total + vector
        elif coefficient == -1:
            total = total - vector
        else:
            total = total + vector * constant(coefficient, lanes)
    return constant(0.0, lanes) if total is None else total
