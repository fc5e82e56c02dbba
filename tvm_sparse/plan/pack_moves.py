"""Tables of the kernels that move pixels between columns: relayouts and resizing."""

from __future__ import annotations

import numpy as np

from tvm_sparse.layout import relayout
from tvm_sparse.layout.geometry import Geometry
from tvm_sparse.layout.merge import block_of_channels, fill_unused, merge_program, panel_stripes
from tvm_sparse.layout.table import pack_table
from tvm_sparse.schedules.cpu import move_columns as kernels
from tvm_sparse.schedules.cpu.isa import Isa
from tvm_sparse.schedules.cpu.lanes import can_merge
from tvm_sparse.schedules.cpu.relayout import ToImages

from .layer import PackedLayer


def pack_move(
    pixels: np.ndarray, source: Geometry, target: Geometry, channels_in: int, channels_out: int, isa: Isa
) -> PackedLayer:
    """Pack a gather of pixels.

    Parameters
    ----------
    pixels : numpy.ndarray
        ``[sets * panels, vectors, lanes]``: element that each lane of the target reads, for its first channel, of as
        many sets as :func:`.relayout.count_sets` says.
    source, target : Geometry
        Geometries read and written.
    channels_in, channels_out : int
        Channels of the tensors.
    isa : Isa
        Instruction set.
    """
    panels = len(pixels)
    used = _used(target, panels).reshape(-1, target.lanes)
    pixels = fill_unused(pixels.reshape(-1, target.lanes), used)
    bounds = panel_stripes(panels, target.vectors) * target.vectors
    destination = _destinations(target, panels, channels_out)
    sizes = _sizes(source, target, channels_in, channels_out)
    return PackedLayer(kernels.MoveColumns(), [_move_table(pixels, used, destination, bounds, sizes, isa)])


