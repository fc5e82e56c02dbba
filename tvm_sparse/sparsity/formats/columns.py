"""Unstructured sparse rows for activations in columns: K-blocks, rows grouped by their count of nonzeros.

The rows of a weight ``[M, C / groups, taps]`` are cut into K-blocks of input channels, so that the activations that a
block reads stay in the first-level cache. Within a block rows are sorted by count and taken some at a time, as a
*bundle*, so that a small register tile has enough independent sums. Rows of a bundle are padded to its longest with
zeros (neighbours in the order rarely differ); all bundles of a *group* have the same count, ``4 * quads + tail``, and
the groups of one tail are neighbours: a kernel runs one loop per tail without mispredicted branches (SELL-C-sigma's
idea). Offsets are 16 bit, premultiplied, in elements of the buffer that the block reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from .offsets import check_offsets, packed_bytes, places_of_offsets

# Nonzeros of one unrolled step; a row's tail has fewer.
QUAD = 4


@dataclass(frozen=True)
class UnstructuredColumns:
    """Unstructured sparsity over columns.

    Parameters
    ----------
    channel_stride : int
        Elements between the channels of the buffer that a block reads.
    taps : tuple of int
        Position of each kernel tap in that buffer, in elements.
    block : int
        Input channels of a K-block.
    groups : int
        Groups of the convolution; a depth-wise one has as many as channels.
    chunks : int
        Parts of the output channels that run in parallel.
    bundle : int
        Rows that a kernel computes at once.
    """

    channel_stride: int
    taps: tuple[int, ...]
    block: int
    groups: int = 1
    chunks: int = 1
    bundle: int = 1
    name: str = "unstructured"

    def __post_init__(self) -> None:
        if min(self.block, self.groups, self.chunks, self.bundle) < 1:
            raise ValueError(f"block, groups, chunks and bundle must be at least 1: {self}")
        check_offsets(self.block, self.channel_stride, self.taps)

    def pack(self, dense: np.ndarray) -> dict[str, np.ndarray]:
        """Pack a weight.

        Parameters
        ----------
        dense : numpy.ndarray
            float32 ``[M, C / groups, taps]``.

        Returns
        -------
        dict of str to numpy.ndarray
            ``values`` float32 and ``offsets`` uint16 ``[nonzeros + padding]``: of each bundle four of every row,
            again and again, then the rows' tails; ``rows`` (output channels, in order of work; a bundle short of
            rows repeats its last one); ``group`` ``[n, 4]``: first row, bundles, first nonzero, quads;
            ``group_pointers`` ``[blocks * 4 + 1]`` by block and tail; ``block`` ``[blocks, 4]``: first input
            channel, channels, first, last;
            ``block_pointers`` ``[chunks + 1]``.
        """
        rows, per_group, taps = dense.shape
        if taps != len(self.taps) or rows % self.groups:
            raise ValueError(f"a weight of shape {dense.shape} does not fit {self}")
        position = np.arange(self.block)[:, None] * self.channel_stride + np.asarray(self.taps)
        out = _Packed(self.bundle)
        for chunk in self._chunks(rows, per_group):
            out.block_pointers.append(len(out.blocks))
            for row_range, channels, local, first, last in chunk:
                weight = dense[row_range.start : row_range.stop, local.start : local.stop]
                out.add_block(weight, row_range, channels, position, per_group, self.groups, first, last)
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
        per_group = shape[1]
        rows_per_group = shape[0] // self.groups
        lookup = places_of_offsets(self.block, self.channel_stride, self.taps)
        pointers = packed["group_pointers"]
        for block, (channel, _, _, _) in enumerate(packed["block"]):
            for tail in range(QUAD):
                begin, end = pointers[block * QUAD + tail], pointers[block * QUAD + tail + 1]
                for first, bundles, position, quads in packed["group"][begin:end]:
                    size = self.bundle * (quads * QUAD + tail)
                    for index in range(bundles):
                        for place, number in _bundle_rows(self.bundle, quads, tail):
                            row = packed["rows"][first + index * self.bundle + number]
                            base = channel - row // rows_per_group * per_group
                            k = position + index * size + place
                            local, tap = lookup[int(packed["offsets"][k])]
                            if packed["values"][k] != 0:
                                dense[row, base + local, tap] = packed["values"][k]
        return dense

    @staticmethod
    def nbytes(packed: Mapping[str, np.ndarray]) -> int:
        """Bytes of a packed weight as it is stored in a package."""
        return packed_bytes(packed, ("rows", "group", "group_pointers", "block", "block_pointers"))

    def _chunks(self, rows: int, per_group: int) -> list[list[tuple[range, range, range, bool, bool]]]:
        """Blocks of each chunk: output rows, input channels, their place in the weight, first, last."""
        rows_per_group = rows // self.groups
        out = []
        for part in split_rows(rows, self.chunks, rows_per_group):
            blocks = []
            if len(part) <= rows_per_group:
                base = part.start // rows_per_group * per_group
                starts = range(0, per_group, self.block)
                for start in starts:
                    stop = min(start + self.block, per_group)
                    blocks.append(
                        (part, range(base + start, base + stop), range(start, stop),
                         start == 0, start == starts[-1])
                    )  # fmt: skip
            else:
                together = max(1, self.block // per_group) * rows_per_group
                if per_group > self.block:
                    raise ValueError(f"groups of {per_group} channels do not fit a block of {self.block}")
                for start in range(part.start, part.stop, together):
                    stop = min(start + together, part.stop)
                    channels = range(
                        start // rows_per_group * per_group, stop // rows_per_group * per_group
                    )
                    blocks.append((range(start, stop), channels, range(per_group), True, True))
            out.append(blocks)
        return out


def split_rows(rows: int, chunks: int, unit: int) -> list[range]:
    """Cut rows into about `chunks` parts; each is a whole number of conv groups, or lies within one."""
    groups = rows // unit
    if groups >= chunks:
        bounds = np.unique(np.linspace(0, groups, chunks + 1).astype(int)) * unit
        return [range(a, b) for a, b in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)]
    per_group = -(-chunks // groups)
    bounds = np.unique(np.linspace(0, unit, per_group + 1).astype(int)).tolist()
    return [
        range(g * unit + a, g * unit + b)
        for g in range(groups)
        for a, b in zip(bounds[:-1], bounds[1:], strict=True)
    ]


def _bundle_rows(bundle: int, quads: int, tail: int) -> Iterator[tuple[int, int]]:
    """Every place of a bundle's nonzeros, with the number of its row."""
    for place in range(bundle * quads * QUAD):
        yield place, place // QUAD % bundle
    for place in range(bundle * tail):
        yield bundle * quads * QUAD + place, place // tail


