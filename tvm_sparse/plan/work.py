"""What a layer's kernel does in one call: multiply-adds, loads, bytes between the levels of memory.

Each count is the least that the kernel can do with the packed layer, so that the time at full speed (the roof that a
profile compares with) is a lower bound.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from tvm_sparse.layout.geometry import Geometry
from tvm_sparse.layout.table import TableValues
from tvm_sparse.schedules.cpu import (
    bitmask_rows,
    block_columns,
    dense_columns,
    dense_pixels,
    linear_rows,
    sparse_columns,
    winograd_columns,
)
from tvm_sparse.schedules.cpu.isa import Isa
from tvm_sparse.schedules.cpu.lanes import can_spread
from tvm_sparse.schedules.cpu.tile import pieces, row_sizes
from tvm_sparse.sparsity.formats.columns import GROUP, QUAD

from .layer import Convolution, PackedLayer
from .plan import LayerWork

# A tensor that fills more of the second-level cache is not there any more when the next layer reads it.
_RESIDENT_SHARE = 0.5
# Entries at the end of a packed weight that only vector loads read.
_PADDING = 16


@dataclass(frozen=True)
class _Kernel:
    """Counts that depend on the kernel; fields as in :class:`LayerWork`."""

    lane_macs: int
    utilisation: float
    loaded: int
    l2_read: int
    l2_written: int
    weight_bytes: int
    weight_passes: int


def count_work(
    layer: Convolution, packed: PackedLayer, isa: Isa, source: Geometry | None, target: Geometry | None, rows: int = 0,
    depthwise: Convolution | None = None,
) -> LayerWork:  # fmt: skip
    """Count the work of a layer.

    Parameters
    ----------
    layer : Convolution
        The layer.
    packed : PackedLayer
        Its kernel and arrays.
    isa : Isa
        Instruction set.
    source, target : Geometry or None
        Geometry of its input and output; None for plain rows.
    rows : int
        Number of plain rows.
    depthwise : Convolution, optional
        Depth-wise convolution that the kernel computes first; `source` is the geometry of its input.
    """
    outputs, channels = layer.weight.shape[0], layer.weight.shape[1] * layer.groups
    nonzeros = int(np.count_nonzero(layer.weight))
    if source is None or target is None:
        counts = _count_rows(packed, isa, nonzeros, outputs, rows)
        pixels, input_bytes, output_bytes = rows, 4 * rows * channels, 4 * rows * outputs
    else:
        pixels = target.batch * target.pixels
        input_bytes, output_bytes = 4 * prod(source.shape(channels)), 4 * prod(target.shape(outputs))
        count = _COUNT.get(type(packed.kernel))
        if count is None:
            counts = _count_once(layer, packed, target, nonzeros, input_bytes)
        else:
            counts = count(layer, packed, isa, target, nonzeros)
        if depthwise is not None:
            counts = _with_depthwise(counts, depthwise, target, input_bytes)
            nonzeros += int(np.count_nonzero(depthwise.weight))
    tensors = [input_bytes, *([output_bytes] if layer.residual else [])]
    resident = _RESIDENT_SHARE * isa.l2_bytes
    streams = counts.weight_passes if counts.weight_bytes > isa.l2_bytes else 1
    return LayerWork(
        macs=nonzeros * pixels,
        lane_macs=counts.lane_macs,
        utilisation=round(counts.utilisation, 4),
        loaded=counts.loaded,
        l2_read=counts.l2_read,
        l2_written=counts.l2_written,
        memory_read=counts.weight_bytes * streams + sum(n for n in tensors if n > resident),
        memory_written=output_bytes if output_bytes > resident else 0,
        read=sum(tensors) + counts.weight_bytes,
        written=output_bytes,
    )


@dataclass(frozen=True)
class _Frame:
    """The loops that the column kernels share, from a layer's table."""

    passes: int  # stripes of all images: each reads the weights
    tiles: int
    vectors: int  # of a tile
    lane_bytes: int  # of one vector
    input_bytes: int  # that all blocks of all passes read
    window_bytes: int  # that all blocks build
    sums_bytes: int  # of the partial sums that later blocks read and write again
    blocks: int  # K-blocks of a pass

    @staticmethod
    def of(kernel: object, fields: tuple[str, ...], array: np.ndarray, isa: Isa) -> _Frame:
        table = TableValues(fields, array)
        chunks, stripes = table.scalar("chunks"), table.scalar("stripes")
        passes = table.scalar("tasks") // chunks
        per_stripe = table.array("tile_pointers", stripes + 1)[-1] / stripes
        blocks = table.array("block", 4 * int(table.array("block_pointers", chunks + 1)[-1])).reshape(-1, 4)
        vectors, lane_bytes = prod(kernel.tile), 4 * isa.lanes  # type: ignore[attr-defined]
        tiles = round(passes * per_stripe)
        channels = int(blocks[:, 1].sum())
        window_bytes = passes * channels * 4 * table.scalar("buffer_channel") if kernel.halo else 0  # type: ignore
        later = int((blocks[:, 2] == 0).sum())
        per_pass = len(blocks) // chunks
        return _Frame(
            passes=passes,
            tiles=tiles,
            vectors=vectors,
            lane_bytes=lane_bytes,
            input_bytes=window_bytes or tiles * channels * vectors * lane_bytes,
            window_bytes=window_bytes,
            blocks=per_pass,
            sums_bytes=later * table.scalar("channels_out") // chunks * tiles * vectors * lane_bytes,
        )