def pack_images(source: Geometry, channels: int, isa: Isa) -> PackedLayer:
    """Pack the way back to ``[N, C, H, W]``, for images of at least as many pixels as a vector has lanes."""
    lanes = source.lanes
    pixels = relayout.image_pixels(source, channels)
    # The last vector overlaps the one before, where the lanes do not divide the image.
    starts = np.minimum(np.arange(-(-source.pixels // lanes)) * lanes, source.pixels - lanes)
    vectors = pixels[:, starts[:, None] + np.arange(lanes)].reshape(-1, lanes)
    destination = (np.arange(source.images)[:, None] * source.pixels * channels + starts).reshape(-1)
    sizes = {
        **_sizes(source, source, channels, channels),
        "output_set": source.images * source.pixels * channels,
        "output_channel": source.pixels,
    }
    bounds = panel_stripes(len(vectors), 1)
    table = _move_table(vectors, np.ones(vectors.shape, bool), destination, bounds, sizes, isa)
    return PackedLayer(ToImages(merge=True), [table])


def _move_table(
    pixels: np.ndarray, used: np.ndarray, destination: np.ndarray, bounds: np.ndarray, sizes: dict[str, int], isa: Isa
) -> np.ndarray:
    lanes = pixels.shape[1]
    program = merge_program(pixels, used, destination, bounds, lanes, not can_merge(isa))
    values = {
        **sizes,
        **_block(sizes, block_of_channels(sizes["channels"], int(np.diff(bounds).max()))),
        "stripes": len(bounds) - 1,
        "operations": program.operations,
        "pointers": program.pointers,
        "lanes": program.lanes,
        "spacing": lanes,
    }
    return pack_table(kernels.MOVE_FIELDS, values)


def pack_blend(
    pixels: np.ndarray, weights: np.ndarray, source: Geometry, target: Geometry, channels: int, isa: Isa,
    residual: bool = False,
) -> PackedLayer:  # fmt: skip
    """Pack a weighted sum of four pixels.

    Parameters
    ----------
    pixels : numpy.ndarray
        ``[sets * panels, vectors, 4, lanes]``: elements that each lane of the target reads, for the first channel, of
        as many sets as :func:`.relayout.count_sets` says.
    weights : numpy.ndarray
        float32 ``[panels, vectors, 4, lanes]``, those of every set.
    source, target : Geometry
        Geometries read and written.
    channels : int
        Channels.
    isa : Isa
        Instruction set.
    residual : bool
        Whether a tensor of the target's shape is added.
    """
    lanes, panels = target.lanes, len(pixels)
    used = np.broadcast_to(_used(target, panels)[:, :, None], pixels.shape)
    pixels = fill_unused(pixels, used)
    stripes = panel_stripes(panels, target.vectors)
    slots = [_distinct(pixels[a:b], used[a:b]) for a, b in zip(stripes[:-1], stripes[1:], strict=True)]
    most = max(len(vectors) for vectors, _, _ in slots)
    block = min(kernels.BUFFER_ELEMENTS // (most * lanes), block_of_channels(channels, most))
    bounds = np.cumsum([0] + [len(vectors) for vectors, _, _ in slots])
    destination = np.concatenate([np.arange(len(vectors)) for vectors, _, _ in slots]) * block * lanes
    program = merge_program(
        np.concatenate([vectors for vectors, _, _ in slots]),
        np.concatenate([mask for _, mask, _ in slots]),
        destination, bounds, block * lanes, not can_merge(isa),
    )  # fmt: skip
    factors, which = np.unique(weights.reshape(-1, kernels.TAPS * lanes), axis=0, return_inverse=True)
    at = np.concatenate([position.reshape(-1, kernels.TAPS) for _, _, position in slots]) * block * lanes
    factor = np.tile(which.reshape(-1) * kernels.TAPS * lanes, panels // target.panels)
    blends = np.column_stack([_destinations(target, panels, channels), at, factor])
    sizes = _sizes(source, target, channels, channels)
    values = {
        **sizes,
        **_block(sizes, block),
        "stripes": len(stripes) - 1,
        "operations": program.operations,
        "pointers": program.pointers,
        "lanes": program.lanes,
        "spacing": block * lanes,
        "blends": blends,
        "blend_pointers": stripes * target.vectors,
    }
    table = pack_table(kernels.BLEND_FIELDS, values)
    return PackedLayer(kernels.BlendColumns(residual), [factors.reshape(-1), table])


def _sizes(source: Geometry, target: Geometry, channels_in: int, channels_out: int) -> dict[str, int]:
    step_in, step_out = source.vectors * source.lanes, target.vectors * target.lanes
    sets_in, sets_out = relayout.count_sets(source, target)
    return {
        "sets": target.sets // sets_out,
        "channels": channels_out,
        "input_set": sets_in * source.panels * channels_in * step_in,
        "input_channel": step_in,
        "output_set": sets_out * target.panels * channels_out * step_out,
        "output_channel": step_out,
    }


def _block(sizes: dict[str, int], block: int) -> dict[str, int | np.ndarray]:
    return {"channel_block": block, "channel_offsets": np.arange(block) * sizes["input_channel"]}


def _used(target: Geometry, panels: int) -> np.ndarray:
    """Whether a lane holds a pixel, for so many panels of some sets: bool ``[panels, vectors, lanes]``."""
    return np.tile(target.used, (panels // target.panels, 1, 1))


def _destinations(target: Geometry, panels: int, channels: int) -> np.ndarray:
    """Element of each vector of so many panels in columns, for the first channel."""
    panel, vector = np.divmod(np.arange(panels * target.vectors), target.vectors)
    return (panel * channels * target.vectors + vector) * target.lanes


def _distinct(pixels: np.ndarray, used: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct vectors of a stripe in the order of what they read, their lanes in use, and the number of each."""
    lanes = pixels.shape[-1]
    vectors, number = np.unique(pixels.reshape(-1, lanes), axis=0, return_inverse=True)
    mask = np.zeros(vectors.shape, bool)
    np.logical_or.at(mask, number.reshape(-1), used.reshape(-1, lanes))
    return vectors, mask, number.reshape(pixels.shape[:-1])
