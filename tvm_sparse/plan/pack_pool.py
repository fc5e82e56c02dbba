"""Max poolings in columns."""

from __future__ import annotations

import numpy as np

from tvm_sparse.layout.geometry import Geometry
from tvm_sparse.layout.halo import Window
from tvm_sparse.schedules.cpu import pool_columns
from tvm_sparse.schedules.cpu.driver import BUFFER_ELEMENTS
from tvm_sparse.schedules.cpu.isa import Isa

from .balance import balanced_chunks
from .layer import Convolution, PackedLayer
from .layer_tables import LayerTables
from .pack_panels import pack_panels
from .places import STENCIL_SHARE, Places
from .stationary_depthwise import StationaryDepthwise

# What a further part of the channels costs, as a share of the layer's time.
_ANOTHER_CHUNK = 0.01


def pack_max_pool(
    window: Window, source: Geometry, target: Geometry, channels: int, isa: Isa
) -> PackedLayer:
    """Pack a max pooling.

    Parameters
    ----------
    window : Window
        The pooling window.
    source, target : Geometry
        Geometry of its input and output.
    channels : int
        Channels.
    isa : Isa
        Instruction set.
    """
    weight = np.broadcast_to(np.float32(0), (channels, 1, *window.kernel))
    layer = Convolution(weight, np.zeros(0, np.float32), window, channels)
    stationary = StationaryDepthwise.plan(layer, source, target, isa)
    if stationary is not None:
        tile = stationary.tile
        kernel = pool_columns.MaxPoolPanels(tile.tile, tile.kernel, tile.stride, tile.places, inner=tile.inner)
        return pack_panels(stationary, kernel, (), isa)
    places = Places.plan(layer, source, target, None, isa)
    blocks, pointers = _blocks(places, target.sets, channels, isa)
    values = {"taps": places.taps, "tap_count": places.taps.size}
    packed = {"block": blocks, "block_pointers": pointers}
    tables = LayerTables(layer, source, target, None, isa, pool_columns.FIELDS, packed, values)
    windows = pool_columns.MaxPoolColumns(places.tile)
    return PackedLayer(windows, (tables.whole(places),), tables.stripes(places))


def _blocks(places: Places, sets: int, channels: int, isa: Isa) -> tuple[np.ndarray, np.ndarray]:
    """Blocks of channels whose windows fit the first-level cache, and their split into chunks."""
    size = max(1, min(int(STENCIL_SHARE * isa.l1_bytes) // 4, BUFFER_ELEMENTS) // places.channel_stride)
    chunks = balanced_chunks(sets * places.stripes, isa.tasks, channels, _ANOTHER_CHUNK)
    blocks: list[tuple[int, int, int, int]] = []
    pointers = [0]
    bounds = np.linspace(0, channels, chunks + 1).astype(int).tolist()
    for begin, end in zip(bounds[:-1], bounds[1:], strict=True):
        blocks += [(start, min(size, end - start), 1, 1) for start in range(begin, end, size)]
        pointers.append(len(blocks))
    return np.asarray(blocks, np.int64).reshape(-1, 4), np.asarray(pointers, np.int64)
