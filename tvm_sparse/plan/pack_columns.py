"""Turn a convolution with constant weights into a kernel and its arrays, in columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tvm_sparse.errors import TvmSparseError
from tvm_sparse.layout.geometry import Geometry
from tvm_sparse.layout.halo import HaloProgram, Window, halo_program
from tvm_sparse.layout.table import pack_table
from tvm_sparse.schedules.cpu import dense_columns, pool_columns, sparse_columns
from tvm_sparse.schedules.cpu.driver import BUFFER_ELEMENTS
from tvm_sparse.schedules.cpu.epilogue import Activation, epilogue_array
from tvm_sparse.schedules.cpu.isa import Isa
from tvm_sparse.schedules.cpu.tile import row_sizes
from tvm_sparse.sparsity.formats.columns import QUAD, UnstructuredColumns
from tvm_sparse.sparsity.formats.dense import DenseColumns

# Share of the first-level cache that a K-block's activations may fill, in sparse layers and in depth-wise ones.
_BLOCK_SHARE = 0.9
# The same for a dense layer that reads panels in place.
_DENSE_BLOCK_SHARE = 1.0
# Bytes of outputs that a chunk accumulates: they stay in the second-level cache from block to block.
_CHUNK_BYTES = 96 * 1024
# Tasks below which a layer is also split over output channels, so that every core has work.
_MIN_TASKS = 4
# Vectors of a sparse layer's register tile where panels are read in place.
_MAX_PART = 10


@dataclass(frozen=True)
class Convolution:
    """A convolution (or linear layer, as 1x1) with constant weights.

    Parameters
    ----------
    weight : numpy.ndarray
        float32 ``[M, C / groups, kh, kw]``.
    bias : numpy.ndarray
        float32 ``[M]``.
    window : Window
        Kernel, stride, dilation, padding.
    groups : int
        Groups.
    activation : Activation
        Applied to the sums (after the residual).
    slopes : numpy.ndarray, optional
        Per-channel slopes of a PReLU.
    residual : bool
        Whether a tensor of the output's shape is added before the activation.
    """

    weight: np.ndarray
    bias: np.ndarray
    window: Window
    groups: int = 1
    activation: Activation = Activation()
    slopes: np.ndarray | None = None
    residual: bool = False

    @property
    def depthwise(self) -> bool:
        """Whether every group has one input channel."""
        return self.groups > 1 and self.weight.shape[1] == 1

    @property
    def pointwise(self) -> bool:
        """Whether it reads single pixels in place: 1x1, no stride, no padding."""
        return (
            self.window.kernel == (1, 1)
            and self.window.stride == (1, 1)
            and not any(self.window.padding)
        )


@dataclass(frozen=True)
class PackedLayer:
    """A kernel with the arrays that make it a layer.

    Parameters
    ----------
    kernel : object
        Kernel of a family in :mod:`tvm_sparse.schedules`.
    arrays : tuple of numpy.ndarray
        Constant arguments, in call order after the activations.
    nbytes : int
        Bytes of the arrays.
    """

    kernel: Any
    arrays: tuple[np.ndarray, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the constant arrays."""
        return sum(array.nbytes for array in self.arrays)


