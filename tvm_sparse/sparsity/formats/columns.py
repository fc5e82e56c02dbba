"""Unstructured sparse rows for activations in columns: K-blocks, rows grouped by their count of nonzeros.

The rows of a weight ``[M, C / groups, taps]`` are cut into K-blocks of input channels, so that the activations that a
block reads stay in the first-level cache. Within a block rows are sorted by count; all rows of a *group* have the same
count, ``4 * quads + tail``, and the groups of one tail are neighbours: a kernel runs one loop per tail without
mispredicted branches and without padding (SELL-C-sigma's idea). Offsets are 16 bit, premultiplied, in elements of
the buffer that the block reads.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    """

    channel_stride: int
    taps: tuple[int, ...]
    block: int
    groups: int = 1
    chunks: int = 1
    name: str = "unstructured"

    def __post_init__(self) -> None:
        if self.block < 1 or self.groups < 1 or self.chunks < 1:
            raise ValueError(f"block, groups and chunks must be at least 1: {self}")
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
            ``values`` float32 and ``offsets`` uint16 ``[nonzeros]``; ``rows`` (output channels, in order of work);
            ``group`` ``[n, 4]``: first row, rows, first nonzero, quads; ``group_pointers`` ``[blocks * 4 + 1]`` by
            block and tail; ``block`` ``[blocks, 4]``: first input channel, channels, first, last;
            ``block_pointers`` ``[chunks + 1]``.
        """
        rows, per_group, taps = dense.shape
        if taps != len(self.taps) or rows % self.groups:
            raise ValueError(f"a weight of shape {dense.shape} does not fit {self}")
        position = np.arange(self.block)[:, None] * self.channel_stride + np.asarray(self.taps)
        out = _Packed()
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
                for first, count, position, quads in packed["group"][begin:end]:
                    width = quads * QUAD + tail
                    for index in range(count):
                        row = packed["rows"][first + index]
                        base = channel - row // rows_per_group * per_group
                        for k in range(position + index * width, position + (index + 1) * width):
                            local, tap = lookup[int(packed["offsets"][k])]
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


class _Packed:
    """Growing arrays of a packed weight."""

    def __init__(self) -> None:
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
        order = np.lexsort((count, count % QUAD))
        if not first and not last:
            order = order[count[order] > 0]
        row, column = np.nonzero(flat[order])
        channel, tap = np.divmod(column, weight.shape[2])
        if len(channels) != weight.shape[1]:
            # Several conv groups share the block: a row's channels start at its own group's.
            rows_per_group = len(rows) * per_group // len(channels)
            channel = channel + order[row] // rows_per_group * per_group
        self.blocks.append((channels.start, len(channels), int(first), int(last)))
        self.offsets.append(position[channel, tap].astype(np.uint16))
        self.values.append(flat[order][row, column])
        self.rows.append(np.asarray(rows)[order])
        sorted_count = count[order]
        bounds = np.flatnonzero(np.diff(sorted_count, prepend=-1, append=-1)).tolist()
        starts = np.concatenate([[0], np.cumsum(sorted_count)])
        tails: list[list[tuple[int, int, int, int]]] = [[] for _ in range(QUAD)]
        for begin, end in zip(bounds[:-1], bounds[1:], strict=True):
            size = int(sorted_count[begin])
            tails[size % QUAD].append(
                (self._row_count + begin, end - begin, self._value_count + int(starts[begin]), size // QUAD)
            )
        for tail in tails:
            self.groups += tail
            self.group_pointers.append(len(self.groups))
        self._row_count += len(order)
        self._value_count += len(row)

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
