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
) -> tuple[np.ndarray, np.ndarray]:
    """Plan to write vectors to a plain tensor; parameters as of `read_program`.

    Returns
    -------
    tuple of numpy.ndarray
        Quads ``[n, 4 + 2 * lanes]``: places of four vectors; then for each lane where its elements are in the four
        transposed vectors, and where they go (lanes without four pixels do the same as another one). And the
        elements that are left, ``[m, 2]``: place in columns, and in the plain tensor.
    """
    lanes = elements.shape[1]
    groups, mine, begin = _groups(elements, used, rows)
    whole = mine.all(1) & (begin == begin[:, :1]).all(1)
    some = whole.any(1)
    groups, whole, begin = groups[some], whole[some], begin[some, 0]
    lane = np.where(whole, np.arange(lanes), whole.argmax(1)[:, None])
    # A transposed vector holds every fourth lane's elements.
    at = lane % QUAD * lanes + lane // QUAD * QUAD
    moves = np.stack([at, np.take_along_axis(begin, lane, 1)], 2).reshape(len(at), 2 * lanes)
    quads = np.column_stack([places[groups], moves])
    left = used.copy()
    number, which = np.nonzero(whole)
    left[groups[number], which[:, None]] = False
    vector, which = np.nonzero(left)
    return quads, np.column_stack([places[vector] + which, elements[vector, which]])


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