def _count_sparse(
    layer: Convolution, packed: PackedLayer, isa: Isa, target: Geometry, _nonzeros: int
) -> _Kernel:
    values, offsets, _, table = packed.arrays[-4:]
    frame = _Frame.of(packed.kernel, sparse_columns.FIELDS, table, isa)
    parts, bundle = packed.kernel.part_sizes, packed.kernel.bundle(isa)
    stored, shared = (bundle * count for count in _stored_by_bundles(TableValues(sparse_columns.FIELDS, table)))
    # Weights spread from a register are loaded four at a time, by every part of a tile.
    spread = can_spread(isa, max(parts), bundle)
    weight_loads = len(parts) * (1 / QUAD if spread else 1.0)
    loads = stored * (frame.vectors + weight_loads)
    if packed.kernel.pairs:
        # Vectors that two rows multiply are loaded once; their weights are broadcast from memory.
        loads -= shared * (frame.vectors / 2 + weight_loads - len(parts))
    inner = round(loads * frame.tiles * frame.lane_bytes)
    weights = values.nbytes + offsets.nbytes
    return _in_columns(layer, frame, isa, target, stored, inner, weights, frame.passes * len(parts))


def _stored_by_bundles(table: TableValues) -> tuple[int, int]:
    """Nonzeros of each row of all bundles, and those that its pair shares."""
    blocks = int(table.array("block_pointers", table.scalar("chunks") + 1)[-1])
    pointers = table.array("group_pointers", blocks * QUAD + 1)
    _, bundles, _, quads, shared = table.array("group", int(pointers[-1]) * GROUP).reshape(-1, GROUP).T
    tails = np.repeat(np.arange(blocks * QUAD) % QUAD, np.diff(pointers))
    return int((bundles * (shared + quads * QUAD + tails)).sum()), int((bundles * shared).sum())