def pack_sparse(layer: Convolution, source: Geometry, target: Geometry, isa: Isa) -> PackedLayer:
    """Pack a layer with unstructured zeros (a depth-wise layer too: its matrix is block-diagonal).

    Parameters
    ----------
    layer : Convolution
        The layer.
    source, target : Geometry
        Geometry of its input and output.
    isa : Isa
        Instruction set.
    """
    rows, per_group = layer.weight.shape[:2]
    places = _Places.plan(layer, source, target, _MAX_PART, isa)
    taps = tuple(int(t) for t in places.taps.reshape(-1))
    block = max(1, int(_BLOCK_SHARE * isa.l1_bytes) // (4 * places.touched))
    block = min(block, (65535 - max(taps)) // places.channel_stride + 1)
    if layer.groups > 1 and rows // layer.groups * layer.groups == rows:
        block = min(block, max(per_group, block // per_group * per_group))
    if places.program is not None:
        block = min(block, BUFFER_ELEMENTS // places.channel_stride)
    block = min(block, per_group * layer.groups)
    chunks = _chunks(source.batch * places.stripes, layer, block, places.row_bytes(target))
    fmt = UnstructuredColumns(places.channel_stride, taps, block, layer.groups, chunks)
    packed = fmt.pack(layer.weight.reshape(rows, per_group, -1))
    kernel = sparse_columns.SparseColumns(
        places.tile, places.program is not None, layer.activation.kind, layer.residual
    )
    cached = 4 * per_group * layer.groups * source.panels * source.vectors * source.lanes <= isa.l2_bytes // 2
    table = pack_table(
        sparse_columns.FIELDS,
        {
            **places.table(layer, source, target, packed["block"], packed["block_pointers"]),
            "rows": packed["rows"],
            "group": packed["group"],
            "group_pointers": packed["group_pointers"],
            "prefetch": _prefetch_lines(packed, places.channel_stride, cached),
            "spread": np.repeat(np.arange(QUAD), isa.lanes),
        },
    )
    numbers = epilogue_array(layer.bias, layer.activation, layer.slopes)
    return PackedLayer(kernel, (packed["values"], packed["offsets"], numbers, table))


def _prefetch_lines(packed: Mapping[str, np.ndarray], channel_stride: int, cached: bool) -> np.ndarray:
    """Cache lines of the next block that each row of a block fetches, ``[blocks]``; none of a cached input."""
    if cached:
        return np.zeros(len(packed["block"]), np.int64)
    groups, pointers = packed["group"], packed["group_pointers"][::QUAD]
    rows = np.array([groups[a:b, 1].sum() for a, b in zip(pointers[:-1], pointers[1:], strict=True)])
    return -(-packed["block"][:, 1] * channel_stride // 16 // np.maximum(rows, 1))


def pack_dense(layer: Convolution, source: Geometry, target: Geometry, isa: Isa) -> PackedLayer:
    """Pack a layer whose weights stay dense."""
    rows, per_group = layer.weight.shape[:2]
    places = _Places.plan(layer, source, target, source.vectors, isa)
    taps = tuple(int(t) for t in places.taps.reshape(-1))
    limit = (65535 - max(taps)) // places.channel_stride + 1
    if places.program is None:
        limit = min(limit, max(1, int(_DENSE_BLOCK_SHARE * isa.l1_bytes) // (4 * places.touched)))
    else:
        limit = min(limit, BUFFER_ELEMENTS // places.channel_stride)
    block = min(per_group, limit)
    block = -(-per_group // -(-per_group // block))
    chunks = _chunks(source.batch * places.stripes, layer, block, places.row_bytes(target))
    fmt = DenseColumns(
        places.channel_stride, taps, block, row_sizes(isa, places.vectors), layer.groups, chunks
    )
    packed = fmt.pack(layer.weight.reshape(rows, per_group, -1))
    kernel = dense_columns.DenseColumnsKernel(
        places.tile, places.program is not None, layer.activation.kind, layer.residual
    )
    table = pack_table(
        dense_columns.FIELDS,
        {
            **places.table(layer, source, target, packed["block"], packed["block_pointers"]),
            "strip": packed["strip"],
            "strip_pointers": packed["strip_pointers"],
            "depth": packed["depth"],
        },
    )
    numbers = epilogue_array(layer.bias, layer.activation, layer.slopes)
    return PackedLayer(kernel, (packed["values"], packed["offsets"], numbers, table))


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
    places = _Places.plan(layer, source, target, None, isa)
    block = max(1, min(int(_BLOCK_SHARE * isa.l1_bytes) // 4, BUFFER_ELEMENTS) // places.channel_stride)
    starts = np.arange(0, channels, block)
    blocks = np.stack([starts, np.minimum(channels - starts, block), starts * 0 + 1, starts * 0 + 1], 1)
    table = pack_table(
        pool_columns.FIELDS,
        {
            **places.table(layer, source, target, blocks, np.arange(len(starts) + 1)),
            "taps": places.taps,
            "tap_count": places.taps.size,
        },
    )
    return PackedLayer(pool_columns.MaxPoolColumns(places.tile), (table,))


def _chunks(tasks: int, layer: Convolution, block: int, row_bytes: int) -> int:
    """Parts of the output channels: enough tasks for the cores, sums that stay cached, groups that fit a block."""
    rows, per_group = layer.weight.shape[:2]
    chunks = max(-(-_MIN_TASKS // tasks), round(rows * row_bytes / _CHUNK_BYTES), 1)
    if layer.groups > 1:
        return max(chunks, layer.groups) if per_group > block else chunks
    return max(1, min(chunks, rows // 8))


@dataclass(frozen=True)
class _Places:
    """Where a layer's kernel reads and writes."""

    tile: tuple[int, int]
    stripes: int
    taps: np.ndarray
    channel_stride: int
    pitch: int
    tile_pointers: np.ndarray
    tile_source: np.ndarray
    tile_panel: np.ndarray
    tile_vector: np.ndarray
    program: HaloProgram | None

    @staticmethod
    def plan(
        layer: Convolution, source: Geometry, target: Geometry, part_limit: int | None, isa: Isa
    ) -> _Places:
        """Plan; panels read in place are cut into parts of at most `part_limit` vectors (None: windows only)."""
        channels = layer.weight.shape[1] * layer.groups
        if layer.pointwise and source == target and part_limit is not None:
            part = part_size(source.vectors, part_limit)
            parts = source.vectors // part
            panel, index = (
                a.reshape(-1)
                for a in np.meshgrid(np.arange(source.panels), np.arange(parts), indexing="ij")
            )
            elements = source.vectors * source.lanes
            return _Places(
                tile=(part, 1),
                stripes=len(panel),
                taps=np.zeros(1, np.int64),
                channel_stride=elements,
                pitch=0,
                tile_pointers=np.arange(len(panel) + 1),
                tile_source=panel * channels * elements + index * part * source.lanes,
                tile_panel=panel,
                tile_vector=index * part,
                program=None,
            )
        tile, program = _halo(layer, source, target, channels, isa)
        panel, vector = program.tile_panel, np.zeros_like(program.tile_panel)
        if tile != target.tile:
            # Each tile is a part of a panel.
            y, x = (a * t for a, t in zip(divmod(panel, target.sub_width // tile[1]), tile, strict=True))
            panel = y // target.tile[0] * target.panels_across + x // target.tile[1]
            vector = x % target.tile[1] * target.tile[0] + y % target.tile[0]
        return _Places(
            tile=tile,
            stripes=len(program.tile_pointers) - 1,
            taps=program.taps,
            channel_stride=program.size,
            pitch=program.pitch,
            tile_pointers=program.tile_pointers,
            tile_source=program.tile_buffer,
            tile_panel=panel,
            tile_vector=vector,
            program=program,
        )

    @property
    def vectors(self) -> int:
        """Vectors of a tile."""
        return self.tile[0] * self.tile[1]

    @property
    def touched(self) -> int:
        """Elements of a channel that a task reads."""
        if self.program is not None:
            return self.channel_stride
        return self.channel_stride * len(np.unique(self.tile_panel)) // len(self.tile_panel)

    def row_bytes(self, target: Geometry) -> int:
        """Bytes of one output channel that a task works on."""
        tiles = len(self.tile_panel) // self.stripes
        return 4 * target.lanes * self.tile[0] * self.tile[1] * tiles

    def table(
        self, layer: Convolution, source: Geometry, target: Geometry, block: np.ndarray, pointers: np.ndarray
    ) -> dict[str, int | np.ndarray]:
        """Fields of the driver."""
        rows = layer.weight.shape[0]
        channels = layer.weight.shape[1] * layer.groups
        elements_in, elements_out = source.vectors * source.lanes, target.vectors * target.lanes
        chunks = len(pointers) - 1
        program = self.program
        empty = np.zeros(0, np.int64)
        return {
            "tasks": source.batch * self.stripes * chunks,
            "chunks": chunks,
            "stripes": self.stripes,
            "input_image": source.panels * channels * elements_in,
            "input_channel": elements_in,
            "output_image": target.panels * rows * elements_out,
            "output_panel": rows * elements_out,
            "output_channel": elements_out,
            "channels_out": rows,
            "tile_pointers": self.tile_pointers,
            "tile_source": self.tile_source,
            "tile_output": self.tile_panel * rows * elements_out + self.tile_vector * target.lanes,
            "pitch": self.pitch,
            "buffer_channel": self.channel_stride,
            "block_pointers": pointers,
            "block": block,
            "halo_pointers": program.pointers if program else empty,
            "halo_copy": program.copy if program else empty,
            "halo_one": program.one if program else empty,
            "halo_two": program.two if program else empty,
            "halo_more": program.more if program else empty,
            "halo_lanes": program.lanes if program else empty,
        }


def _halo(
    layer: Convolution, source: Geometry, target: Geometry, channels: int, isa: Isa
) -> tuple[tuple[int, int], HaloProgram]:
    """Tile and program of a layer: the panel's tile, or where its windows exceed the buffer the largest part of it.

    Raises
    ------
    TvmSparseError
        If the window of a single vector is too large.
    """
    stripe = _stripe(layer, source, target, isa)
    program = halo_program(source, target, layer.window, channels, stripe)
    if program.size <= BUFFER_ELEMENTS:
        return target.tile, program
    (height, width), (top, left) = target.tile, layer.window.padding[:2]
    # A part's vectors must follow each other in the panel, which is stored column by column.
    tiles = [(height, v) for v in _divisors(width)[::-1]] + [(r, 1) for r in _divisors(height)[-2::-1]]
    for tile in tiles:
        # The subimages' size, and with it the lanes, must not depend on the tile: the whole of them is computed.
        full = (target.sub_height * target.grid[0], target.sub_width * target.grid[1])
        finer = Geometry(target.batch, *full, target.lanes, target.grid, tile)
        window = layer.window
        ends = [
            (full[i] - 1) * window.stride[i] + (window.kernel[i] - 1) * window.dilation[i] + 1 for i in range(2)
        ]
        window = replace(window, padding=(top, left, ends[0] - top - source.height, ends[1] - left - source.width))
        program = halo_program(source, finer, window, channels, compact=True)
        if program.size <= BUFFER_ELEMENTS:
            return tile, program
    raise TvmSparseError(
        f"a window of {layer.window.kernel} pixels is too large for the kernels: one vector of outputs reads "
        f"{program.size // target.lanes} vectors, at most {BUFFER_ELEMENTS // target.lanes} fit"
    )


def part_size(vectors: int, limit: int = _MAX_PART) -> int:
    """Vectors of a register tile for panels read in place: the largest divisor of the panel's below the limit."""
    return max(d for d in range(1, min(vectors, limit) + 1) if vectors % d == 0)


def _stripe(layer: Convolution, source: Geometry, target: Geometry, isa: Isa) -> tuple[int, int]:
    """Panels that share a buffer: many where each window serves few rows, one otherwise."""
    if not layer.depthwise:
        return 1, 1
    best, best_cost = (1, 1), float("inf")
    (kh, kw), (sy, sx), (dy, dx) = layer.window.kernel, layer.window.stride, layer.window.dilation
    for down in _divisors(target.panels_down):
        for across in _divisors(target.panels_across):
            rows, columns = down * target.tile[0], across * target.tile[1]
            height, width = (rows - 1) * sy + (kh - 1) * dy + 1, (columns - 1) * sx + (kw - 1) * dx + 1
            channels = int(_BLOCK_SHARE * isa.l1_bytes) // (4 * target.lanes * height * width)
            if channels == 0:
                continue
            # Vectors copied per output vector, each with its share of a run's start, once per block of channels.
            cost = height * width / (rows * columns) * (1.2 + 12 / (target.tile[0] * min(channels, layer.groups)))
            if cost < best_cost:
                best, best_cost = (down, across), cost
    return best


def _divisors(value: int) -> list[int]:
    return [d for d in range(1, value + 1) if value % d == 0]
