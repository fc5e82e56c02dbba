"""Turn a convolution with constant weights into a kernel and its arrays, in columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod

import numpy as np

from tvm_sparse.layout.geometry import Geometry
from tvm_sparse.layout.image_window import Strides
from tvm_sparse.schedules.cpu import dense_columns, sparse_columns
from tvm_sparse.schedules.cpu.epilogue import epilogue_array
from tvm_sparse.schedules.cpu.ir import LINE
from tvm_sparse.schedules.cpu.isa import Isa
from tvm_sparse.schedules.cpu.tile import row_sizes
from tvm_sparse.sparsity.formats.columns import QUAD, UnstructuredColumns
from tvm_sparse.sparsity.formats.dense import DenseColumns

from .balance import balanced_chunks
from .layer import Convolution, PackedLayer
from .layer_tables import LayerTables
from .parts import PAIRED_NONZEROS, block_bytes, choose_parts
from .places import STENCIL_SHARE, Places
from .shared_windows import shared_panels
from .stationary_depthwise import StationaryDepthwise

# Nonzeros that a row should have in a K-block, and how much larger a block is where they are fewer.
_FEW_NONZEROS, _FEW_SHARE = 12, 1.4
# Shares of the second-level cache: an output that fills more is not found there; rows of a panel that fills more lie
# too far apart for a core's own prefetchers.
_CACHED_SHARE, _NEAR_SHARE = 1 / 3, 1 / 16
# Nonzeros of a row below which outputs are stored faster than the prefetchers fetch their lines.
_FEW_PRODUCTS = 8
# Bytes of a layer's weights up to which, where vectors are short, fetching them costs more than it saves: 1 to 4 %
# of ResNets and MobileNets, 4 to 6 % of dense first layers, for a core's own prefetchers follow them. Those of large
# linear layers come late without.
_NEAR_BYTES = 1 << 20
# Share of the first-level cache that a K-block of a dense layer fills where it reads panels in place.
_DENSE_BLOCK_SHARE = 1.0
# Share of the second-level cache that the outputs of a chunk fill: they stay there from block to block.
_CHUNK_SHARE = 1 / 6

# Cycles of a vector that a further part of the output channels reads once more, or builds once more in a window.
_READ_CYCLES, _BUILD_CYCLES = 1.7, 4.5
# Cycles of a stored weight times a vector, with everything around it: measured at 10 % nonzeros, and of dense layers.
SPARSE_PRODUCT_CYCLES, DENSE_PRODUCT_CYCLES = 0.85, 0.55


def pack_sparse(
    layer: Convolution, source: Geometry, target: Geometry, isa: Isa, depthwise: StationaryDepthwise | None = None,
    image: Strides | None = None,
) -> PackedLayer:  # fmt: skip
    """Pack a layer with unstructured zeros (a depth-wise layer too: its matrix is block-diagonal).

    Parameters
    ----------
    layer : Convolution
        The layer.
    source, target : Geometry
        Geometry of its input and output.
    isa : Isa
        Instruction set.
    depthwise : StationaryDepthwise, optional
        Depth-wise convolution whose output the layer, a 1x1 convolution, reads: the kernel computes both, and `source`
        is the geometry of the depth-wise convolution's input.
    image : Strides, optional
        Strides of plain images that the kernel reads instead of columns.
    """
    rows, per_group = layer.weight.shape[:2]
    share = shared_panels(layer, source, target, isa, _CHUNK_SHARE) if image is None and depthwise is None else 1
    places = _places(layer, source, target, isa, depthwise, image, share)
    taps, limit = places.tap_offsets, places.channel_limit
    # A depth-wise layer whose windows hold a whole image has read a channel before it writes it.
    in_place = layer.depthwise and rows == layer.groups and source == target and places.stripes == 1
    kernel = sparse_columns.SparseColumns(
        places.tile, places.halo, layer.activation.epilogue, layer.residual, in_place and not layer.residual,
        depthwise=depthwise and depthwise.tile, image=image is not None,
        parts=choose_parts(layer, places.vectors, isa) if places.program is None else 1,
    )  # fmt: skip
    channels = per_group * layer.groups
    part = max(kernel.part_sizes)
    ideal = int(STENCIL_SHARE * isa.l1_bytes if layer.depthwise else block_bytes(places.vectors, part, isa))
    touched = part * source.lanes if places.program is None else places.touched
    if places.shared:
        touched = prod(layer.window.extent(*places.tile)) * source.lanes
    nonzeros = np.count_nonzero(layer.weight)
    if depthwise is None and nonzeros * ideal // (4 * touched) < _FEW_NONZEROS * rows * channels:
        ideal = int(ideal * _FEW_SHARE)
    block = even_block(channels, ideal // (4 * touched), limit)
    if layer.groups > 1:
        block = min(limit, max(per_group, block // per_group * per_group))
    elif sparse_columns.can_pair(part, isa) and nonzeros * block >= PAIRED_NONZEROS * rows * channels:
        kernel = replace(kernel, pairs=True)
    cores = isa if depthwise is None else replace(isa, tasks=1)
    chunks = count_chunks(layer, source, target, places, block, cores, nonzeros * SPARSE_PRODUCT_CYCLES)
    fmt = UnstructuredColumns(
        places.channel_stride, taps, block, layer.groups, chunks, kernel.bundle(isa), kernel.pairs
    )
    packed = fmt.pack(layer.weight.reshape(rows, per_group, -1))
    kernel = replace(kernel, streamed=_are_streamed(packed, isa))
    fetched = sparse_columns.has_long_vectors(isa) and depthwise is None and not fits_cache(layer, source, chunks, isa)
    panel_bytes = 4 * rows * target.vectors * target.lanes
    rows_of_work = np.pad(packed["rows"], (0, sparse_columns.LATER * kernel.bundle(isa)))
    values = {
        "rows": rows_of_work,
        "row_places": rows_of_work * target.vectors * target.lanes,
        "group": packed["group"],
        "group_pointers": packed["group_pointers"],
        "prefetch": _quad_lines(packed, kernel.parts, places.channel_stride, fetched),
        "fetch_outputs": int(
            panel_bytes * target.panels > _CACHED_SHARE * isa.l2_bytes
            and (panel_bytes > _NEAR_SHARE * isa.l2_bytes or nonzeros < _FEW_PRODUCTS * rows)
        ),
    }
    fields = (*sparse_columns.FIELDS, *kernel.window_fields)
    tables = LayerTables(layer, source, target, source.vectors, isa, fields, packed, values, depthwise, image)
    numbers = epilogue_array(layer.bias, layer.activation, layer.slopes)
    before = () if depthwise is None else depthwise.arrays
    arrays = (*before, packed["values"], packed["offsets"], numbers, tables.whole(places))
    return PackedLayer(kernel, arrays, tables.stripes(places))


def _places(
    layer: Convolution, source: Geometry, target: Geometry, isa: Isa, depthwise: StationaryDepthwise | None,
    image: Strides | None, share: int = 1,
) -> Places:  # fmt: skip
    """Where a layer reads: its input, or what a depth-wise convolution made of it."""
    if depthwise is not None:
        return Places.of_buffer(target)
    return Places.plan(layer, source, target, source.vectors, isa, image=image, share=share)


def even_block(channels: int, ideal: int, limit: int) -> int:
    """Channels of a K-block: near the ideal, blocks of one size, at most `limit`."""
    blocks = max(1, round(channels / max(1, ideal)), -(-channels // limit))
    return -(-channels // blocks)


def fits_cache(layer: Convolution, source: Geometry, chunks: int, isa: Isa) -> bool:
    """Whether a core finds the input of its tasks in its second-level cache.

    It does where an image of the input fits, unless the output's channels are split between cores: each then reads all
    channels of the input, most of which other cores have written.
    """
    fits = source.set_bytes(layer.weight.shape[1] * layer.groups) <= isa.l2_bytes // 2
    return fits and (chunks == 1 or isa.tasks == 1)


def _are_streamed(packed: Mapping[str, np.ndarray], isa: Isa) -> bool:
    """Whether packed weights are fetched ahead."""
    return sparse_columns.has_long_vectors(isa) or packed["values"].nbytes + packed["offsets"].nbytes > _NEAR_BYTES


def _quad_lines(
    packed: Mapping[str, np.ndarray], parts: int, channel_stride: int, fetched: bool
) -> np.ndarray:
    """Cache lines of the next block that each quad of a bundle fetches, ``[blocks]``: a power of two, or none.

    Parameters
    ----------
    packed : mapping
        What :class:`.UnstructuredColumns` packed.
    parts : int
        Parts of the tile: each passes all quads and fetches its share.
    channel_stride : int
        Elements between the channels of the input.
    fetched : bool
        Whether anything is fetched: not where the input lies in the second-level cache.
    """
    pointers = packed["group_pointers"][::QUAD]
    quads = np.array([(g[:, 1] * g[:, 3]).sum() for g in np.split(packed["group"], pointers[1:-1])])
    lines = packed["block"][:, 1] * channel_stride / LINE
    need = lines / np.maximum(quads * parts, 1)
    power = 2 ** np.ceil(np.log2(np.maximum(need, 1))).astype(np.int64)
    return np.minimum(power, sparse_columns.MOST_LINES) if fetched else np.zeros(len(lines), np.int64)


def pack_dense(
    layer: Convolution, source: Geometry, target: Geometry, isa: Isa, depthwise: StationaryDepthwise | None = None,
    image: Strides | None = None,
) -> PackedLayer:  # fmt: skip
    """Pack a layer whose weights stay dense; parameters as of `pack_sparse`."""
    rows, per_group = layer.weight.shape[:2]
    places = _places(layer, source, target, isa, depthwise, image)
    taps, limit = places.tap_offsets, places.channel_limit
    if places.program is None:
        limit = min(limit, max(1, int(_DENSE_BLOCK_SHARE * isa.l1_bytes) // (4 * places.touched)))
    block = min(per_group, limit)
    block = -(-per_group // -(-per_group // block))
    cores = isa if depthwise is None else replace(isa, tasks=1)
    chunks = count_chunks(layer, source, target, places, block, cores, layer.weight.size * DENSE_PRODUCT_CYCLES)
    fmt = DenseColumns(
        places.channel_stride, taps, block, row_sizes(isa, places.vectors), layer.groups, chunks
    )
    packed = fmt.pack(layer.weight.reshape(rows, per_group, -1))
    kernel = dense_columns.DenseColumnsKernel(
        places.tile, places.halo, layer.activation.epilogue, layer.residual,
        depthwise=depthwise and depthwise.tile, image=image is not None, streamed=_are_streamed(packed, isa),
    )  # fmt: skip
    values = {name: packed[name] for name in ("strip", "strip_pointers", "depth")}
    fields = (*dense_columns.FIELDS, *kernel.window_fields)
    tables = LayerTables(layer, source, target, source.vectors, isa, fields, packed, values, depthwise, image)
    numbers = epilogue_array(layer.bias, layer.activation, layer.slopes)
    before = () if depthwise is None else depthwise.arrays
    arrays = (*before, packed["values"], packed["offsets"], numbers, tables.whole(places))
    return PackedLayer(kernel, arrays, tables.stripes(places))


def count_chunks(
    layer: Convolution, source: Geometry, target: Geometry, places: Places, block: int, isa: Isa, vector_cycles: float
) -> int:
    """Parts of the output channels: work for all cores, sums that stay cached, groups that fit a block.

    Parameters
    ----------
    layer, source, target, isa
        As of `pack_sparse`.
    places : Places
        Where the kernel reads.
    block : int
        Channels of a K-block.
    vector_cycles : float
        Cycles that all stored weights take for each vector of a panel.
    """
    rows, per_group = layer.weight.shape[:2]
    row_bytes = places.row_bytes(target)
    # What every part repeats: the input read once more, or its windows built once more.
    read = _READ_CYCLES if places.program is None else _BUILD_CYCLES
    repeated = read * per_group * layer.groups * places.touched / source.lanes
    work = max(1.0, vector_cycles) * row_bytes / (4 * target.lanes)
    least = max(1, round(rows * row_bytes / (_CHUNK_SHARE * isa.l2_bytes)))
    chunks = balanced_chunks(target.sets * places.panels, isa.tasks, rows, repeated / work, least)
    if layer.groups > 1:
        return max(chunks, layer.groups) if per_group > block else chunks
    return max(1, min(chunks, rows // 8))
