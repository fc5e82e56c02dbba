"""The order of calls and the places of rows: everything is there when it is read, and nothing is computed twice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_sparse.layout.geometry import Geometry, choose_geometry
from tvm_sparse.layout.halo import Window
from tvm_sparse.plan.stripes import Stripes
from tvm_sparse.schedules.cpu.isa import AVX512
from tvm_sparse.transform.depth_first import search
from tvm_sparse.transform.depth_first.cost import traffic
from tvm_sparse.transform.depth_first.region import Region, RegionLayer, RegionTensor

WINDOWS = [
    Window((1, 1)),
    Window((3, 3), padding=(1, 1, 1, 1)),
    Window((3, 3), (2, 2), padding=(1, 1, 1, 1)),
    Window((2, 2), (2, 2)),
    Window((5, 3), padding=(2, 1, 2, 1)),
    Window((3, 3), dilation=(2, 2), padding=(2, 2, 2, 2)),
]


def chain(size: tuple[int, int], windows: list[Window], residuals: list[bool], channels: int = 8) -> Region:
    """Layers one after the other; a residual is what the layer before reads."""
    geometry = choose_geometry(1, *size, 16)
    layers, tensors = [], [tensor(geometry, channels, True)]
    for window, residual in zip(windows, residuals, strict=True):
        target = choose_geometry(1, *window.output_size(geometry.height, geometry.width), 16)
        panels = tuple(np.arange(target.panels)[:, None])
        before = layers[-1].source if layers else None
        added = before if residual and layers and layers[-1].stripes.source == target else None
        stripes = Stripes(geometry, target, panels, window, lambda part: np.zeros(0))
        layers.append(RegionLayer(stripes, len(layers), len(layers) + 1, added))
        tensors.append(tensor(target, channels, False))
        geometry = target
    tensors[-1] = replace(tensors[-1], whole=True)
    return Region(layers, tensors)


def tensor(geometry: Geometry, channels: int, whole: bool) -> RegionTensor:
    row_bytes = 4 * channels * geometry.panels_across * geometry.vectors * geometry.lanes
    return RegionTensor(geometry.panels_down, geometry.panels_across, row_bytes, whole)


def rows_that_pixels_read(stripes: Stripes, row: int) -> set[int]:
    """Rows of panels that every tap of every pixel reads, pixel by pixel."""
    source, target, window = stripes.source, stripes.target, stripes.window
    y, x = np.meshgrid(np.arange(target.height), np.arange(target.width), indexing="ij")
    panel, _, _ = target.locate(y, x)
    found = set()
    for py in y[panel // target.panels_across == row].tolist():
        for tap in range(window.kernel[0]):
            at = py * window.stride[0] - window.padding[0] + tap * window.dilation[0]
            if 0 <= at < source.height:
                found.add(int(source.locate(np.array(at), np.array(0))[0]) // source.panels_across)
    return found


@settings(max_examples=60)
@given(
    st.tuples(st.integers(12, 60), st.integers(12, 60)),
    st.lists(st.tuples(st.sampled_from(WINDOWS), st.booleans()), min_size=1, max_size=4),
    st.integers(1, 9),
)
def test_everything_is_there_when_it_is_read(size, layers, strips):
    region = chain(size, [w for w, _ in layers], [r for _, r in layers])
    calls = region.order(strips)
    storage = region.store(calls)
    slots, buffers = storage.slots, storage.buffers
    # What each place holds: the row of the tensor that was written there last. The input is there.
    held: list[dict[int, tuple[int, int]]] = [{} for _ in region.tensors]
    held[0] = {row: (0, row) for row in range(region.tensors[0].rows)}
    for call in calls:
        layer = region.layers[call.layer]
        for row in call.rows:
            assert layer.reads[row] == rows_that_pixels_read(layer.stripes, row)
            for source in layer.reads[row]:
                assert held[buffers[layer.source]][int(slots[layer.source][source])] == (layer.source, source)
            if layer.residual is not None:
                place = int(slots[layer.target][row])
                assert int(slots[layer.residual][row]) == place
                assert held[buffers[layer.residual]][place] == (layer.residual, row)
            # Other tiles of the call may be done already.
            held[buffers[layer.target]][int(slots[layer.target][row])] = (layer.target, row)
    computed = [(call.layer, row) for call in calls for row in call.rows]
    assert len(set(computed)) == len(computed)
    last = len(region.layers) - 1
    assert {row for layer, row in computed if layer == last} == set(range(region.tensors[-1].rows))


def test_residuals_are_overwritten():
    """The second layer adds what the first one reads; nobody else does, but for a tensor that is kept."""
    for kept in (False, True):
        region = chain((56, 56), [WINDOWS[1], WINDOWS[0], WINDOWS[0]], [False, False, True])
        tensors = list(region.tensors)
        tensors[1] = replace(tensors[1], whole=kept, kept=kept)
        storage = Region(region.layers, tensors).store(region.order(3))
        assert list(storage.buffers) == [0, 1, 2, 3 if kept else 1]
        np.testing.assert_array_equal(storage.slots[1], storage.slots[3])


def test_strips_of_a_chain_keep_few_rows():
    region = chain((112, 112), [WINDOWS[1], WINDOWS[1]], [False, False])
    slots = region.store(region.order(7)).slots
    # Two new rows a strip, one on either side of them, and those that the first strip needs from the end.
    assert region.tensors[1].rows == 14 and slots[1].max() + 1 <= 6


def test_tensors_that_others_read_stay_whole():
    region = chain((56, 56), [WINDOWS[1]] * 3, [False] * 3)
    tensors = [*region.tensors[:2], replace(region.tensors[2], whole=True), region.tensors[3]]
    region = Region(region.layers, tensors)
    calls = region.order(4)
    np.testing.assert_array_equal(region.store(calls).slots[2], np.arange(tensors[2].rows))
    assert sum(len(call.rows) for call in calls if call.layer == 1) == tensors[2].rows


def test_traffic_of_strips():
    """Tensors beyond the cache's size pass three times: fetched to be written, written back, read."""
    region = chain((112, 112), [WINDOWS[0]] * 3, [False] * 3, channels=64)
    size = region.tensors[0].rows * region.tensors[0].row_bytes
    whole = Region(region.layers, [replace(t, whole=True) for t in region.tensors])
    calls = whole.order(1)
    assert traffic(whole, calls, size // 2) == 3 * size * 3
    calls = region.order(14)
    # The input is read, the output fetched and written; what lies between fits and is fetched and written once.
    between = 2 * (2 * region.tensors[0].row_bytes)
    assert traffic(region, calls, size // 2) == 3 * size + between


def test_regions_are_formed_where_tensors_exceed_the_cache():
    large = chain((112, 112), [WINDOWS[1]] * 4, [False] * 4, channels=32)
    assert search.cut_run(4, lambda a, b: part(large, a, b), replace(AVX512, l2_bytes=2**21))
    small = chain((28, 28), [WINDOWS[1]] * 4, [False] * 4, channels=64)
    assert search.cut_run(4, lambda a, b: part(small, a, b), replace(AVX512, l2_bytes=2**21)) == []


def test_regions_are_formed_though_all_is_read_later():
    # What a layer wrote is still cached when the next one reads it, also where somebody needs it afterwards.
    large = chain((112, 112), WINDOWS[:1] * 2, [False] * 2, channels=512)
    tensors = [replace(tensor, whole=True, kept=True) for tensor in large.tensors]
    isa = replace(AVX512, l2_bytes=2**23)
    assert search.cut_run(2, lambda a, b: Region(large.layers[a:b], tensors), isa) != []



@pytest.mark.parametrize("count", [2, 5])
def test_regions_do_not_overlap(count):
    region = chain((112, 112), [WINDOWS[1]] * count, [False] * count, channels=64)
    cuts = search.cut_run(count, lambda a, b: part(region, a, b), replace(AVX512, l2_bytes=2**20))
    assert all(a.last <= b.first for a, b in zip(cuts[:-1], cuts[1:], strict=True))
    assert all(0 <= cut.first < cut.last <= count and cut.strips > 1 for cut in cuts)


def part(region: Region, first: int, last: int) -> Region:
    """Layers from one number up to another."""
    tensors = list(region.tensors[first : last + 1])
    tensors[0], tensors[-1] = (replace(t, whole=True) for t in (tensors[0], tensors[-1]))
    layers = [
        replace(
            layer, source=layer.source - first, target=layer.target - first,
            residual=None if layer.residual is None else layer.residual - first,
        )
        for layer in region.layers[first:last]
    ]  # fmt: skip
    return Region(layers, tensors)


def test_calls_go_column_by_column():
    """Cores that take a call's stripes in equal blocks own the same columns of every row."""
    region = chain((112, 112), WINDOWS[1:2], [False])
    layer, calls = region.layers[0], region.order(2)
    across = layer.stripes.target.panels_across
    storage = region.store(calls)
    for call in calls:
        columns = region.part(call, storage).stripes % across
        assert across > 1 and (np.diff(columns) >= 0).all() and len(columns) == across * len(call.rows)