class _Packed:
    """Growing arrays of a packed weight."""

    def __init__(self, bundle: int) -> None:
        self.bundle = bundle
        self.values: list[np.ndarray] = []
        self.offsets: list[np.ndarray] = []
        self.rows: list[np.ndarray] = []
        self.groups: list[tuple[int, int, int, int]] = []
        self.group_pointers = [0]
        self.blocks: list[tuple[int, int, int, int]] = []
        self.block_pointers: list[int] = []
        self._row_count = 0
        self._value_count = 0

    def add_block(
        self,
        weight: np.ndarray,
        rows: range,
        channels: range,
        position: np.ndarray,
        per_group: int,
        conv_groups: int,
        first: bool,
        last: bool,
    ) -> None:
        """Add one block: `weight` ``[rows, channels of the row's group in the block, taps]``."""
        flat = weight.reshape(len(rows), -1)
        count = (flat != 0).sum(1)
        order = np.argsort(count, kind="stable")
        if not first and not last:
            order = order[count[order] > 0]
        row, column = np.nonzero(flat)
        channel, tap = np.divmod(column, weight.shape[2])
        if len(channels) != weight.shape[1]:
            # Several conv groups share the block: a row's channels start at its own group's.
            rows_per_group = len(rows) * per_group // len(channels)
            channel = channel + row // rows_per_group * per_group
        # Nonzeros of each row moved to its start; what is left is padding.
        rank = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
        shape = (len(rows), int(count.max(initial=0)))
        values, offsets = np.zeros(shape, np.float32), np.zeros(shape, np.uint16)
        values[row, rank] = flat[row, column]
        offsets[row, rank] = position[channel, tap]
        short = -len(order) % self.bundle
        bundles = np.concatenate([order, np.repeat(order[-1:], short)]).reshape(-1, self.bundle)
        longest = count[bundles[:, -1]]
        self.blocks.append((channels.start, len(channels), int(first), int(last)))
        for tail in range(QUAD):
            for size in np.unique(longest[longest % QUAD == tail]).tolist():
                members = bundles[longest == size]
                self.groups.append((self._row_count, len(members), self._value_count, size // QUAD))
                self.rows.append(np.asarray(rows)[members].reshape(-1))
                self.values.append(self._interleave(values[members, :size]))
                self.offsets.append(self._interleave(offsets[members, :size]))
                self._row_count += members.size
                self._value_count += members.size * size
            self.group_pointers.append(len(self.groups))

    def _interleave(self, nonzeros: np.ndarray) -> np.ndarray:
        """Order ``[bundles, rows, nonzeros]`` as a kernel reads it: quads of all rows by turns, then the tails."""
        bundles, rows, size = nonzeros.shape
        whole = size // QUAD * QUAD
        quads = nonzeros[..., :whole].reshape(bundles, rows, -1, QUAD).swapaxes(1, 2)
        tails = nonzeros[..., whole:]
        return np.concatenate([quads.reshape(bundles, -1), tails.reshape(bundles, -1)], 1).reshape(-1)

    def arrays(self) -> dict[str, np.ndarray]:
        """The packed weight."""
        join = np.concatenate
        return {
            "values": join([*self.values, np.zeros(16)]).astype(np.float32),
            "offsets": join([*self.offsets, np.zeros(16)]).astype(np.uint16),
            "rows": join([*self.rows, np.zeros(0)]).astype(np.int64),
            "group": np.asarray(self.groups, np.int64).reshape(-1, 4),
            "group_pointers": np.asarray(self.group_pointers, np.int64),
            "block": np.asarray(self.blocks, np.int64).reshape(-1, 4),
            "block_pointers": np.asarray(self.block_pointers, np.int64),
        }
