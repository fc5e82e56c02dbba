"""Which rows of an unstructured weight a kernel computes together: pairs that share columns, few different counts."""

from __future__ import annotations

import numpy as np

# Rows among which each finds its partner: the work grows with their number, what more would share hardly does.
_NEIGHBOURS = 128
# What a padding zero costs, in shared columns: a multiply-add with its load, where a shared column saves a load.
_PADDING_COST = 1.5


def pair_rows(nonzero: np.ndarray) -> np.ndarray:
    """Pair rows such that the rows of a pair share many columns.

    Parameters
    ----------
    nonzero : numpy.ndarray
        bool ``[rows, columns]``, where the weights are not zero; rows sorted by their count.

    Returns
    -------
    numpy.ndarray
        int64 ``[pairs, 2]`` of rows; the last one is paired with itself where their number is odd.
    """
    rows = len(nonzero)
    whole = rows // _NEIGHBOURS * _NEIGHBOURS
    parts = [nonzero[:whole].reshape(-1, _NEIGHBOURS, nonzero.shape[1]), nonzero[None, whole:]]
    starts = [np.arange(0, whole, _NEIGHBOURS), np.array([whole])]
    pairs = [_pair_neighbours(part) + start[:, None, None] for part, start in zip(parts, starts, strict=True)]
    return np.concatenate([p.reshape(-1, 2) for p in pairs])


def _pair_neighbours(nonzero: np.ndarray) -> np.ndarray:
    """Pairs ``[parts, pairs, 2]`` of the rows of each part of ``[parts, rows, columns]``.

    Rows that prefer each other are paired first, then those that prefer each other among the rest, and so on.
    """
    parts, rows, _ = nonzero.shape
    mask = nonzero.astype(np.float32)
    count = mask.sum(2)
    score = mask @ mask.swapaxes(1, 2) - _PADDING_COST * np.abs(count[:, :, None] - count[:, None])
    # Ties are broken alike from both sides, so that in every round somebody finds a partner.
    tie = np.random.default_rng(0).random((rows, rows), np.float32)
    score += 0.4 * (tie + tie.T)
    partner = np.tile(np.arange(rows), (parts, 1))
    score[:, np.arange(rows), np.arange(rows)] = -np.inf
    free = np.full((parts, rows), rows > 1)
    while (free.sum(1) > 1).any():
        best = score.argmax(2)
        mutual = free & (np.take_along_axis(best, best, 1) == np.arange(rows))
        mutual &= np.take_along_axis(free, best, 1)
        partner[mutual] = best[mutual]
        free &= ~mutual
        part, row = np.nonzero(mutual)
        score[part, row] = -np.inf
        score[part, :, row] = -np.inf
    # A pair is listed where its first row is; the row that is left over is paired with itself.
    first = np.sort(np.argsort(partner < np.arange(rows), axis=1, kind="stable")[:, : (rows + 1) // 2], axis=1)
    return np.stack([first, np.take_along_axis(partner, first, 1)], axis=2)


def round_down(values: np.ndarray, cost: float) -> np.ndarray:
    """Round integers down to few levels: what is taken away and a cost of each level are least together.

    Parameters
    ----------
    values : numpy.ndarray
        int64 ``[n]``.
    cost : float
        Cost of a level.

    Returns
    -------
    numpy.ndarray
        int64 ``[n]``, each at most its value and one of the values.
    """
    known, number, counts = np.unique(values, return_inverse=True, return_counts=True)
    before, total = np.cumsum([0, *counts]), np.cumsum([0, *(counts * known)])
    # Least cost of the values from a place on, and where their first level ends.
    best, ends = np.zeros(len(known) + 1), np.zeros(len(known), np.int64)
    for begin in reversed(range(len(known))):
        taken = total[begin + 1 :] - total[begin] - known[begin] * (before[begin + 1 :] - before[begin])
        costs = taken + best[begin + 1 :] + cost
        ends[begin], best[begin] = begin + 1 + costs.argmin(), costs.min()
    levels, begin = known.copy(), 0
    while begin < len(known):
        levels[begin : ends[begin]] = known[begin]
        begin = int(ends[begin])
    return levels[number]
