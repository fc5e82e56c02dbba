"""Where the kernels of a layer read and write: tiles, windows, stripes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tvm_sparse.errors import TvmSparseError
from tvm_sparse.layout.geometry import MAX_TILE, Geometry
from tvm_sparse.layout.halo import HaloProgram, halo_program
from tvm_sparse.layout.halo_operations import KINDS
from tvm_sparse.layout.image_window import IMAGE_KINDS, RUN_KINDS, Strides
from tvm_sparse.layout.ranges import select_ranges
from tvm_sparse.schedules.cpu.driver import BUFFER_ELEMENTS, SHARED_BUFFER_ELEMENTS
from tvm_sparse.schedules.cpu.isa import Isa

from .layer import Convolution

# Share of the first-level cache that the windows of depth-wise layers and poolings may fill: each is read once, with
# the input's lines beside them.
STENCIL_SHARE = 0.5
# Vectors of a sparse layer's register tile where panels are read in place.
MAX_PART = 10
_MIN_PART = 4


@dataclass(frozen=True)
class Places:
    """Where a layer's kernel reads and writes."""

    tile: tuple[int, int]
    stripes: int
    parts: int
    taps: np.ndarray
    channel_stride: int
    pitch: int
    tile_pointers: np.ndarray
    tile_source: np.ndarray
    tile_panel: np.ndarray
    tile_vector: np.ndarray
    program: HaloProgram | None
    buffered: bool = False
    shared: bool = False

    @staticmethod
    def of_buffer(target: Geometry) -> Places:
        """Panels of the output's geometry that each task makes in the buffer and reads there."""
        panels = np.arange(target.panels)
        return Places(
            tile=(target.vectors, 1),
            stripes=target.panels,
            parts=1,
            taps=np.zeros(1, np.int64),
            channel_stride=target.vectors * target.lanes,
            pitch=0,
            tile_pointers=np.arange(target.panels + 1),
            tile_source=np.zeros_like(panels),
            tile_panel=panels,
            tile_vector=np.zeros_like(panels),
            program=None,
            buffered=True,
        )

    @staticmethod
    def plan(
        layer: Convolution, source: Geometry, target: Geometry, part_limit: int | None, isa: Isa,
        slots: tuple[int, ...] | None = None, image: Strides | None = None, share: int = 1,
    ) -> Places:  # fmt: skip
        """Plan; panels read in place are cut into parts of at most `part_limit` vectors (None: windows only).

        `slots` says where each panel of the source is stored, counted in panels (default: one after the other).
        With `image`, windows are filled from plain images of these strides. `share` rows of panels have
        a buffer in common.
        """
        channels = layer.weight.shape[1] * layer.groups
        if image is None and layer.pointwise and source == target and part_limit is not None:
            part = part_size(source.vectors, part_limit)
            parts = source.vectors // part
            panel, index = (
                a.reshape(-1)
                for a in np.meshgrid(np.arange(source.panels), np.arange(parts), indexing="ij")
            )
            elements = source.vectors * source.lanes
            stored = panel if slots is None else np.asarray(slots, np.int64)[panel]
            return Places(
                tile=(part, 1),
                stripes=len(panel),
                parts=parts,
                taps=np.zeros(1, np.int64),
                channel_stride=elements,
                pitch=0,
                tile_pointers=np.arange(len(panel) + 1),
                tile_source=stored * channels * elements + index * part * source.lanes,
                tile_panel=panel,
                tile_vector=index * part,
                program=None,
            )
        tile, program = _halo(layer, source, target, channels, isa, slots, image, share)
        panel, vector = program.tile_panel, np.zeros_like(program.tile_panel)
        if tile != target.tile:
            # Each tile is a part of a panel.
            y, x = (a * t for a, t in zip(divmod(panel, target.sub_width // tile[1]), tile, strict=True))
            panel = y // target.tile[0] * target.panels_across + x // target.tile[1]
            vector = x % target.tile[1] * target.tile[0] + y % target.tile[0]
        return Places(
            tile=tile,
            stripes=len(program.tile_pointers) - 1,
            parts=1,
            taps=program.taps,
            channel_stride=program.size,
            pitch=program.pitch,
            tile_pointers=program.tile_pointers,
            tile_source=program.tile_buffer,
            tile_panel=panel,
            tile_vector=vector,
            program=program,
            shared=share > 1,
        )

    @property
    def halo(self) -> bool:
        """Whether tasks read a buffer that they fill first."""
        return self.buffered or self.program is not None

    @property
    def vectors(self) -> int:
        """Vectors of a tile."""
        return self.tile[0] * self.tile[1]

    def part(self, stripes: np.ndarray) -> Places:
        """The places of some stripes, ``[n]`` of their numbers, which are numbered anew."""
        tiles, pointers = select_ranges(self.tile_pointers, stripes)
        return replace(
            self,
            stripes=len(stripes),
            tile_pointers=pointers,
            tile_source=self.tile_source[tiles],
            tile_panel=self.tile_panel[tiles],
            tile_vector=self.tile_vector[tiles],
            program=None if self.program is None else self.program.part(stripes),
        )

    @property
    def panels(self) -> int:
        """Stripes of an image that share no panel: cores can work on them without disturbing each other."""
        return self.stripes // self.parts

    @property
    def touched(self) -> int:
        """Elements of a channel that a task reads."""
        if self.program is not None:
            return self.channel_stride
        return self.channel_stride * len(np.unique(self.tile_panel)) // len(self.tile_panel)

    @property
    def tap_offsets(self) -> tuple[int, ...]:
        """Position of every tap in the source of a channel, in elements."""
        return tuple(int(tap) for tap in self.taps.reshape(-1))

    @property
    def channel_limit(self) -> int:
        """Channels of a K-block at most: its offsets fit 16 bits, its windows the buffer."""
        limit = (65535 - max(self.tap_offsets)) // self.channel_stride + 1
        elements = SHARED_BUFFER_ELEMENTS if self.shared else BUFFER_ELEMENTS
        return min(limit, elements // self.channel_stride) if self.halo else limit

    def row_bytes(self, target: Geometry) -> int:
        """Bytes of one output channel that a task works on."""
        tiles = len(self.tile_panel) // self.stripes
        return 4 * target.lanes * self.tile[0] * self.tile[1] * tiles

    def table(
        self, layer: Convolution, source: Geometry, target: Geometry, block: np.ndarray, pointers: np.ndarray,
        slots: np.ndarray | None = None,
    ) -> dict[str, int | np.ndarray]:  # fmt: skip
        """Fields of the driver; `slots` says where each panel of the target is stored, counted in panels."""
        rows = layer.weight.shape[0]
        channels = layer.weight.shape[1] * layer.groups
        elements_in, elements_out = source.vectors * source.lanes, target.vectors * target.lanes
        chunks = len(pointers) - 1
        program = self.program
        empty = np.zeros(0, np.int64)
        panel = self.tile_panel if slots is None else slots[self.tile_panel]
        return {
            "tasks": target.sets * self.stripes * chunks,
            "chunks": chunks,
            "stripes": self.stripes,
            "parts": self.parts,
            "input_set": target.images // source.images * source.panels * channels * elements_in,
            "input_channel": elements_in,
            "output_set": target.panels * rows * elements_out,
            "output_panel": rows * elements_out,
            "output_channel": elements_out,
            "channels_out": rows,
            "tile_pointers": self.tile_pointers,
            "tile_source": self.tile_source,
            "tile_output": panel * rows * elements_out + self.tile_vector * target.lanes,
            "pitch": self.pitch,
            "buffer_channel": self.channel_stride,
            "block_pointers": pointers,
            "block": block,
            "halo_pointers": program.pointers if program else empty,
            "halo_lanes": program.lanes if program else empty,
            "halo_channels": np.arange(block[:, 1].max(initial=0) if program else 0) * elements_in,
            **{f"halo_{kind}": getattr(program, kind) if program else empty for kind in KINDS},
            **self._image_fields(target.images * channels * source.pixels),
        }

    def _image_fields(self, elements: int) -> dict[str, int | np.ndarray]:
        """Fields of kernels that read plain images, of which a set has so many elements."""
        image = self.program and self.program.image
        if image is None:
            return {}
        return {
            "input_set": elements,
            **{f"image_{kind}": getattr(image, kind) for kind in (*IMAGE_KINDS, *RUN_KINDS)},
            "image_pointers": image.pointers,
            "image_lanes": image.lanes,
            "image_masks": image.masks,
            "image_step": image.channel_step,
        }


def _halo(
    layer: Convolution, source: Geometry, target: Geometry, channels: int, isa: Isa, slots: tuple[int, ...] | None,
    image: Strides | None, share: int,
) -> tuple[tuple[int, int], HaloProgram]:  # fmt: skip
    """Tile and program of a layer: the panel's tile, or where its windows exceed the buffer the largest part of it.

    Raises
    ------
    TvmSparseError
        If the window of a single vector is too large.
    """
    if share > 1:
        return target.tile, halo_program(source, target, layer.window, channels, (share, 1), slots=slots, odd=True)
    stripe = _stripe(layer, source, target, isa)
    program = halo_program(source, target, layer.window, channels, stripe, slots=slots, strides=image)
    if max(layer.window.dilation) > 1:
        # Far taps leave most of a grid unread.
        compact = halo_program(source, target, layer.window, channels, compact=True, slots=slots, strides=image)
        program = min(program, compact, key=lambda p: p.size * len(p.tile_pointers))
    if program.size <= BUFFER_ELEMENTS:
        return target.tile, program
    (height, width), (top, left) = target.tile, layer.window.padding[:2]
    # A part's vectors must follow each other in the panel, which is stored column by column.
    tiles = [(height, v) for v in _divisors(width)[::-1]] + [(r, 1) for r in _divisors(height)[-2::-1]]
    for tile in tiles:
        # The subimages' size, and with it the lanes, must not depend on the tile: the whole of them is computed.
        full = (target.sub_height * target.grid[0], target.sub_width * target.grid[1])
        finer = replace(target, height=full[0], width=full[1], tile=tile)
        window = layer.window
        ends = window.extent(*full)
        window = replace(window, padding=(top, left, ends[0] - top - source.height, ends[1] - left - source.width))
        program = halo_program(source, finer, window, channels, compact=True, slots=slots, strides=image)
        if program.size <= BUFFER_ELEMENTS:
            return tile, program
    raise TvmSparseError(
        f"a window of {layer.window.kernel} pixels is too large for the kernels: one vector of outputs reads "
        f"{program.size // target.lanes} vectors, at most {BUFFER_ELEMENTS // target.lanes} fit"
    )


def part_size(vectors: int, limit: int = MAX_PART) -> int:
    """Vectors of a register tile for panels read in place.

    The largest divisor of the panel's vectors below the limit; where that is so small that it starves the multiply-add
    units (a prime number of vectors), the panel stays whole.
    """
    best = max(d for d in range(1, min(vectors, limit) + 1) if vectors % d == 0)
    return vectors if best < _MIN_PART and vectors <= MAX_TILE else best


def _stripe(layer: Convolution, source: Geometry, target: Geometry, isa: Isa) -> tuple[int, int]:
    """Panels that share a buffer: many where each window serves few rows, one otherwise."""
    if not layer.depthwise:
        return 1, 1
    best, best_cost = (1, 1), float("inf")
    (kh, kw), (dy, dx) = layer.window.kernel, layer.window.dilation
    if source == target and layer.weight.shape[0] == layer.groups:
        # Windows of the whole image let the output overwrite the input.
        height, width = target.sub_height + (kh - 1) * dy, target.sub_width + (kw - 1) * dx
        if 4 * target.lanes * height * width <= isa.l1_bytes:
            return target.panels_down, target.panels_across
    # Of an image that does not fit the second-level cache, layers compute some rows of panels at a time.
    large = source.set_bytes(layer.groups) > isa.l2_bytes // 2
    for down in [1] if large else _divisors(target.panels_down):
        for across in _divisors(target.panels_across):
            rows, columns = down * target.tile[0], across * target.tile[1]
            height, width = layer.window.extent(rows, columns)
            channels = int(STENCIL_SHARE * isa.l1_bytes) // (4 * target.lanes * height * width)
            if channels == 0:
                continue
            # Vectors copied per output vector, each with its share of a run's start, once per block of channels.
            cost = height * width / (rows * columns) * (1.2 + 12 / (target.tile[0] * min(channels, layer.groups)))
            if cost < best_cost:
                best, best_cost = (down, across), cost
    return best


def _divisors(value: int) -> list[int]:
    return [d for d in range(1, value + 1) if value % d == 0]
