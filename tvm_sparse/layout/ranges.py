"""Ranges of an array, one after the other, by pointers."""

from __future__ import annotations

import numpy as np


def select_ranges(pointers: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Select some of the ranges of an array.

    Parameters
    ----------
    pointers : numpy.ndarray
        ``[ranges + 1]``: where each range starts, and where the last one ends.
    chosen : numpy.ndarray
        ``[n]``: numbers of ranges.

    Returns
    -------
    tuple of numpy.ndarray
        Positions of the elements of the chosen ranges one after the other, and the ranges' pointers among those.
    """
    pointers = np.asarray(pointers, np.int64)
    positions = [np.arange(pointers[i], pointers[i + 1]) for i in chosen]
    starts = np.cumsum([0] + [len(p) for p in positions])
    return np.concatenate([np.zeros(0, np.int64), *positions]), starts
