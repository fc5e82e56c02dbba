"""Operations that fill windows with vectors of columns: copies, and merges of lanes."""

from __future__ import annotations

import numpy as np

from .merge import TAKE, join_copies

# Parts of a vector that are loaded from anywhere.
QUARTERS = 4
# Runs of fewer vectors are left to single operations.
_SHORTEST_RUN = 2

# Kinds of operations with the entries of each, in the order that they run.
KINDS = {
    "copy": 4,
    "copy_down": 3,
    "copy_across": 4,
    "one_down": 4,
    "one_across": 5,
    "one": 3,
    "two": 5,
    "more": 3,
    "quarters": 2 + QUARTERS,
}


def lane_index(lane: np.ndarray, taken: np.ndarray) -> tuple[int, ...]:
    """Index that merges lanes of a source into a vector.

    Parameters
    ----------
    lane : numpy.ndarray
        Lane of the source for each lane of the result, ``[lanes]``.
    taken : numpy.ndarray
        Whether the result takes it, bool ``[lanes]``; other lanes stay.

    Returns
    -------
    tuple of int
        What :func:`tvm_sparse.schedules.cpu.lanes.merge_lanes` takes as index.
    """
    lanes = len(lane)
    return tuple(
        (TAKE | (lanes + int(source)) if take else keep)
        for keep, (source, take) in enumerate(zip(lane, taken, strict=True))
    )


