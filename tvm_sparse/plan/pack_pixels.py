"""Dense layers on images that leave lanes of columns empty: output channels in the lanes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tvm_sparse.layout.geometry import Geometry
from tvm_sparse.schedules.cpu import dense_pixels
from tvm_sparse.schedules.cpu.epilogue import epilogue_array
from tvm_sparse.schedules.cpu.isa import Isa
from tvm_sparse.sparsity.formats.dense import DenseColumns

from .layer import Convolution, PackedLayer
from .layer_tables import LayerTables
from .pack_columns import DENSE_PRODUCT_CYCLES, count_chunks, even_block
from .places import Places

# Channels of a K-block where panels are read in place. The weights of a strip and the pixels' inputs, each read again
# for the other, stay in the second-level cache; with few registers, whose tiles read each more often, in the first.
_BLOCK_CHANNELS, _BLOCK_CHANNELS_OF_16 = 384, 80
# Share of the first-level cache that the weights of strips fill that are computed together.
_STRIPS_SHARE = 0.5
# Lanes of columns for each pixel that is computed, at least: sums are stored once more here, and transposed.
_GAIN = 1.06


def suits_pixels(layer: Convolution, target: Geometry, isa: Isa) -> bool:
    """Whether output channels fill the lanes better than the pixels of an image do.

    Parameters
    ----------
    layer : Convolution
        The layer.
    target : Geometry
        Geometry of its output.
    isa : Isa
        Instruction set.
    """
    rows = layer.weight.shape[0]
    fills = layer.groups == 1 and rows > 0 and rows % isa.lanes == 0
    return fills and computed_pixels(target, isa) * _GAIN < target.vectors * target.lanes


def computed_pixels(target: Geometry, isa: Isa) -> float:
    """Pixels that are computed for a panel, in the mean: whole groups."""
    return float(np.mean([_groups(pixels, isa)[1] for pixels in target.used.sum((1, 2)).tolist()]))


def _groups(pixels: int, isa: Isa) -> tuple[tuple[int, int], int]:
    """Groups of each size for so many pixels, and how many they compute."""
    large, small = dense_pixels.group_sizes(isa)
    count = -(-pixels // large)
    smaller = min(count, count * large - pixels)
    return (count - smaller, smaller), (count - smaller) * large + smaller * small


def pack_pixels(layer: Convolution, source: Geometry, target: Geometry, isa: Isa) -> PackedLayer:
    """Pack a layer whose weights stay dense, with its output channels in the lanes.

    Parameters
    ----------
    layer : Convolution
        The layer: no groups, output channels that fill vectors.
    source, target : Geometry
        Geometry of its input and output.
    isa : Isa
        Instruction set.
    """
    rows, channels = layer.weight.shape[:2]
    places = Places.plan(layer, source, target, source.vectors, isa)
    ideal = _BLOCK_CHANNELS if isa.registers >= 32 else _BLOCK_CHANNELS_OF_16
    if places.program is not None:
        ideal = places.channel_limit
    block = even_block(channels, ideal, places.channel_limit)
    slots = max(_groups(pixels, isa)[1] for pixels in target.used.sum((1, 2)).tolist())
    wanted = count_chunks(layer, source, target, places, block, isa, layer.weight.size * DENSE_PRODUCT_CYCLES)
    chunks = _chunks(rows // isa.lanes, wanted, slots, isa)
    # Strips fall to a single vector, so there is none of a single row.
    sizes = (*dense_pixels.strip_sizes(isa), 1)
    packed = DenseColumns(places.channel_stride, places.tap_offsets, block, sizes, 1, chunks).pack(
        layer.weight.reshape(rows, channels, -1)
    )
    kernel = dense_pixels.DensePixels(
        places.tile, places.program is not None, layer.activation.epilogue, layer.residual
    )
    step = rows // chunks + isa.lanes
    values = {
        "strip": packed["strip"],
        "strip_pointers": _without_last(packed["strip_pointers"], len(sizes)),
        "depth": packed["depth"],
        **_pixels(places, target, isa, step),
        "sums_pixel": step,
        "chunk_vectors": rows // chunks // isa.lanes,
        "strips_together": max(1, int(_STRIPS_SHARE * isa.l1_bytes) // (4 * sizes[0] * int(packed["depth"].max()))),
    }
    tables = LayerTables(layer, source, target, source.vectors, isa, dense_pixels.FIELDS, packed, values)
    numbers = epilogue_array(layer.bias, layer.activation, layer.slopes)
    return PackedLayer(kernel, (packed["values"], packed["offsets"], numbers, tables.whole(places)))


def _chunks(vectors: int, wanted: int, slots: int, isa: Isa) -> int:
    """Parts of equally many vectors of output channels, at least as many as wanted, whose sums fit their buffer."""
    divisors = [d for d in range(1, vectors + 1) if vectors % d == 0]
    fitting = [d for d in divisors if slots * (vectors // d + 1) * isa.lanes <= dense_pixels.SUMS_ELEMENTS]
    return min((d for d in fitting if d >= wanted), default=fitting[-1])


def _without_last(pointers: np.ndarray, sizes: int) -> np.ndarray:
    """Pointers to strips by block and size, without the size that no strip has."""
    per_block = pointers[:-1].reshape(-1, sizes)[:, :-1]
    return np.append(per_block, pointers[-1])


def _pixels(places: Places, target: Geometry, isa: Isa, step: int) -> dict[str, np.ndarray]:
    """The pixels of every tile: where they are read, and where their sums are."""
    lanes, (rows, columns) = target.lanes, places.tile
    vector = np.arange(rows * columns)
    read = (vector // rows * places.pitch + vector % rows * lanes)[:, None] + np.arange(lanes)
    known: dict[bytes, tuple[int, int, int, int]] = {}
    pixels: list[np.ndarray] = []
    slots: list[np.ndarray] = []
    tiles: list[Sequence[int]] = []
    for panel, first in zip(places.tile_panel.tolist(), places.tile_vector.tolist(), strict=True):
        used = target.used[panel, first : first + rows * columns]
        key = used.tobytes()
        if key not in known:
            mine = read[used]
            groups, computed = _groups(len(mine), isa)
            known[key] = sum(map(len, pixels)), *groups, sum(map(len, slots))
            # The last group repeats a pixel, where there are too few.
            pixels.append(np.pad(mine, (0, computed - len(mine)), "edge") if computed else mine)
            number = np.zeros(used.shape, np.int64)
            number[used] = np.arange(len(mine))
            slots.append(number.reshape(-1) * step)
        tiles.append(known[key])
    by_tile = np.asarray(tiles, np.int64).reshape(-1, 4)
    return {
        "pixel_pointers": by_tile[:, 0],
        "pixel_groups": by_tile[:, 1:3].reshape(-1),
        "slot_pointers": by_tile[:, 3],
        "pixels": np.concatenate(pixels),
        "slots": np.concatenate(slots),
    }
