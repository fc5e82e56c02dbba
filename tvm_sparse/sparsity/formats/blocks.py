"""Sparse blocks for activations in columns: a few output channels that share an input channel, or the reverse.

Weights of blocks of ``R x 1`` (R output channels, one input channel and tap) or ``1 x C`` (one output channel, C
neighbouring input channels, one tap) that are not wholly zero. A *strip* is R output channels: neighbours, or those
that have their zeros in the same places (:mod:`..row_order`). Its blocks within a K-block follow each other, each as
``[C][R]`` weights and one 16-bit offset (premultiplied, in elements of the buffer that the K-block reads, of the
block's first channel). Strips of a K-block are sorted by their count of blocks: a kernel's loops over one *group* all
have the same length, which processors predict. Output channels that no whole strip covers lie in strips of R / 2,
R / 4, ... 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..row_order import order_rows
from .columns import split_rows
from .offsets import check_offsets, packed_bytes, places_of_offsets


@dataclass(frozen=True)
class BlockColumns:
    """Block sparsity over columns.

    Parameters
    ----------
    shape : tuple of int
        Output channels and input channels of a block; one of them is 1.
    channel_stride, taps, block, groups, chunks
        As in :class:`.columns.UnstructuredColumns`.
    """

    shape: tuple[int, int]
    channel_stride: int
    taps: tuple[int, ...]
    block: int
    groups: int = 1
    chunks: int = 1
    name: str = "block"

    def __post_init__(self) -> None:
        rows, channels = self.shape
        if rows < 1 or channels < 1 or 1 not in self.shape or rows & (rows - 1):
            raise ValueError(f"blocks are Rx1 or 1xC, R a power of two, not {rows}x{channels}")
        if self.block < 1 or self.groups < 1 or self.chunks < 1:
            raise ValueError(f"block, groups and chunks must be at least 1: {self}")
        if self.block % channels:
            raise ValueError(f"K-blocks of {self.block} channels cut blocks of {channels}")
        check_offsets(self.block, self.channel_stride, self.taps)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Output channels of a strip, descending to 1."""
        return strip_sizes(self.shape[0])

    def pack(self, dense: np.ndarray) -> dict[str, np.ndarray]:
        """Pack a float32 weight ``[M, C / groups, taps]``.

        Returns
        -------
        dict of str to numpy.ndarray
            ``values`` float32 and ``offsets`` uint16, block after block; ``rows``: output channels of each strip, in
            order of work; ``group`` ``[n, 6]``: first strip, strips, first offset, first value, blocks of a strip,
            first of its `rows`; ``group_pointers`` ``[blocks * sizes + 1]`` by K-block and size of strips; ``block``
            and ``block_pointers`` as in the unstructured format.

        Raises
        ------
        ValueError
            If the weight has other taps, or its channels are no whole number of groups or blocks.
        """
        rows, per_group, taps = dense.shape
        if taps != len(self.taps) or rows % self.groups:
            raise ValueError(f"a weight of shape {dense.shape} does not fit {self}")
        if per_group % self.shape[1]:
            raise ValueError(f"{per_group} input channels are no whole number of blocks of {self.shape[1]}")
        rows_per_group = rows // self.groups
        order = order_rows(dense, self.shape[0], self.groups)
        dense = dense[order]
        out = _Packed(self)
        for part in split_rows(rows, self.chunks, rows_per_group):
            out.block_pointers.append(len(out.blocks))
            for group in range(part.start // rows_per_group, -(-part.stop // rows_per_group)):
                inside = range(max(part.start, group * rows_per_group), min(part.stop, (group + 1) * rows_per_group))
                for start in range(0, per_group, self.block):
                    stop = min(start + self.block, per_group)
                    first, last = start == 0, stop == per_group
                    out.blocks.append((group * per_group + start, stop - start, first, last))
                    mine = slice(inside.start, inside.stop)
                    out.add_block(dense[mine, start:stop], order[mine], first or last)
        out.block_pointers.append(len(out.blocks))
        return out.arrays()

    def unpack(self, packed: Mapping[str, np.ndarray], shape: tuple[int, int, int]) -> np.ndarray:
        """Inverse of `pack`, exact.

        Parameters
        ----------
        packed : mapping
            What `pack` returned.
        shape : tuple of int
            Shape ``[M, C / groups, taps]`` of the dense weight.
        """
        dense = np.zeros(shape, np.float32)
        width, sizes, pointers = self.shape[1], self.sizes, packed["group_pointers"]
        place = places_of_offsets(self.block, self.channel_stride, self.taps, width)
        for block, channel in enumerate(packed["block"][:, 0].tolist()):
            for number, size in enumerate(sizes):
                begin, end = pointers[block * len(sizes) + number :][:2]
                for _, strips, offset, value, count, first in packed["group"][begin:end].tolist():
                    for index in range(strips * count):
                        rows = packed["rows"][first + index // count * size :][:size]
                        local, tap = place[int(packed["offsets"][offset + index])]
                        at = value + index * size * width
                        weights = packed["values"][at : at + size * width].reshape(width, size)
                        start = channel % shape[1] + local
                        dense[rows, start : start + width, tap] = weights.T
        return dense

    @staticmethod
    def nbytes(packed: Mapping[str, np.ndarray]) -> int:
        """Bytes of a packed weight as it is stored in a package."""
        return packed_bytes(packed, ("rows", "group", "group_pointers", "block", "block_pointers"))


def strip_sizes(rows: int) -> tuple[int, ...]:
    """Heights of strips: `rows`, a power of two, and its halves down to 1."""
    return tuple(rows >> shift for shift in range(rows.bit_length()))


def count_blocks(weight: np.ndarray, shape: tuple[int, int], groups: int = 1) -> int:
    """Blocks of a weight ``[M, C, ...]`` that are not wholly zero, rows ordered and cut as the format does.

    Parameters
    ----------
    weight : numpy.ndarray
        The weight; its channels are a whole number of blocks.
    shape : tuple of int
        Output channels and input channels of a block.
    groups : int
        Groups of the convolution.
    """
    rows, channels = weight.shape[:2]
    weight = weight[order_rows(weight, shape[0], groups)]
    taps = weight.size // max(1, rows * channels)
    mask = (weight != 0).reshape(rows, channels // shape[1], shape[1], taps).any(2)
    mask = mask.reshape(rows, channels // shape[1] * taps)
    count, row = 0, 0
    for size in strip_sizes(shape[0]):
        strips = (rows - row) // size
        count += int(mask[row : row + strips * size].reshape(strips, size, mask.shape[1]).any(1).sum())
        row += strips * size
    return count


class _Packed:
    """Growing arrays of a packed weight."""

    def __init__(self, fmt: BlockColumns) -> None:
        self._format = fmt
        self._position = np.arange(fmt.block)[:, None] * fmt.channel_stride + np.asarray(fmt.taps)
        self.values: list[np.ndarray] = []
        self.offsets: list[np.ndarray] = []
        self.rows: list[np.ndarray] = []
        self.groups: list[tuple[int, int, int, int, int, int]] = []
        self.group_pointers = [0]
        self.blocks: list[tuple[int, int, bool, bool]] = []
        self.block_pointers: list[int] = []
        self._strips = self._rows = self._offsets = self._values = 0

    def add_block(self, weight: np.ndarray, rows: np.ndarray, all_rows: bool) -> None:
        """Add one K-block; strips of zeros are left out unless sums of `all_rows` start or end here."""
        width, start = self._format.shape[1], 0
        for size in self._format.sizes:
            strips = (len(rows) - start) // size
            members = rows[start : start + strips * size].reshape(strips, size)
            part = weight[start : start + strips * size]
            # [strip, channel block, tap, C, R]
            shape = (strips, size, weight.shape[1] // width, width, weight.shape[2])
            tiles = part.reshape(shape).transpose(0, 2, 4, 3, 1)
            self._add_strips(np.ascontiguousarray(tiles), members, all_rows)
            self.group_pointers.append(len(self.groups))
            start += strips * size

    def _add_strips(self, tiles: np.ndarray, members: np.ndarray, all_rows: bool) -> None:
        nonzero = (tiles != 0).any((3, 4))
        count = nonzero.sum((1, 2))
        order = np.argsort(count, kind="stable")
        if not all_rows:
            order = order[count[order] > 0]
        strip, channel, tap = np.nonzero(nonzero[order])
        values = tiles[order[strip], channel, tap]
        counts = count[order]
        bounds = np.flatnonzero(np.diff(counts, prepend=-1, append=-1)).tolist()
        starts = np.concatenate([[0], np.cumsum(counts)]).tolist()
        for begin, end in zip(bounds[:-1], bounds[1:], strict=True):
            before = starts[begin]
            self.groups.append(
                (
                    self._strips + begin,
                    end - begin,
                    self._offsets + before,
                    self._values + before * tiles.shape[3] * tiles.shape[4],
                    int(counts[begin]),
                    self._rows + begin * members.shape[1],
                )
            )
        self.rows.append(members[order].reshape(-1))
        self.offsets.append(self._position[channel * self._format.shape[1], tap])
        self.values.append(values.reshape(-1))
        self._strips += len(order)
        self._rows += len(self.rows[-1])
        self._offsets += len(strip)
        self._values += values.size

    def arrays(self) -> dict[str, np.ndarray]:
        """The packed weight."""
        join = np.concatenate
        return {
            "values": join([*self.values, np.zeros(16)]).astype(np.float32),
            "offsets": join([*self.offsets, np.zeros(16)]).astype(np.uint16),
            "rows": join([*self.rows, np.zeros(0)]).astype(np.int64),
            "group": np.asarray(self.groups, np.int64).reshape(-1, 6),
            "group_pointers": np.asarray(self.group_pointers, np.int64),
            "block": np.asarray(self.blocks, np.int64).reshape(-1, 4),
            "block_pointers": np.asarray(self.block_pointers, np.int64),
        }
