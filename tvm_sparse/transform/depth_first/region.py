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
    kept : bool
        Whether somebody outside of the region reads it afterwards, so that nothing may overwrite it.
    """

    rows: int
    across: int
    row_bytes: int
    whole: bool
    kept: bool = False


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
class Storage:
    """Where the tensors of a region are.

    Parameters
    ----------
    buffers : sequence of int
        By tensor: number of the tensor whose memory it shares, that of its residual's residual and so on; its own
        where it shares none.
    slots : sequence of numpy.ndarray
        By tensor: where each row of panels is stored, counted in rows, int64 ``[rows]``.
    """

    buffers: Sequence[int]
    slots: Sequence[np.ndarray]


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

    def store(self, calls: Sequence[RowCall]) -> Storage:
        """Where the tensors are stored while calls run in their order.

        A row takes the place of one that nobody reads any more, and a layer writes over its residual where nobody
        else reads that later.

        Parameters
        ----------
        calls : sequence of RowCall
            The calls in order.
        """
        first: dict[tuple[int, int], int] = {}
        last: dict[tuple[int, int], int] = {}
        for index, call in enumerate(calls):
            layer = self.layers[call.layer]
            touched = {(layer.target, row) for row in call.rows}
            touched |= {(layer.source, row) for target in call.rows for row in layer.reads[target]}
            if layer.residual is not None:
                touched |= {(layer.residual, row) for row in call.rows}
            for key in touched:
                first.setdefault(key, index)
                last[key] = index
        buffers, places = list(range(len(self.tensors))), list(range(len(self.tensors)))
        for layer in self.layers:
            residual, target = layer.residual, layer.target
            if residual is None:
                continue
            # A layer that reads windows of its residual too would read what it has overwritten.
            alone = residual != layer.source
            # Kernels address both alike.
            places = [places[residual] if p == places[target] else p for p in places]
            rows = range(self.tensors[target].rows)
            over = all(last.get((residual, row), -1) <= first.get((target, row), -1) for row in rows)
            if alone and over and not self.tensors[residual].kept:
                buffers = [buffers[residual] if b == buffers[target] else b for b in buffers]
        whole = {places[number] for number, tensor in enumerate(self.tensors) if tensor.whole}
        slots: dict[int, np.ndarray] = {}
        for place in set(places):
            members = [number for number, p in enumerate(places) if p == place]
            rows = range(self.tensors[place].rows)
            if place in whole:
                slots[place] = np.arange(len(rows))
                continue
            begin = [min((first[m, r] for m in members if (m, r) in first), default=-1) for r in rows]
            end = [max((last[m, r] for m in members if (m, r) in last), default=-1) for r in rows]
            slots[place] = _reuse(begin, end)
        return Storage(buffers, [slots[place] for place in places])

    def part(self, call: RowCall, storage: Storage) -> Part:
        """What a call computes, and where its tensors' panels are."""
        layer = self.layers[call.layer]
        by_row = layer.stripes.of_rows
        assert by_row is not None
        # Column by column: cores that share a call then own the same part of all rows, in every layer of the region.
        columns = zip(*(by_row[row] for row in call.rows), strict=True)
        stripes = np.array([stripe for column in columns for stripe in column])
        return Part(stripes, *(self._panels(tensor, storage.slots[tensor]) for tensor in (layer.source, layer.target)))

    def _panels(self, tensor: int, slots: np.ndarray) -> np.ndarray:
        across = self.tensors[tensor].across
        return (slots[:, None] * across + np.arange(across)).reshape(-1)


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
