"""Rows of a weight in an order that puts rows with nonzeros in the same places side by side.

Kernels write the rows of a block wherever they belong, so that such an order costs nothing.
"""

from __future__ import annotations

import numpy as np


def order_rows(weight: np.ndarray, size: int, groups: int = 1) -> np.ndarray:
    """Find an order in which blocks of rows share their columns.

    Parameters
    ----------
    weight : numpy.ndarray
        ``[M, ...]``.
    size : int
        Rows of a block.
    groups : int
        Groups of rows that stay apart.

    Returns
    -------
    numpy.ndarray
        int64 ``[M]``: the row at each place. Rows of equal supports follow each other as far as they fill blocks, in
        the order in which they first appear; the others come last. Where that gains nothing, rows stay as they are.
    """
    count = len(weight)
    if size < 2 or count < size or not weight.size:
        return np.arange(count)
    support = np.packbits((weight != 0).reshape(count, -1), axis=1)
    per_group = count // groups
    starts = range(0, count, per_group)
    return np.concatenate([start + _order(support[start : start + per_group], size) for start in starts])


def _order(support: np.ndarray, size: int) -> np.ndarray:
    """The order of the rows of a group."""
    _, first, kind = np.unique(support, axis=0, return_index=True, return_inverse=True)
    # Number kinds by their first row.
    kind = np.argsort(np.argsort(first))[kind.reshape(-1)]
    whole = len(kind) // size * size
    natural = (kind[:whole].reshape(-1, size) == kind[:whole:size, None]).all(1).sum()
    place = np.argsort(kind, kind="stable")
    sorted_kind = kind[place]
    start = np.searchsorted(sorted_kind, sorted_kind)
    total = np.bincount(kind)[sorted_kind]
    fills = np.arange(len(kind)) - start < total // size * size
    if fills.sum() // size <= natural:
        return np.arange(len(kind))
    return np.concatenate([place[fills], np.sort(place[~fills])])
