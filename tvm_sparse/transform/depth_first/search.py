"""Search."""
from __future__ import annotations
import os
from collections.abc import Callable
from dataclasses import dataclass

from tvm_sparse.schedules.cpu.isa import Isa
from .region import Region


@dataclass(frozen=True)
class Cut:
    """Layers from `first` up to `last` (exclusive) of a run as a region in strips."""

    first: int
    last: int
    strips: int


def cut_run(count: int, region: Callable[[int, int], Region], isa: Isa) -> list[Cut]:
    text = os.environ.get("STRIPS", "")
    print("run", count)
    out = []
    for item in text.split(",") if text else []:
        a, b, k = map(int, item.split(":"))
        if b <= count: out.append(Cut(a, b, k))
    for c in out:
        r = region(c.first, c.last)
        calls = r.order(c.strips)
        slots = r.slots(calls)
        for l in r.layers: print(l.source, l.target, l.residual, l.stripes.source.grid, l.stripes.source.tile, l.stripes.target.tile, l.weight_bytes)
        for call in calls: print(call)
        for i, t in enumerate(r.tensors): print(i, t, int(slots[i].max()+1), slots[i].tolist())
    return out
