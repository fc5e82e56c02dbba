"""Calls become layers, with the roof that binds them."""

from __future__ import annotations

import json

import pytest

from tvm_sparse.runtime import CallTime, ProfileResult, Roofs, layer_profile
from tvm_sparse.runtime.profile import merge_profiles

WORK = {
    "macs": 500_000,
    "lane_macs": 1_000_000,
    "utilisation": 0.5,
    "loaded": 6_000_000,
    "l2_read": 400_000,
    "l2_written": 200_000,
    "memory_read": 50_000,
    "memory_written": 25_000,
    "read": 75_000,
    "written": 25_000,
}
RATES = {"L1": 200e9, "L2": 100e9, "L3": 50e9, "DRAM": 10e9}
ROOFS = Roofs(1, 16, 100e9, RATES, {level: rate / 2 for level, rate in RATES.items()}, {"L1": 1, "L2": 2, "L3": 10**6})


def layer(name, kernel, *calls, packed=1000, work=WORK):
    fields = {"kind": "linear", "shape": "8x8", "format": "dense"}
    return {"name": name, "kernel": kernel, "calls": list(calls), "bytes_packed": packed, "work": work, **fields}


def result(*calls):
    return ProfileResult(tuple(CallTime(name, 1, ms, best) for name, ms, best in calls), 9.0)


RUN = result(("k", 1.0, 0.5), ("vm.builtin.x", 2.0, 2.0), ("k", 3.0, 2.5), ("other", 4.0, 4.0), ("k", 5.0, 4.0))


def test_calls_of_one_kernel():
    # The second call is no layer; a layer without a call is in no run.
    profile = layer_profile(RUN, [layer("first", "k", 0), layer("gone", "k"), layer("third", "k", 2)])
    assert [(found.name, found.ms) for found in profile.layers] == [("first", 1.0), ("third", 5.0)]
    assert [(call.name, call.ms) for call in profile.functions] == [("other", 4.0), ("k", 3.0)]
    assert (profile.layers_ms, profile.functions_ms, profile.machine_ms, profile.total_ms) == (6, 7, 2, 15)
    assert profile.run_ms == 9.0
    first = profile.layers[0]
    assert first.gflops == pytest.approx(2 * 500_000 / 0.5e-3 / 1e9) and first.utilisation == 0.5
    assert first.intensity == 10
    assert first.bound is None and first.share_of_roof is None


def test_calls_for_each_group_of_a_batch():
    """A layer's calls add up, and so does their work; layers come in the order of their first calls."""
    profile = layer_profile(RUN, [layer("second", "k", 1), layer("split", "k", 0, 2)], ROOFS)
    assert [(found.name, found.ms, found.best_ms) for found in profile.layers] == [
        ("split", 6.0, 4.5),
        ("second", 3.0, 2.5),
    ]
    split, second = profile.layers
    assert split.work["macs"] == 2 * WORK["macs"] and split.utilisation == WORK["utilisation"]
    assert split.limits["L1"] == pytest.approx(2 * second.limits["L1"])
    assert split.intensity == second.intensity


def test_layers_in_strips():
    """Strips do the work of one call together."""
    strips = {**layer("strips", "k", 0, 2), "strips": 2}
    (both, between) = layer_profile(RUN, [strips, layer("between", "k", 1)], ROOFS).layers
    assert (both.name, both.ms, both.best_ms) == ("strips", 6.0, 4.5)
    assert both.work == between.work


def test_packages_of_earlier_versions():
    """They name one call at most."""
    old = [{**layer("first", "k"), "call": 0}, {**layer("gone", "k"), "call": None}]
    for entry in old:
        del entry["calls"]
    assert [found.name for found in layer_profile(RUN, old).layers] == ["first"]


def test_roof_that_binds():
    profile = layer_profile(RUN, [layer("first", "k", 0)], ROOFS)
    (first,) = profile.layers
    # Milliseconds: 2e6 / 100e9, 6e6 / 200e9, 4e5 / 100e9 + 2e5 / 50e9, 5e4 / 50e9 + 2.5e4 / 25e9.
    assert first.limits == pytest.approx({"FMA": 0.02, "L1": 0.03, "L2": 0.008, "L3": 0.002})
    assert first.bound == "L1" and first.share_of_roof == pytest.approx(0.03 / 0.5)


def test_large_models_live_in_memory():
    profile = layer_profile(RUN, [layer("first", "k", 0, packed=10**6)], ROOFS)
    assert profile.memory == "DRAM" and profile.layers[0].limits["DRAM"] == pytest.approx(0.01)


def test_layers_without_counted_work():
    profile = layer_profile(RUN, [layer("first", "k", 0, work=None)], ROOFS)
    (first,) = profile.layers
    assert first.gflops is None and first.utilisation is None and first.intensity is None and first.bound is None


def test_json():
    written = json.loads(json.dumps(layer_profile(RUN, [layer("first", "k", 0)], ROOFS).to_json()))
    assert written["layers"][0]["bound"] == "L1" and written["layers"][0]["work"] == WORK
    assert written["roofs"]["flops"] == 100e9 and written["memory"] == "L3" and written["total_ms"] == 15


def test_merged_profiles():
    merged = merge_profiles([RUN, result(*((c.name, c.ms + 2, c.best_ms - 0.25) for c in RUN.calls)), RUN])
    assert [call.ms for call in merged.calls] == [1, 2, 3, 4, 5]
    assert [call.best_ms for call in merged.calls] == [0.25, 1.75, 2.25, 3.75, 3.75]