class HaloOperations:
    """Collects the operations of all stripes, by kind.

    Parameters
    ----------
    lanes : int
        Lanes of a vector.
    tile : tuple of int
        Rows and columns of a tile: the lengths of runs.
    grid : tuple of int
        Rows and columns of a stripe's grid; its vectors are numbered row by row.
    """

    def __init__(self, lanes: int, tile: tuple[int, int], grid: tuple[int, int]):
        self.lanes = lanes
        self.tile = tile
        self.grid = grid
        self.indices: list[tuple[int, ...]] = []
        self._known: dict[tuple[int, ...], int] = {}
        self._kinds: dict[str, list[tuple[int, ...]]] = {name: [] for name in KINDS}
        self._pointers: list[list[int]] = []

    def start_stripe(self) -> None:
        """Begin the next stripe."""
        self._pointers.append([len(kind) for kind in self._kinds.values()])

    def add_stripe(
        self,
        destination: np.ndarray,
        stored: np.ndarray,
        position: np.ndarray,
        lane: np.ndarray,
        inside: np.ndarray,
        unused: np.ndarray,
        wanted: np.ndarray,
    ) -> None:
        """Add what fills the vectors of a stripe.

        Parameters
        ----------
        destination : numpy.ndarray
            Where each vector is in the buffer, ``[vectors]``.
        stored, position, lane, inside : numpy.ndarray
            Of each lane's pixel, ``[vectors, lanes]``: number of the stored vector that holds it (-1 for none), where
            that begins, in which lane it is, and whether it is inside of the image.
        unused : numpy.ndarray
            Lanes that may hold anything, ``[lanes]``.
        wanted : numpy.ndarray
            Vectors that somebody reads, bool ``[vectors]``; the others stay as they are.
        """
        identity = np.arange(self.lanes)
        first = np.where(inside.any(1), inside.argmax(1), 0)
        vectors = np.arange(len(stored))
        source = position[vectors, first]
        one_source = wanted & ((stored == stored[vectors, first][:, None]) | ~inside).all(1)
        plain = one_source & inside.any(1) & ((lane == identity) | ~inside).all(1) & (inside | unused).all(1)
        # Lane index of vectors with one source (or none, where all lanes are outside), -1 for plain copies.
        index = np.full(len(stored), -1)
        for v in np.nonzero(one_source & ~plain)[0].tolist():
            index[v] = self._index(lane[v], inside[v])
        left = self._take_runs(destination, source, index, one_source)
        copies = plain & left
        self._kinds["copy"] += map(tuple, join_copies(destination[copies], source[copies], self.lanes))
        singles = one_source & ~plain & left
        self._kinds["one"] += zip(
            destination[singles].tolist(), source[singles].tolist(), index[singles].tolist(), strict=True
        )
        for v in np.nonzero(wanted & ~one_source)[0].tolist():
            target, ok = int(destination[v]), inside[v]
            sources = sorted(set(stored[v][ok].tolist()))
            # Merging two vectors takes as long; four lanes are loaded each where their vectors cannot be permuted.
            if len(sources) > 2 or self.lanes == QUARTERS:
                starts = _quarters(position[v], lane[v], ok)
                if starts is not None:
                    self._kinds["quarters"].append((target, *starts, self._index(identity, ok)))
                    continue
            terms: list[tuple[int, int]] = []
            for other in sources:
                mine = ok & (stored[v] == other)
                terms.append((int(position[v][mine][0]), self._index(lane[v], mine)))
            self._kinds["two"].append((target, *terms[0], *terms[1]))
            self._kinds["more"] += [(target, *term) for term in terms[2:]]

    def finish(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Operations by kind, and the first one of each stripe: ``[kinds, stripes + 1]``."""
        self.start_stripe()
        arrays = {
            name: np.asarray(kind, np.int64).reshape(-1, KINDS[name]) for name, kind in self._kinds.items()
        }
        return arrays, np.asarray(self._pointers, np.int64).T

    def _take_runs(
        self, destination: np.ndarray, source: np.ndarray, index: np.ndarray, candidates: np.ndarray
    ) -> np.ndarray:
        """Operations on runs as long as a tile is high or wide; returns which vectors are left."""
        left = candidates.copy()
        number = np.arange(len(left)).reshape(self.grid)
        # Down: vectors that follow each other in the buffer, column by column (and phase by phase).
        down = np.argsort(destination).reshape(-1)
        directions = [("down", self.tile[0], [down]), ("across", self.tile[1], list(number))]
        for name, length, lines in sorted(directions, key=lambda d: -d[1]):
            if length < _SHORTEST_RUN:
                continue
            for line in lines:
                begin = 0
                while begin + length <= len(line):
                    run = line[begin : begin + length]
                    steps, jumps = np.diff(source[run]), np.diff(destination[run])
                    even = left[run].all() and (index[run] == index[run[0]]).all()
                    even = even and (steps == steps[0]).all() and (jumps == jumps[0]).all()
                    if not even or (name == "down" and jumps[0] != self.lanes):
                        begin += 1
                        continue
                    self._add_run(name, destination[run], source[run], int(index[run[0]]))
                    left[run] = False
                    begin += length
        return left

    def _add_run(self, direction: str, destination: np.ndarray, source: np.ndarray, index: int) -> None:
        jumps = [int(destination[1] - destination[0])] if direction == "across" else []
        entries = [int(destination[0]), int(source[0]), *jumps, int(source[1] - source[0])]
        kind = "copy" if index < 0 else "one"
        self._kinds[f"{kind}_{direction}"].append((*entries, *([] if index < 0 else [index])))

    def _index(self, lane: np.ndarray, mine: np.ndarray) -> int:
        key = lane_index(lane, mine)
        if key not in self._known:
            self._known[key] = len(self.indices)
            self.indices.append(key)
        return self._known[key]


def _quarters(position: np.ndarray, lane: np.ndarray, inside: np.ndarray) -> tuple[int, ...] | None:
    """Where the quarters of a vector begin, if each lies side by side in a stored vector; None otherwise.

    Parameters
    ----------
    position, lane, inside : numpy.ndarray
        Of each lane's pixel, ``[lanes]``: where its vector begins, in which lane of that it is, and whether it is
        inside of the image: lanes outside may be loaded from anywhere.
    """
    size = len(lane) // QUARTERS
    first = (lane - np.arange(len(lane)) % size).reshape(QUARTERS, size)
    begin, known = position.reshape(QUARTERS, size) + first, inside.reshape(QUARTERS, size)
    some = begin[np.arange(QUARTERS), known.argmax(1)]
    if ((begin != some[:, None]) & known).any() or ((first < 0) | (first > len(lane) - size))[known].any():
        return None
    # A quarter that lies outside comes from where another one does.
    return tuple(np.where(known.any(1), some, some[known.any(1).argmax()]).tolist())
