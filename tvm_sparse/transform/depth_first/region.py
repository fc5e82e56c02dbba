"""Regions: layers that run strip by strip, the order of their calls, and where their panels are stored meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tvm_sparse.plan.stripes import Part, Stripes


@dataclass(frozen=True)
class RegionTensor:
    """A tensor in columns that layers of a region read or write.

    Parameters
    ----------
    rows, across : int
        Rows of panels of its image, and panels of a row.
    row_bytes : int
        Bytes of a row of panels.
    whole : bool
        Whether somebody outside of the region writes or reads it: all its rows are stored. Of others only the rows
        that are still to be read.
    """

    rows: int
    across: int
    row_bytes: int
    whole: bool


@dataclass(frozen=True)
class RegionLayer:
    """A layer of a region; tensors by their number.

    Parameters
    ----------
    stripes : Stripes
        How it runs in parts.
    source, target : int
        What it reads and writes.
    residual : int, optional
        What it adds, stored like the target.
    weight_bytes : int
        Bytes of its constants, which every call reads.
    """

    stripes: Stripes
    source: int
    target: int
    residual: int | None = None
    weight_bytes: int = 0

    @property
    def reads(self) -> tuple[frozenset[int], ...]:
        """Rows of the source's panels by row of the target's."""
        return self.stripes.reads


@dataclass(frozen=True)
class RowCall:
    """One call of a layer, for some rows of its target's panels."""

    layer: int
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Region:
    """Layers in an order in which they can run one after the other.

    Parameters
    ----------
    layers : sequence of RegionLayer
        The layers, which all can run in parts.
    tensors : sequence of RegionTensor
        Their tensors.
    """

    layers: Sequence[RegionLayer]
    tensors: Sequence[RegionTensor]

    def order(self, strips: int) -> list[RowCall]:
        """Calls that compute the whole tensors in strips, each layer no more than the strip's rows need.

        No row is computed twice. The lanes of a vector lie far apart in the image, so the first strip also computes
        the last rows of every subimage, which border on the first rows of the next one.

        Parameters
        ----------
        strips : int
            Parts that the rows of the results are cut into.
        """
        done: list[set[int]] = [set() for _ in self.layers]
        calls: list[RowCall] = []
        for strip in range(1, strips + 1):
            wanted = [set(range(t.rows * strip // strips)) if t.whole else set() for t in self.tensors]
            new: list[set[int]] = [set() for _ in self.layers]
            for number in reversed(range(len(self.layers))):
                layer = self.layers[number]
                new[number] = wanted[layer.target] - done[number]
                done[number] |= new[number]
                for row in new[number]:
                    wanted[layer.source] |= layer.reads[row]
                if layer.residual is not None:
                    wanted[layer.residual] |= new[number]
            calls += [RowCall(number, tuple(sorted(rows))) for number, rows in enumerate(new) if rows]
        return calls

    def slots(self, calls: Sequence[RowCall]) -> list[np.ndarray]:
        """Where each row of panels is stored, counted in rows, by tensor: int64 ``[rows]`` each.

        A row takes the place of one that nobody reads any more.

        Parameters
        ----------
        calls : sequence of RowCall
            The calls in order.
        """
        first: dict[tuple[int, int], int] = {}
        last: dict[tuple[int, int], int] = {}
        group = self._groups()
        for index, call in enumerate(calls):
            layer = self.layers[call.layer]
            touched = {(layer.target, row) for row in call.rows}
            touched |= {(layer.source, row) for target in call.rows for row in layer.reads[target]}
            for tensor, row in touched:
                key = (group[tensor], row)
                first.setdefault(key, index)
                last[key] = index
        whole = {group[number] for number, tensor in enumerate(self.tensors) if tensor.whole}
        places: dict[int, np.ndarray] = {}
        for leader in set(group):
            rows = np.arange(self.tensors[leader].rows)
            if leader not in whole:
                rows = _reuse([first.get((leader, r), -1) for r in rows], [last.get((leader, r), -1) for r in rows])
            places[leader] = rows
        return [places[leader] for leader in group]

    def part(self, call: RowCall, slots: Sequence[np.ndarray]) -> Part:
        """What a call computes, and where its tensors' panels are."""
        layer = self.layers[call.layer]
        by_row = layer.stripes.of_rows
        assert by_row is not None
        stripes = np.array([stripe for row in call.rows for stripe in by_row[row]])
        return Part(stripes, *(self._panels(tensor, slots[tensor]) for tensor in (layer.source, layer.target)))

    def _panels(self, tensor: int, slots: np.ndarray) -> np.ndarray:
        across = self.tensors[tensor].across
        return (slots[:, None] * across + np.arange(across)).reshape(-1)

    def _groups(self) -> list[int]:
        """Number of a tensor by tensor, the same for those that kernels address alike: residuals and targets."""
        group = list(range(len(self.tensors)))
        for layer in self.layers:
            if layer.residual is not None:
                old, new = group[layer.residual], group[layer.target]
                group = [new if leader == old else leader for leader in group]
        return group


def _reuse(first: Sequence[int], last: Sequence[int]) -> np.ndarray:
    """Places of rows that live from one call to another, as few as possible; rows that never live get the first."""
    places = np.zeros(len(first), np.int64)
    free_after: list[int] = []
    for row in sorted(range(len(first)), key=lambda r: (first[r], r)):
        if first[row] < 0:
            continue
        place = next((i for i, end in enumerate(free_after) if end < first[row]), len(free_after))
        if place == len(free_after):
            free_after.append(0)
        free_after[place] = last[row]
        places[row] = place
    return places
