"""Which layers of a run form regions, and in how many strips each region runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from tvm_sparse.schedules.cpu.isa import Isa

from .cost import traffic
from .region import Region

# Microseconds to move a megabyte between the second-level cache and what lies beyond, and to start a call and read its
# table. Measured on an Emerald Rapids core: five ways to cut the first eight layers of MobileNet fit 15 and 2.4 within
# a tenth of what they save. Layers with more arithmetic hide more of the transfers: those of ResNet-50 half of them.
_MEGABYTE_US = 13.0
_CALL_US = 2.4
# Multiply-adds in a microsecond, of layers whose tensors are cached: 20e3 (few nonzeros a row) to 80e3 (dense).
_MACS_PER_US = 50e3
# Share of the second-level cache that keeps what a model of it keeps: the rest goes to weights and tables that stream
# through, and to sets that are full before others. Of 1.0, 0.8, 0.65 and 0.5 it was the fastest for six networks of
# seven, by one per cent.
_CACHE_SHARE = 0.8
# A region must save this share of its time: below, arithmetic hides what it would save.
_LEAST_SHARE = 0.06
# Layers of a region at most: each layer makes the first strip higher.
_MOST_LAYERS = 12
_MOST_STRIPS = 28


@dataclass(frozen=True)
class Cut:
    """Layers of a run that form a region.

    Parameters
    ----------
    first, last : int
        Numbers of its first layer and of the layer after its last one.
    strips : int
        Strips that it runs in.
    """

    first: int
    last: int
    strips: int


def cut_run(count: int, region: Callable[[int, int], Region], isa: Isa) -> list[Cut]:
    """Cut layers that run one after the other into regions such that they save most time.

    Parameters
    ----------
    count : int
        Number of layers.
    region : callable
        Makes the region of the layers from one number up to another.
    isa : Isa
        Instruction set, which gives the size of the cache.

    Returns
    -------
    list of Cut
        Regions that pay, in order; they do not overlap.
    """
    # Most that the layers before a number can save, and the last of their regions.
    best: list[tuple[float, Cut | None]] = [(0.0, None)]
    for last in range(1, count + 1):
        saved, chosen = best[last - 1][0], None
        for first in range(max(0, last - _MOST_LAYERS), last - 1):
            gain, strips = _gain(region(first, last), isa)
            if best[first][0] + gain > saved:
                saved, chosen = best[first][0] + gain, Cut(first, last, strips)
        best.append((saved, chosen))
    cuts: list[Cut] = []
    at = count
    while at > 0:
        cut = best[at][1]
        if cut is not None:
            cuts.append(cut)
        at = cut.first if cut else at - 1
    return cuts[::-1]


def _gain(region: Region, isa: Isa) -> tuple[float, int]:
    """Microseconds that a region saves in its best number of strips, 0 where it is none."""
    # Tensors that the region hands on inside.
    written = {layer.target for layer in region.layers}
    inner = {number for layer in region.layers for number in (layer.source, layer.residual) if number in written}
    if sum(region.tensors[n].rows * region.tensors[n].row_bytes for n in inner) <= isa.l2_bytes // 2:
        return 0.0, 1
    cache = int(_CACHE_SHARE * isa.l2_bytes)
    whole = Region(region.layers, [replace(tensor, whole=True) for tensor in region.tensors])
    before = traffic(whole, whole.order(1), cache) * _MEGABYTE_US / 1e6
    time = before + sum(layer.stripes.lane_macs for layer in region.layers) / _MACS_PER_US
    best, best_strips = _LEAST_SHARE * time, 1
    for strips in _strips(region):
        calls = region.order(strips)
        after = traffic(region, calls, cache) * _MEGABYTE_US / 1e6
        gain = before - after - (len(calls) - len(region.layers)) * _CALL_US
        if gain > best:
            best, best_strips = gain, strips
    return (best, best_strips) if best_strips > 1 else (0.0, 1)


def _strips(region: Region) -> Iterator[int]:
    """Numbers of strips that differ in the rows of a strip."""
    rows = region.tensors[region.layers[-1].target].rows
    seen = set()
    for strips in range(2, min(rows, _MOST_STRIPS) + 1):
        height = -(-rows // strips)
        if height not in seen:
            seen.add(height)
            yield -(-rows // height)
