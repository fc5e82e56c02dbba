"""Formats of linear layers that read a few plain rows: dense strips of outputs, and compressed sparse rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class DenseStrips:
    """Dense weights, `width` outputs interleaved: ``[strips][K][width]``; the last strip is filled with zeros.

    Parameters
    ----------
    width : int
        Outputs of a strip.
    """

    width: int
    name: str = "dense"

    def pack(self, dense: np.ndarray) -> dict[str, np.ndarray]:
        """Pack float32 ``[M, K]``; returns ``values``."""
        rows, depth = dense.shape
        padded = np.zeros((-(-rows // self.width) * self.width, depth), np.float32)
        padded[:rows] = dense
        values = padded.reshape(-1, self.width, depth).transpose(0, 2, 1)
        return {"values": np.ascontiguousarray(values).reshape(-1)}

    def unpack(self, packed: Mapping[str, np.ndarray], shape: tuple[int, int]) -> np.ndarray:
        """Inverse of `pack`, exact."""
        values = packed["values"].reshape(-1, shape[1], self.width).transpose(0, 2, 1)
        return np.ascontiguousarray(values.reshape(-1, shape[1])[: shape[0]])


@dataclass(frozen=True)
class SparseRowsFormat:
    """Compressed sparse rows with 16-bit columns.

    Parameters
    ----------
    unit : int
        Rows are padded to a multiple of so many nonzeros: zeros in the row's last column.
    """

    unit: int = 1
    name: str = "unstructured"

    def pack(self, dense: np.ndarray) -> dict[str, np.ndarray]:
        """Pack float32 ``[M, K]``; returns ``values``, ``columns`` (uint16) and ``pointers`` ``[M + 1]``.

        Raises
        ------
        ValueError
            If K does not fit 16 bits.
        """
        if dense.shape[1] > 1 << 16:
            raise ValueError(f"rows of {dense.shape[1]} columns do not fit 16-bit columns")
        row, column = np.nonzero(dense)
        count = np.bincount(row, minlength=len(dense))
        padded = -(-count // self.unit) * self.unit
        pointers = np.concatenate([[0], np.cumsum(padded)])
        starts = np.concatenate([[0], np.cumsum(count)])
        # Place of each nonzero in the padded rows; the rest repeats the row's last column.
        place = np.arange(len(row)) + (pointers[:-1] - starts[:-1])[row]
        values = np.zeros(pointers[-1] + 16, np.float32)
        values[place] = dense[row, column]
        last = np.zeros(len(dense), np.int64)
        last[row] = column
        columns = np.concatenate([np.repeat(last, padded), np.zeros(16, np.int64)])
        columns[place] = column
        return {"values": values, "columns": columns.astype(np.uint16), "pointers": pointers.astype(np.int64)}

    def unpack(self, packed: Mapping[str, np.ndarray], shape: tuple[int, int]) -> np.ndarray:
        """Inverse of `pack`, exact."""
        dense = np.zeros(shape, np.float32)
        pointers = packed["pointers"]
        row = np.repeat(np.arange(shape[0]), np.diff(pointers))
        stored = packed["values"][: pointers[-1]] != 0
        dense[row[stored], packed["columns"][: pointers[-1]][stored]] = packed["values"][: pointers[-1]][stored]
        return dense


@dataclass(frozen=True)
class BitmaskRowsFormat:
    """Sparse rows with one bit for every weight.

    Parameters
    ----------
    width : int
        Bits of a mask, at most 16.
    """

    width: int = 16
    name: str = "unstructured"

    def pack(self, dense: np.ndarray) -> dict[str, np.ndarray]:
        """Pack float32 ``[M, K]``; returns ``values``, ``masks`` (uint16) and ``pointers`` ``[M + 1]``.

        Raises
        ------
        ValueError
            If K is no multiple of the masks' width.
        """
        rows, depth = dense.shape
        if depth % self.width:
            raise ValueError(f"rows of {depth} columns are no whole number of masks of {self.width}")
        there = dense != 0
        bits = there.reshape(rows, depth // self.width, self.width).astype(np.int64) << np.arange(self.width)
        pointers = np.concatenate([[0], np.cumsum(there.sum(1))])
        return {
            "values": np.concatenate([dense[there], np.zeros(16)]).astype(np.float32),
            "masks": bits.sum(2).astype(np.uint16).reshape(-1),
            "pointers": pointers.astype(np.int64),
        }

    def unpack(self, packed: Mapping[str, np.ndarray], shape: tuple[int, int]) -> np.ndarray:
        """Inverse of `pack`, exact."""
        there = (packed["masks"].astype(np.int64)[:, None] >> np.arange(self.width) & 1).astype(bool).reshape(shape)
        dense = np.zeros(shape, np.float32)
        dense[there] = packed["values"][: packed["pointers"][-1]]
        return dense
