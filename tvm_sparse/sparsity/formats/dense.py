"""Dense weights for activations in columns: strips of rows, weights of a strip interleaved.

A strip of ``n`` rows stores its weights as ``[k][n]``, so that one multiply-add tile of ``n`` rows reads them in order.
`k` runs over the input channels and taps of a K-block; offsets as in :mod:`.columns`, shared by all strips.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .columns import split_rows
from .offsets import check_offsets, packed_bytes


@dataclass(frozen=True)
class DenseColumns:
    """Dense weights over columns.

    Parameters
    ----------
    channel_stride, taps, block, groups, chunks
        As in :class:`.columns.UnstructuredColumns`.
    row_sizes : tuple of int
        Strip heights that the kernel has, descending, down to 1.
    """

    channel_stride: int
    taps: tuple[int, ...]
    block: int
    row_sizes: tuple[int, ...]
    groups: int = 1
    chunks: int = 1
    name: str = "dense"

    def __post_init__(self) -> None:
        if self.row_sizes[-1] != 1 or list(self.row_sizes) != sorted(set(self.row_sizes), reverse=True):
            raise ValueError(f"row sizes must fall to 1: {self.row_sizes}")
        check_offsets(self.block, self.channel_stride, self.taps)

    def pack(self, dense: np.ndarray) -> dict[str, np.ndarray]:
        """Pack a float32 weight ``[M, C / groups, taps]``.

        Returns
        -------
        dict of str to numpy.ndarray
            ``values`` float32 (strip after strip, ``[k][rows]``); ``offsets`` uint16 ``[block * taps]``; ``strip``
            ``[n, 2]``: first row, first value; ``strip_pointers`` ``[blocks * sizes + 1]``; ``depth`` ``[blocks]``:
            k of each block; ``block``, ``block_pointers`` as in the unstructured format.
        """
        rows, per_group, taps = dense.shape
        rows_per_group = rows // self.groups
        values: list[np.ndarray] = []
        strips: list[tuple[int, int]] = []
        strip_pointers, blocks, depth, block_pointers, count = [0], [], [], [], 0
        for part in split_rows(rows, self.chunks, rows_per_group):
            block_pointers.append(len(blocks))
            for group in range(part.start // rows_per_group, -(-part.stop // rows_per_group)):
                first_row = max(part.start, group * rows_per_group)
                last_row = min(part.stop, (group + 1) * rows_per_group)
                for start in range(0, per_group, self.block):
                    stop = min(start + self.block, per_group)
                    blocks.append((group * per_group + start, stop - start, start == 0, stop == per_group))
                    depth.append((stop - start) * taps)
                    row = first_row
                    for size in self.row_sizes:
                        while row + size <= last_row:
                            strips.append((row, count))
                            tile = dense[row : row + size, start:stop].reshape(size, -1)
                            values.append(np.ascontiguousarray(tile.T).reshape(-1))
                            count += tile.size
                            row += size
                        strip_pointers.append(len(strips))
        block_pointers.append(len(blocks))
        offsets = np.arange(self.block)[:, None] * self.channel_stride + np.asarray(self.taps)
        return {
            "values": np.concatenate([*values, np.zeros(16)]).astype(np.float32),
            "offsets": np.concatenate([offsets.reshape(-1), np.zeros(16, np.int64)]).astype(np.uint16),
            "strip": np.asarray(strips, np.int64).reshape(-1, 2),
            "strip_pointers": np.asarray(strip_pointers, np.int64),
            "depth": np.asarray(depth, np.int64),
            "block": np.asarray(blocks, np.int64).reshape(-1, 4),
            "block_pointers": np.asarray(block_pointers, np.int64),
        }

    def unpack(self, packed: Mapping[str, np.ndarray], shape: tuple[int, int, int]) -> np.ndarray:
        """Inverse of `pack`, exact."""
        dense = np.zeros(shape, np.float32)
        per_group, taps = shape[1:]
        sizes = len(self.row_sizes)
        for block, (channel, channels, _, _) in enumerate(packed["block"].tolist()):
            start = channel % per_group
            for index, size in enumerate(self.row_sizes):
                begin, end = packed["strip_pointers"][block * sizes + index :][:2]
                for row, position in packed["strip"][begin:end].tolist():
                    tile = packed["values"][position : position + size * channels * taps]
                    dense[row : row + size, start : start + channels] = tile.reshape(channels, taps, size).transpose(
                        2, 0, 1
                    )
        return dense

    @staticmethod
    def nbytes(packed: Mapping[str, np.ndarray]) -> int:
        """Bytes of a packed weight."""
        return packed_bytes(packed, ("strip", "strip_pointers", "depth", "block", "block_pointers"))
