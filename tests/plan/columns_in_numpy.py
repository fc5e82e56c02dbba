"""The kernels over columns, run in numpy from a packed layer's arrays: what the tables say is what is computed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tests.layout.halo_in_numpy import fill_buffer, windows_in_numpy
from tvm_sparse.layout.halo_operations import KINDS
from tvm_sparse.plan.layer import Convolution, PackedLayer
from tvm_sparse.schedules.cpu import block_columns, dense_columns, pool_columns, sparse_columns
from tvm_sparse.schedules.cpu.driver import SHARED_BUFFER_ELEMENTS
from tvm_sparse.schedules.cpu.epilogue import Activation
from tvm_sparse.schedules.cpu.isa import Isa
from tvm_sparse.schedules.cpu.tile import row_sizes
from tvm_sparse.sparsity.formats.blocks import strip_sizes

QUAD, GROUP = 4, 5


class Table:
    """Reads a table by the names of its fields."""

    def __init__(self, blob: np.ndarray, fields: Sequence[str]) -> None:
        assert blob.dtype == np.int32
        self.blob = blob.astype(np.int64)
        self.fields = list(fields)

    def scalar(self, name: str) -> int:
        return int(self.blob[self.fields.index(name)])

    def array(self, name: str, *shape: int) -> np.ndarray:
        """An array; the number of its entries must be known."""
        start = self.scalar(name)
        return self.blob[start : start + int(np.prod(shape))].reshape(shape)


def activate(activation: Activation, value: np.ndarray, slope: float) -> np.ndarray:
    """The activations that need no approximation."""
    if activation.kind == "clip":
        return np.clip(value, *activation.parameters)
    slope = activation.parameters[0] if activation.kind == "leaky_relu" else slope
    return np.where(value > 0, value, slope * value)


def convolve(layer: Convolution, x: np.ndarray, residual: np.ndarray | None) -> np.ndarray:
    """What a layer computes, ``[N, M, H, W]`` of ``[N, C, H, W]``."""
    taps = windows_in_numpy(x, layer.window, 0.0)
    rows, per_group = layer.weight.shape[0] // layer.groups, layer.weight.shape[1]
    parts = [
        np.einsum(
            "yxnchw,mcyx->nmhw",
            taps[:, :, :, g * per_group : (g + 1) * per_group],
            layer.weight[g * rows : (g + 1) * rows].astype("float64"),
        )
        for g in range(layer.groups)
    ]
    sums = np.concatenate(parts, 1) + layer.bias[:, None, None]
    if residual is not None:
        sums = sums + residual
    slopes = np.zeros(len(layer.bias)) if layer.slopes is None else layer.slopes
    return np.stack([activate(layer.activation, sums[:, m], slopes[m]) for m in range(sums.shape[1])], 1)


def run_columns(
    packed: PackedLayer, layer: Convolution | None, x: np.ndarray, shape: tuple[int, ...], isa: Isa,
    residual: np.ndarray | None = None, shared: bool = False,
) -> np.ndarray:  # fmt: skip
    """Run a packed layer.

    Parameters
    ----------
    packed : PackedLayer
        Kernel and arrays.
    layer : Convolution or None
        The layer, for its activation; None for a max pooling.
    x, residual : numpy.ndarray
        Inputs in columns.
    shape : tuple of int
        Shape of the output in columns.
    isa : Isa
        Instruction set.
    shared : bool
        Whether the output lies in the residual's memory.
    """
    kernel = packed.kernel
    families = {
        sparse_columns.SparseColumns: (sparse_columns.FIELDS, _sparse_rows),
        block_columns.BlockColumnsKernel: (block_columns.FIELDS, _block_rows),
        dense_columns.DenseColumnsKernel: (dense_columns.FIELDS, _dense_rows),
        pool_columns.MaxPoolColumns: (pool_columns.FIELDS, _pool_rows),
    }
    fields, rows = families[type(kernel)]
    table = Table(packed.arrays[-1], fields)
    halo = getattr(kernel, "halo", True)
    fill = pool_columns.LOWEST if rows is _pool_rows else 0.0
    source = x.reshape(-1).astype("float64")
    added = None if residual is None else residual.reshape(-1).astype("float64")
    output = added if shared else np.full(int(np.prod(shape)), np.nan)
    tile_rows, tile_columns = kernel.tile
    shifts = (np.arange(tile_columns)[:, None] * table.scalar("pitch") + np.arange(tile_rows) * isa.lanes).reshape(
        -1, 1
    ) + np.arange(isa.lanes)
    stripes, chunks = table.scalar("stripes"), table.scalar("chunks")
    block_pointers = table.array("block_pointers", chunks + 1)
    tile_pointers = table.array("tile_pointers", stripes + 1)
    halo_arrays = _halo_arrays(table, stripes, isa.lanes) if halo else {}
    for task in range(table.scalar("tasks")):
        whole, part = divmod(task, table.scalar("parts"))
        place, chunk = whole // chunks * table.scalar("parts") + part, whole % chunks
        image, stripe = divmod(place, stripes)
        for block in range(*block_pointers[chunk : chunk + 2]):
            channel, channels, first, last = table.array("block", block + 1, 4)[block].tolist()
            origin = image * table.scalar("input_set") + channel * table.scalar("input_channel")
            if halo:
                stride = table.scalar("buffer_channel")
                assert channels * stride <= SHARED_BUFFER_ELEMENTS
                window = [
                    fill_buffer(
                        halo_arrays, stripe, source[origin + c * table.scalar("input_channel") :], stride, fill,
                        kernel.tile,
                    )
                    for c in range(channels)
                ]  # fmt: skip
                buffer = np.concatenate(window)
            for tile in range(*tile_pointers[stripe : stripe + 2]):
                start = int(table.array("tile_source", tile + 1)[tile])
                y = image * table.scalar("output_set") + int(table.array("tile_output", tile + 1)[tile])
                frame = _Frame(
                    table, layer, packed.arrays, isa, block, channels, channel, first, last,
                    (buffer, start) if halo else (source, origin + start), y, shifts, output, added,
                )  # fmt: skip
                rows(frame, kernel)
    return output.reshape(shape)


class _Frame:
    """One block on one tile."""

    def __init__(
        self, table, layer, arrays, isa, block, channels, channel, first, last, source, y, shifts, output, added
    ) -> None:  # fmt: skip
        self.table, self.layer, self.arrays, self.isa, self.block = table, layer, arrays, isa, block
        self.channels, self.channel, self.first, self.last = channels, channel, first, last
        (self.source, self.base), self.y, self.shifts = source, y, shifts
        self.output, self.added = output, added

    def gather(self, offsets: np.ndarray) -> np.ndarray:
        """Vectors of the tile at some offsets, ``[offsets, vectors, lanes]``."""
        at = self.base + offsets.astype(np.int64)[:, None, None] + self.shifts
        assert at.size == 0 or (at.min() >= 0 and at.max() < len(self.source))
        return self.source[at]

    def finish(self, row: int, sums: np.ndarray) -> None:
        """Bias or earlier sums, residual, activation, store of one output channel."""
        numbers, channels_out = self.arrays[-2], self.table.scalar("channels_out")
        y = self.y + row * self.table.scalar("output_channel")
        place = slice(y, y + sums.size)
        # Sums of a later block start with a zero of the same array.
        sums = (sums + float(numbers[row + channels_out * (1 - self.first)])).reshape(-1)
        sums = sums if self.first else sums + self.output[place]
        if self.first and self.added is not None:
            sums = sums + self.added[place]
        if self.last:
            slopes = numbers[2 * channels_out + 4 :]
            sums = activate(self.layer.activation, sums, float(slopes[row]) if len(slopes) else 0.0)
        self.output[place] = sums


def _sparse_rows(frame: _Frame, kernel: sparse_columns.SparseColumns) -> None:
    bundle = kernel.bundle(frame.isa)
    values, offsets = frame.arrays[0], frame.arrays[1]
    pointers = frame.table.array("group_pointers", frame.block * QUAD + QUAD + 1)
    groups = frame.table.array("group", int(pointers[-1]), GROUP)
    for tail in range(QUAD):
        begin, end = pointers[frame.block * QUAD + tail :][:2]
        for first_row, count, position, quads, shared in groups[begin:end].tolist():
            rows = frame.table.array("rows", first_row + count * bundle)[first_row:].reshape(count, bundle)
            for members in rows.tolist():
                sums: list[np.ndarray] = [np.zeros(()) for _ in members]
                # The shared ones and the others begin at multiples of four.
                for steps in ([1] * shared, [QUAD] * quads + [tail] * (tail > 0)):
                    position = -(-position // QUAD) * QUAD
                    for step in steps:
                        for r in range(bundle):
                            at = slice(position, position := position + step)
                            sums[r] = sums[r] + np.tensordot(values[at].astype("float64"), frame.gather(offsets[at]), 1)
                # A short bundle repeats its last row; all of its sums start before any is stored.
                for row, total in dict(zip(members, sums, strict=True)).items():
                    frame.finish(row, np.broadcast_to(total, frame.shifts.shape))


def _block_rows(frame: _Frame, kernel: block_columns.BlockColumnsKernel) -> None:
    values, offsets = frame.arrays[0], frame.arrays[1]
    sizes, width = strip_sizes(kernel.shape[0]), kernel.shape[1]
    stride = frame.table.scalar("buffer_channel" if kernel.halo else "input_channel")
    pointers = frame.table.array("group_pointers", (frame.block + 1) * len(sizes) + 1)
    groups = frame.table.array("group", int(pointers[-1]), block_columns.GROUP)
    for number, size in enumerate(sizes):
        begin, end = pointers[frame.block * len(sizes) + number :][:2]
        for _, strips, offset, value, count, first in groups[begin:end].tolist():
            rows = frame.table.array("rows", first + strips * size)[first:].reshape(strips, size)
            for i, members in enumerate(rows.tolist()):
                at = offsets[offset + i * count : offset + (i + 1) * count].astype(np.int64)
                vectors = frame.gather((at[:, None] + np.arange(width) * stride).reshape(-1))
                start = value + i * count * size * width
                weights = values[start : start + count * size * width].reshape(-1, size).astype("float64")
                for j, row in enumerate(members):
                    frame.finish(row, np.tensordot(weights[:, j], vectors, 1))


def _dense_rows(frame: _Frame, kernel: dense_columns.DenseColumnsKernel) -> None:
    values, offsets = frame.arrays[0], frame.arrays[1]
    sizes = row_sizes(frame.isa, kernel.tile[0] * kernel.tile[1])
    depth = int(frame.table.array("depth", frame.block + 1)[frame.block])
    vectors = frame.gather(offsets[:depth])
    for number, size in enumerate(sizes):
        pointer = frame.block * len(sizes) + number
        begin, end = frame.table.array("strip_pointers", pointer + 2)[pointer:].tolist()
        for row, position in frame.table.array("strip", end, 2)[begin:].tolist():
            tile = values[position : position + depth * size].reshape(depth, size).astype("float64")
            for i in range(size):
                frame.finish(row + i, np.tensordot(tile[:, i], vectors, 1))


def _pool_rows(frame: _Frame, kernel: pool_columns.MaxPoolColumns) -> None:
    taps = frame.table.array("taps", frame.table.scalar("tap_count"))
    for c in range(frame.channels):
        y = frame.y + (frame.channel + c) * frame.table.scalar("output_channel")
        vectors = frame.gather(taps + c * frame.table.scalar("buffer_channel"))
        frame.output[y : y + vectors[0].size] = vectors.max(0).reshape(-1)


def _halo_arrays(table: Table, stripes: int, lanes: int) -> dict[str, np.ndarray]:
    pointers = table.array("halo_pointers", len(KINDS), stripes + 1)
    arrays = {"pointers": pointers}
    for kind, (name, width) in enumerate(KINDS.items()):
        arrays[name] = table.array(f"halo_{name}", int(pointers[kind, -1]), width)
    used = [arrays["one"][:, 2], arrays["two"][:, 2], arrays["two"][:, 4], arrays["more"][:, 2]]
    used += [arrays["quarters"][:, 5], arrays["one_down"][:, 3], arrays["one_across"][:, 4]]
    count = max((int(index.max()) + 1 for index in used if len(index)), default=0)
    return {**arrays, "lanes": table.array("halo_lanes", count, lanes)}
