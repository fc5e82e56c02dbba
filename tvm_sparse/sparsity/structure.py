"""Measuring the zeros of a weight: how many, and in what structure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .row_order import order_rows

# Share of zeros below which a weight counts as dense.
_DENSE = 0.05


@dataclass(frozen=True)
class Structure:
    """Zeros of a weight.

    Parameters
    ----------
    zeros : float
        Share of elements that are zero.
    name : str
        ``"dense"``, ``"unstructured"``, ``"2:4"``, or blocks such as ``"4x1 blocks"`` (output rows by input channels).
    empty_rows, empty_columns : int
        Output channels and input channels without any nonzero.
    """

    zeros: float
    name: str
    empty_rows: int
    empty_columns: int


def measure_structure(weight: np.ndarray) -> Structure:
    """Measure a weight ``[M, C, ...]``.

    A block structure is reported where almost all zeros lie in blocks that are wholly zero: at least 95 % of them,
    and more than chance would put there. Rows of a block need not be neighbours.

    Parameters
    ----------
    weight : numpy.ndarray
        ``[M, C]`` or ``[M, C, kh, kw]``, dense.

    Returns
    -------
    Structure
        What was found.
    """
    if weight.size == 0:
        return Structure(0.0, "dense", 0, 0)
    mask = (weight != 0).reshape(weight.shape[0], weight.shape[1], -1)
    zeros = 1.0 - float(mask.mean())
    empty_rows = int((~mask.any((1, 2))).sum())
    empty_columns = int((~mask.any((0, 2))).sum())
    name = "dense" if zeros < _DENSE else _name(mask, zeros)
    return Structure(zeros, name, empty_rows, empty_columns)


def _name(mask: np.ndarray, zeros: float) -> str:
    if zeros == 1.0:
        return "unstructured"
    for rows, columns in ((16, 1), (8, 1), (4, 1), (1, 4)):
        if mask.shape[0] % rows or mask.shape[1] % columns:
            continue
        share = _zeros_in_blocks(mask[order_rows(mask, rows)], rows, columns) / zeros
        if share > max(0.95, (zeros ** (rows * columns - 1) + 1) / 2):
            return f"{rows}x{columns} blocks"
    if mask.shape[1] % 4 == 0 and 0.45 < zeros < 0.55:
        groups = mask.reshape(mask.shape[0], -1, 4, mask.shape[2])
        if (groups.sum(2) <= 2).all():
            return "2:4"
    return "unstructured"


def _zeros_in_blocks(mask: np.ndarray, rows: int, columns: int) -> float:
    """Share of all elements that lie in wholly zero blocks."""
    m, c, taps = mask.shape
    blocks = mask.reshape(m // rows, rows, c // columns, columns, taps).any((1, 3))
    return 1.0 - float(blocks.mean())
