"""Turn a convolution with block-sparse weights into a kernel and its arrays, in columns."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tvm_sparse.layout.geometry import Geometry
from tvm_sparse.schedules.cpu import block_columns
from tvm_sparse.schedules.cpu.epilogue import epilogue_array
from tvm_sparse.schedules.cpu.ir import LINE
from tvm_sparse.schedules.cpu.isa import Isa
from tvm_sparse.sparsity.formats.blocks import BlockColumns, strip_sizes

from .layer import Convolution, PackedLayer
from .layer_tables import LayerTables
from .pack_columns import DENSE_PRODUCT_CYCLES, count_chunks, even_block, fits_cache
from .places import MAX_PART, Places

# Share of the first-level cache that a K-block fills: a vector serves several rows, so some may come from further away.
BLOCK_SHARE = 4.0


def block_part(isa: Isa) -> int:
    """Vectors of a register tile where panels are read in place: as many as four rows leave registers for."""
    return 6 if isa.registers >= 32 else 3


def block_rows(rows: int, isa: Isa) -> int:
    """Rows of a strip: those of a block, or a part of them that leaves registers for several vectors of each row."""
    return min(rows, isa.registers // 4)


def pack_blocks(
    layer: Convolution, source: Geometry, target: Geometry, isa: Isa, shape: tuple[int, int] = (4, 1)
) -> PackedLayer:
    """Pack a layer in blocks.

    Parameters
    ----------
    layer : Convolution
        The layer.
    source, target : Geometry
        Geometry of its input and output.
    isa : Isa
        Instruction set.
    shape : tuple of int
        Output channels and input channels of a block. Where the input channels are no whole number of blocks, or a
        block's windows exceed the buffer, blocks have a single weight.
    """
    rows, per_group = layer.weight.shape[:2]
    shape = (block_rows(shape[0], isa), shape[1])
    part = MAX_PART if shape[0] == 1 else block_part(isa)
    places = Places.plan(layer, source, target, part, isa)
    taps, limit = places.tap_offsets, places.channel_limit
    if per_group % shape[1] or limit < shape[1]:
        shape = (1, 1)
    width, share = shape[1], 1.0 if shape[0] == 1 else BLOCK_SHARE
    ideal = int(share * isa.l1_bytes) // (4 * places.touched * width)
    block = width * even_block(per_group // width, ideal, limit // width)
    chunks = count_chunks(
        layer, source, target, places, block, isa, np.count_nonzero(layer.weight) * DENSE_PRODUCT_CYCLES
    )
    packed = BlockColumns(shape, places.channel_stride, taps, block, layer.groups, chunks).pack(
        layer.weight.reshape(rows, per_group, -1)
    )
    kernel = block_columns.BlockColumnsKernel(
        places.tile, places.program is not None, layer.activation.epilogue, layer.residual, shape=shape
    )
    cached = fits_cache(layer, source, chunks, isa)
    values = {
        "rows": packed["rows"],
        "group": packed["group"],
        "group_pointers": packed["group_pointers"],
        "prefetch": _strip_lines(packed, len(strip_sizes(shape[0])), places.channel_stride, cached),
    }
    tables = LayerTables(layer, source, target, part, isa, block_columns.FIELDS, packed, values)
    numbers = epilogue_array(layer.bias, layer.activation, layer.slopes)
    arrays = (packed["values"], packed["offsets"], numbers, tables.whole(places))
    return PackedLayer(kernel, arrays, tables.stripes(places))


def _strip_lines(
    packed: Mapping[str, np.ndarray], kinds: int, channel_stride: int, cached: bool
) -> np.ndarray:
    """Cache lines of the next block that each strip of a block fetches, ``[blocks]``; none of a cached input.

    Parameters
    ----------
    packed : mapping
        What the format packed: ``group`` with strips in its second column, ``group_pointers``, ``block``.
    kinds : int
        Group pointers of a block.
    channel_stride : int
        Elements between the channels of the input.
    cached : bool
        Whether the input lies in the second-level cache.
    """
    if cached:
        return np.zeros(len(packed["block"]), np.int64)
    groups, pointers = packed["group"], packed["group_pointers"][::kinds]
    strips = np.array([groups[a:b, 1].sum() for a, b in zip(pointers[:-1], pointers[1:], strict=True)])
    return -(-packed["block"][:, 1] * channel_stride // LINE // np.maximum(strips, 1))
