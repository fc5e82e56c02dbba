"""Tables of the kernels between plain tensors and columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tvm_sparse.layout import relayout
from tvm_sparse.layout.geometry import Geometry
from tvm_sparse.layout.image_window import Strides
from tvm_sparse.layout.table import pack_table
from tvm_sparse.layout.transpose import QUAD, read_program, write_program
from tvm_sparse.schedules.cpu import relayout as kernels
from tvm_sparse.schedules.cpu.isa import Isa
from tvm_sparse.schedules.cpu.lanes import can_merge

from .layer import PackedLayer
from .pack_moves import pack_images

# Vectors of one task: enough to be worth starting it.
_TASK_VECTORS = 256


def pack_to_columns(geometry: Geometry, channels: int, strides: Strides, rank: int) -> PackedLayer:
    """Pack the relayout of a plain tensor to columns.

    Parameters
    ----------
    geometry : Geometry
        Geometry of the result.
    channels : int
        Channels.
    strides : Strides
        Of the tensor.
    rank : int
        Rank of the tensor.
    """
    loops = _loops(geometry, channels, strides)
    quads, gathers = read_program(loops.elements, loops.used, loops.places, loops.rows, loops.size)
    values = _values(geometry, channels, strides, loops, quads=quads, gathers=gathers)
    return PackedLayer(kernels.ToColumns(rank), [pack_table(kernels.TO_COLUMNS_FIELDS, values)])


def pack_from_columns(geometry: Geometry, channels: int, strides: Strides, rank: int, isa: Isa) -> PackedLayer:
    """Pack the relayout of columns to a plain tensor; parameters as of `pack_to_columns`."""
    if strides.channel != 1 and geometry.sub_width < QUAD and geometry.pixels >= geometry.lanes and can_merge(isa):
        # Rows of so few vectors that a vector of the image is merged from few.
        return pack_images(geometry, channels, isa)
    loops = _loops(geometry, channels, strides)
    quads, runs, single = write_program(loops.elements, loops.used, loops.places, loops.rows)
    values = _values(geometry, channels, strides, loops, quads=quads, gathers=runs, elements=single)
    kernel = kernels.ToTokens(rank) if strides.channel == 1 else kernels.ToImages()
    return PackedLayer(kernel, [pack_table(kernels.FROM_COLUMNS_FIELDS, values)])


@dataclass
class _Loops:
    """Vectors of a set of images that a program lists, and how the kernel repeats it for all channels."""

    elements: np.ndarray
    used: np.ndarray
    places: np.ndarray
    rows: np.ndarray
    size: int
    channels: int
    steps: int = 1
    last_step: int = 0


def _loops(geometry: Geometry, channels: int, strides: Strides) -> _Loops:
    lanes, step = geometry.lanes, geometry.vectors * geometry.lanes
    image = geometry.pixels * channels
    elements = relayout.pixels_from_image(geometry, image, strides.row, strides.column).reshape(-1, lanes)
    before = (geometry.images - 1) * image
    used = geometry.used.reshape(-1, lanes)
    panel, vector = np.divmod(np.arange(len(elements)), geometry.vectors)
    places = panel * channels * step + vector * lanes
    sub_y, sub_x = np.meshgrid(np.arange(geometry.sub_height), np.arange(geometry.sub_width), indexing="ij")
    panel, vector, _ = geometry.locate(sub_y, sub_x)
    rows = panel * geometry.vectors + vector
    if strides.channel != 1:
        return _Loops(elements, used, places, rows, before + geometry.pixels, channels)
    # Channels lie side by side: they and the pixels after them are one row of elements.
    side = min(channels, QUAD)
    loops = _Loops(
        elements=(elements[:, None] + np.arange(side)[:, None]).reshape(-1, lanes),
        used=np.repeat(used, side, 0),
        places=(places[:, None] + np.arange(side) * step).reshape(-1),
        rows=(rows[..., None] * side + np.arange(side)).reshape(len(rows), -1),
        size=before + image,
        channels=1,
    )
    if channels >= QUAD:
        # Four channels are enough of a row: the kernel repeats them for all others.
        loops.rows = loops.rows.reshape(-1, QUAD)
        loops.steps, loops.last_step = -(-channels // QUAD), channels - QUAD
        loops.size -= loops.last_step
    return loops


def _values(
    geometry: Geometry, channels: int, strides: Strides, loops: _Loops, **operations: np.ndarray
) -> dict[str, int | np.ndarray]:
    """Values of the table; each kind of operations is cut into equal parts, by name ``quads`` to ``quad_parts``."""
    step = geometry.vectors * geometry.lanes
    # Whole channels where they are small, so that what a task writes stays in a cache until it is complete.
    vectors = len(loops.elements) * loops.steps
    parts = max(1, round(vectors / _TASK_VECTORS))
    split = np.arange(parts + 1)
    return {
        "sets": geometry.sets,
        "parts": parts,
        "channels": loops.channels,
        "channel_block": min(loops.channels, -(-_TASK_VECTORS // vectors)),
        "plain_set": geometry.images * geometry.pixels * channels,
        "plain_channel": strides.channel,
        "columns_set": geometry.panels * channels * step,
        "columns_channel": step,
        "steps": loops.steps,
        "last_step": loops.last_step,
        **operations,
        **{f"{name[:-1]}_parts": split * len(array) // parts for name, array in operations.items()},
    }
