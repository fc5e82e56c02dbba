"""Dense weights of a convolution that is computed by fast algorithms: combined weights, in strips of rows.

The products of a channel, one for each pair of products of the two axes, are ordered by their point. A strip of a
K-block is ``[products][channels][rows]``. Rows that fill up the last strip are zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from .columns import split_rows
from .offsets import packed_bytes
from .toom_cook import AxisAlgorithm


@dataclass(frozen=True)
class WinogradColumns:
    """Combined weights over columns.

    Parameters
    ----------
    down, across : AxisAlgorithm
        How rows and columns of outputs are computed.
    block : int
        Channels of a K-block.
    strip : int
        Rows of a strip.
    chunks : int
        Parts of the rows.
    """

    down: AxisAlgorithm
    across: AxisAlgorithm
    block: int
    strip: int
    chunks: int = 1
    name: str = field(default="winograd", init=False)

    @cached_property
    def order(self) -> list[tuple[int, int]]:
        """Products down and across, ordered by their points."""
        pairs = [(p, q) for p in range(self.down.products) for q in range(self.across.products)]
        return sorted(pairs, key=lambda pair: (self.down.point[pair[0]], self.across.point[pair[1]], pair))

    @cached_property
    def points(self) -> np.ndarray:
        """First product of each point, int64 ``[points + 1]``; a point across is the faster index."""
        number = [self.down.point[p] * self.across.points + self.across.point[q] for p, q in self.order]
        return np.searchsorted(number, np.arange(self.down.points * self.across.points + 1))

    def pack(self, dense: np.ndarray) -> dict[str, np.ndarray]:
        """Pack a float32 weight ``[M, C, kh, kw]``.

        Returns
        -------
        dict of str to numpy.ndarray
            ``values`` float32; ``offsets`` uint16, which nothing reads; ``part`` ``[blocks, 3]``: first row, rows,
            first value; ``block``, ``block_pointers`` as in the unstructured format.
        """
        rows, channels = dense.shape[:2]
        combined = np.einsum("pk,ockl,ql->pqco", self.down.weights, dense.astype(np.float64), self.across.weights)
        products = combined[tuple(np.transpose(self.order))].astype(np.float32)
        values, parts, blocks, pointers, count = [], [], [], [0], 0
        for part in split_rows(rows, self.chunks, rows):
            padded = np.zeros((*products.shape[:2], -(-len(part) // self.strip) * self.strip), np.float32)
            padded[..., : len(part)] = products[..., part.start : part.stop]
            strips = padded.reshape(*products.shape[:2], -1, self.strip).transpose(2, 0, 1, 3)
            for start in range(0, channels, self.block):
                stop = min(start + self.block, channels)
                blocks.append((start, stop - start, start == 0, stop == channels))
                parts.append((part.start, len(part), count))
                values.append(strips[:, :, start:stop].reshape(-1))
                count += len(values[-1])
            pointers.append(len(blocks))
        return {
            "values": np.concatenate([*values, np.zeros(16, np.float32)]),
            "offsets": np.zeros(16, np.uint16),
            "part": np.asarray(parts, np.int64).reshape(-1, 3),
            "block": np.asarray(blocks, np.int64).reshape(-1, 4),
            "block_pointers": np.asarray(pointers, np.int64),
        }

    def unpack(self, packed: Mapping[str, np.ndarray], shape: tuple[int, int, int, int]) -> np.ndarray:
        """Inverse of `pack`, but for rounding."""
        products = np.zeros((len(self.order), shape[1], shape[0]))
        for (channel, channels, _, _), (row, rows, first) in zip(packed["block"], packed["part"], strict=True):
            strips = -(-rows // self.strip)
            size = strips * len(self.order) * channels * self.strip
            mine = packed["values"][first : first + size].reshape(strips, len(self.order), channels, self.strip)
            mine = mine.transpose(1, 2, 0, 3).reshape(len(self.order), channels, -1)
            products[:, channel : channel + channels, row : row + rows] = mine[..., :rows]
        combined = np.zeros((self.down.products, self.across.products, *products.shape[1:]))
        combined[tuple(np.transpose(self.order))] = products
        down, across = (np.linalg.pinv(axis.weights) for axis in (self.down, self.across))
        return np.einsum("kp,pqco,lq->ockl", down, combined, across).astype(np.float32)

    @staticmethod
    def nbytes(packed: Mapping[str, np.ndarray]) -> int:
        """Bytes of a packed weight."""
        return packed_bytes(packed, ("part", "block", "block_pointers"))