def _count_dense(layer: Convolution, packed: PackedLayer, isa: Isa, target: Geometry, _nonzeros: int) -> _Kernel:
    frame = _Frame.of(packed.kernel, dense_columns.FIELDS, packed.arrays[-1], isa)
    rows = min(row_sizes(isa, frame.vectors)[0], layer.weight.shape[0] // layer.groups)
    parts = len(pieces(isa, rows, frame.vectors))
    steps = layer.weight.size / rows * frame.tiles
    inner = round(steps * (frame.vectors + rows * parts) * frame.lane_bytes)
    weights = packed.arrays[-4].nbytes
    return _in_columns(layer, frame, isa, target, layer.weight.size, inner, weights, frame.passes * parts)


def _count_pixels(layer: Convolution, packed: PackedLayer, isa: Isa, target: Geometry, _nonzeros: int) -> _Kernel:
    table = TableValues(dense_pixels.FIELDS, packed.arrays[-1])
    frame = _Frame.of(packed.kernel, dense_pixels.FIELDS, packed.arrays[-1], isa)
    strip = dense_pixels.pixel_tile(isa)[1]
    of_sizes = target.sets * table.array("pixel_groups", 2 * frame.tiles // target.sets).reshape(-1, 2).sum(0)
    groups, pixels = int(of_sizes.sum()), int(of_sizes @ dense_pixels.group_sizes(isa))
    outputs, inputs = layer.weight.shape[0], layer.weight[0].size
    # Every group of pixels reads the weights of every strip, and an input of its own for each.
    strips, together = -(-outputs // (strip * isa.lanes)), table.scalar("strips_together")
    blocks = frame.blocks
    sums = pixels * 4 * outputs * blocks
    output = 4 * prod(target.shape(outputs))
    weights = packed.arrays[0].nbytes
    extra = output if layer.residual else 0
    # Strips that are computed together stay in the first-level cache, if they fit.
    fit = together * weights <= strips * blocks * isa.l1_bytes
    return _Kernel(
        lane_macs=pixels * layer.weight.size,
        utilisation=target.batch * target.pixels / max(1, pixels),
        loaded=groups * weights + 4 * pixels * inputs * strips + sums + extra + frame.window_bytes,
        l2_read=frame.input_bytes * -(-strips // together) + (frame.passes if fit else groups) * weights + sums + extra,
        l2_written=output + sums,
        weight_bytes=weights,
        weight_passes=frame.passes,
    )


def _count_winograd(layer: Convolution, packed: PackedLayer, isa: Isa, target: Geometry, _nonzeros: int) -> _Kernel:
    kernel, values = packed.kernel, packed.arrays[-4]
    frame = _Frame.of(kernel, winograd_columns.FIELDS, packed.arrays[-1], isa)
    width = winograd_columns.register_tile(isa, kernel.vectors)[1]
    stored, pieces = values.size - _PADDING, -(-kernel.vectors // width)
    # Every step of a strip loads the vectors of combined inputs once, and in every piece a weight for each row.
    products = stored * (kernel.vectors / kernel.strip + pieces)
    sums = layer.weight.shape[0] * frame.blocks * kernel.points * kernel.vectors
    inner = round((products + sums) * frame.tiles * frame.lane_bytes)
    counts = _in_columns(layer, frame, isa, target, stored, inner, values.nbytes, frame.passes)
    return replace(counts, lane_macs=stored * kernel.vectors * frame.tiles * isa.lanes)


def _count_blocks(layer: Convolution, packed: PackedLayer, isa: Isa, target: Geometry, _nonzeros: int) -> _Kernel:
    values, offsets, _, table = packed.arrays[-4:]
    frame = _Frame.of(packed.kernel, block_columns.FIELDS, table, isa)
    rows, width = packed.kernel.shape
    parts = len(block_columns.block_pieces(isa, rows, frame.vectors))
    stored = values.size - _PADDING
    spread = rows == 1 and width == QUAD and can_spread(isa, frame.vectors)
    weight_loads = 1 / QUAD if spread else rows * parts
    inner = round(stored / rows * frame.tiles * (frame.vectors + weight_loads) * frame.lane_bytes)
    return _in_columns(
        layer, frame, isa, target, stored, inner, values.nbytes + offsets.nbytes, frame.passes * parts
    )


def _in_columns(
    layer: Convolution, frame: _Frame, isa: Isa, target: Geometry, weights: int, inner: int, weight_bytes: int,
    passes: int,
) -> _Kernel:  # fmt: skip
    output = layer.weight.shape[0] * frame.tiles * frame.vectors * frame.lane_bytes
    extra = frame.sums_bytes + (output if layer.residual else 0)
    # Few weights stay in the first-level cache.
    streams = passes if weight_bytes > isa.l1_bytes // 2 else 1
    return _Kernel(
        lane_macs=weights * frame.tiles * frame.vectors * isa.lanes,
        utilisation=target.utilisation,
        loaded=inner + extra + frame.window_bytes,
        l2_read=frame.input_bytes + weight_bytes * streams + extra,
        l2_written=output + frame.sums_bytes,
        weight_bytes=weight_bytes,
        weight_passes=passes,
    )


def _count_once(
    layer: Convolution, packed: PackedLayer, target: Geometry, nonzeros: int, input_bytes: int
) -> _Kernel:
    """A kernel that loads each vector of its tensors once, such as a depth-wise one that keeps them in registers."""
    lanes, output = prod(target.shape(1)), 4 * prod(target.shape(layer.weight.shape[0]))
    reads, weights = input_bytes + (output if layer.residual else 0), packed.arrays[0].nbytes
    return _Kernel(nonzeros * lanes, target.utilisation, reads, reads + weights, output, weights, 1)


def _with_depthwise(counts: _Kernel, depthwise: Convolution, target: Geometry, input_bytes: int) -> _Kernel:
    """Counts of a kernel that reads its buffer, with those of the depth-wise convolution that fills it."""
    return replace(
        counts,
        lane_macs=counts.lane_macs + int(np.count_nonzero(depthwise.weight)) * prod(target.shape(1)),
        loaded=counts.loaded + input_bytes,
        l2_read=counts.l2_read + input_bytes,
    )


_COUNT: dict[type, Callable[[Convolution, PackedLayer, Isa, Geometry, int], _Kernel]] = {
    sparse_columns.SparseColumns: _count_sparse,
    dense_columns.DenseColumnsKernel: _count_dense,
    dense_pixels.DensePixels: _count_pixels,
    block_columns.BlockColumnsKernel: _count_blocks,
    winograd_columns.WinogradKernel: _count_winograd,
}


def _count_rows(packed: PackedLayer, isa: Isa, nonzeros: int, outputs: int, rows: int) -> _Kernel:
    values = packed.arrays[0]
    if isinstance(packed.kernel, linear_rows.SparseRows):
        # Every input has a load of its own, every step one of weights and one of columns; all rows share the weights.
        weights, unit = values.nbytes + packed.arrays[1].nbytes, linear_rows.row_unit(isa, packed.kernel.gather)
        stored = rows * (values.size - 16)
        loaded = round(stored * (1 + 2 / unit) * 4 * isa.lanes)
        return _Kernel(
            stored // unit * isa.lanes, unit / isa.lanes, loaded, weights, 4 * outputs * rows, weights, 1
        )
    if isinstance(packed.kernel, bitmask_rows.BitmaskRows):
        # Every mask has a load of weights, one of inputs, and its own.
        masks = packed.arrays[1]
        weights, lane_macs = values.nbytes + masks.nbytes, masks.size * isa.lanes * rows
        return _Kernel(
            lane_macs, nonzeros * rows / max(1, lane_macs), 12 * lane_macs, weights, 4 * outputs * rows, weights, 1
        )
    weights, width = values.nbytes, linear_rows.STRIP_VECTORS * isa.lanes
    lane_macs, utilisation = values.size * rows, outputs / (-(-outputs // width) * width)
    loaded = round(4 * lane_macs * (1 + 1 / linear_rows.STRIP_VECTORS))
    return _Kernel(lane_macs, utilisation, loaded, weights * rows, 4 * outputs * rows, weights, rows)
