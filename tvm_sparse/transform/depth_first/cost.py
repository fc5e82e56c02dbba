"""What a region costs beside its arithmetic: bytes that pass from beyond the second-level cache and back, and calls."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from .region import Region, RowCall


def traffic(region: Region, calls: Sequence[RowCall], cache_bytes: int) -> int:
    """Bytes that calls bring into a cache and write back from it.

    A cache that drops what was used least recently holds rows of panels and the layers' constants. An output's lines
    are fetched before they are written.

    Parameters
    ----------
    region : Region
        The region.
    calls : sequence of RowCall
        The calls in order.
    cache_bytes : int
        Size of the cache.
    """
    cache, storage = _Cache(cache_bytes), region.store(calls)

    def touch(tensor: int, row: int, write: bool) -> None:
        place = storage.buffers[tensor], int(storage.slots[tensor][row])
        cache.touch(place, region.tensors[tensor].row_bytes, write)

    for call in calls:
        layer = region.layers[call.layer]
        cache.touch(("constants", call.layer), layer.weight_bytes, False)
        for row in call.rows:
            for source in sorted(layer.reads[row]):
                touch(layer.source, source, False)
            if layer.residual is not None:
                touch(layer.residual, row, False)
            touch(layer.target, row, True)
    return cache.moved + cache.dirty_bytes


class _Cache:
    """Counts what a cache fetches and writes back."""

    def __init__(self, size: int):
        self.free = size
        self.moved = 0
        self._lines: OrderedDict[tuple[object, int], tuple[int, bool]] = OrderedDict()

    @property
    def dirty_bytes(self) -> int:
        """Bytes that are still to be written back."""
        return sum(size for size, dirty in self._lines.values() if dirty)

    def touch(self, key: tuple[object, int], size: int, write: bool) -> None:
        known = self._lines.pop(key, None)
        if known is None:
            self.moved += size
            self.free -= size
        self._lines[key] = (size, write or (known is not None and known[1]))
        while self.free < 0 and len(self._lines) > 1:
            _, (old, dirty) = self._lines.popitem(last=False)
            self.free += old
            self.moved += old if dirty else 0
