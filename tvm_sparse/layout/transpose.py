"""Programs that bring plain tensors to columns and back by small transposes.

The lanes of a vector are far apart in memory, but their neighbours in the next vector are neighbours in memory: four
vectors at once are four elements side by side for each lane, transposed. That touches every cache line a few times
instead of sixteen. What is left at the edges goes lane by lane.
"""

from __future__ import annotations

import numpy as np

# Vectors that four elements of each lane fill.
QUAD = 4


def read_program(
    elements: np.ndarray, used: np.ndarray, places: np.ndarray, rows: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Plan to fill vectors from a plain tensor; positions in elements.

    Parameters
    ----------
    elements : numpy.ndarray
        ``[vectors, lanes]``: element of the plain tensor for each lane.
    used : numpy.ndarray
        ``[vectors, lanes]``: whether the lane holds anything; what others hold does not matter.
    places : numpy.ndarray
        ``[vectors]``: where each vector is in columns.
    rows : numpy.ndarray
        ``[rows, length]``: vectors that follow each other in memory; together all of them.
    size : int
        Elements that may be read.

    Returns
    -------
    tuple of numpy.ndarray
        Quads ``[n, 4 + lanes]``: places of four vectors, then where each lane's four elements start. And the
        vectors that are left, ``[m, 1 + lanes]``: place, then each lane's element.
    """
    groups, mine, begin = _groups(elements, used, rows)
    # A lane starts where its first pixel says; one without any, where another lane does (or anywhere).
    known = mine.any(1)
    first = np.take_along_axis(begin, mine.argmax(1)[:, None], 1)[:, 0]
    first = np.where(known, first, np.take_along_axis(first, known.argmax(1)[:, None], 1))
    fits = ((begin == first[:, None]) | ~mine).all((1, 2)) & ((first >= 0) & (first + QUAD <= size)).all(1)
    left = np.ones(len(elements), bool)
    left[groups[fits]] = False
    quads = np.column_stack([places[groups[fits]], first[fits]])
    return quads, np.column_stack([places[left], elements[left]])


def write_program(
    elements: np.ndarray, used: np.ndarray, places: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Plan to write vectors to a plain tensor; parameters as of `read_program`.

    Returns
    -------
    tuple of numpy.ndarray
        Quads ``[n, 4 + lanes]``: places of four vectors, then where each lane's four elements go; lanes without four
        pixels write where lane 0 does, which must come last. Of what is left, runs of as many elements as there are
        lanes, ``[m, 1 + lanes]``: where they go, then where each is in columns. And single elements ``[k, 2]``:
        where each is in columns, and where it goes.
    """
    lanes = elements.shape[1]
    groups, mine, begin = _groups(elements, used, rows)
    # The first lane's pixels come first: where it has none, no lane has.
    whole = mine.all(1) & (begin == begin[:, :1]).all(1) & mine[:, :, :1].all(1)
    some = whole[:, 0]
    groups, whole, begin = groups[some], whole[some], begin[some, 0]
    quads = np.column_stack([places[groups], np.where(whole, begin, begin[:, :1])])
    left = used.copy()
    number, which = np.nonzero(whole)
    left[groups[number], which[:, None]] = False
    vector, which = np.nonzero(left)
    target = elements[vector, which]
    order = np.argsort(target)
    return quads, *_runs(target[order], (places[vector] + which)[order], lanes)


def _runs(target: np.ndarray, place: np.ndarray, lanes: int) -> tuple[np.ndarray, np.ndarray]:
    """Runs of `lanes` elements that follow each other, and the elements in shorter runs."""
    first = np.flatnonzero(np.diff(target, prepend=-2) != 1)
    last = np.append(first[1:], len(target))[: len(first)]
    starts: list[int] = []
    single: list[int] = []
    for a, b in zip(first.tolist(), last.tolist(), strict=True):
        if b - a < lanes:
            single += range(a, b)
        else:
            # The last run overlaps the one before, where the lanes do not divide the length.
            starts += (min(at, b - lanes) for at in range(a, b, lanes))
    at = np.asarray(starts, np.int64)
    alone = np.asarray(single, np.int64)
    runs = np.column_stack([target[at], place[at[:, None] + np.arange(lanes)]])
    return runs, np.column_stack([place[alone], target[alone]])


def _groups(elements: np.ndarray, used: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Groups of four vectors, which lanes they use, and where each lane's four elements start: ``[n, 4, lanes]``."""
    length = rows.shape[1]
    if length < QUAD:
        groups = np.zeros((0, QUAD), np.int64)
    else:
        # The last four of a row overlap those before, where four does not divide its length.
        starts = np.minimum(np.arange(-(-length // QUAD)) * QUAD, length - QUAD)
        groups = rows[:, starts[:, None] + np.arange(QUAD)].reshape(-1, QUAD)
    return groups, used[groups], elements[groups] - np.arange(QUAD)[:, None]
