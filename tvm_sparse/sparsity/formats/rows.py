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
    """Compressed sparse rows with 16-bit columns."""

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
        pointers = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(dense)))])
        return {
            "values": np.concatenate([dense[row, column], np.zeros(16)]).astype(np.float32),
            "columns": np.concatenate([column, np.zeros(16, np.int64)]).astype(np.uint16),
            "pointers": pointers.astype(np.int64),
        }

    def unpack(self, packed: Mapping[str, np.ndarray], shape: tuple[int, int]) -> np.ndarray:
        """Inverse of `pack`, exact."""
        dense = np.zeros(shape, np.float32)
        pointers = packed["pointers"]
        row = np.repeat(np.arange(shape[0]), np.diff(pointers))
        dense[row, packed["columns"][: pointers[-1]]] = packed["values"][: pointers[-1]]
        return dense
