"""Tables of a profile by layer."""

from __future__ import annotations

from tvm_sparse.runtime import CallTime, LayerProfile, LayerTime, Roofs
from tvm_sparse.tvmc.profile_tables import below_roof, profile_tables
from tvm_sparse.tvmc.tables import markdown_table

WORK = {"macs": 1_000_000, "utilisation": 0.875, "read": 1000, "written": 1000}
RATES = {"L1": 350e9, "L2": 150e9, "L3": 34e9, "DRAM": 17e9}
ROOFS = Roofs(2, 16, 214e9, RATES, RATES, {"L1": 1, "L2": 2, "L3": 3})


def layer(name, limits=None, best=0.02, work=WORK):
    return LayerTime(name, "conv 1x1", "64x64 @56x56", "unstructured", "kernel", 0.025, best, work, limits or {})


def profile(*layers, roofs=None):
    functions = (CallTime("relayout", 2, 0.0125, 0.01),)
    return LayerProfile(layers, functions, 0.0125, 0.06, roofs, "L3" if roofs else None)


def test_with_roofs():
    text = profile_tables(profile(layer("conv1", {"FMA": 0.008, "L1": 0.016}), roofs=ROOFS))
    row = next(line for line in text.splitlines() if line.startswith("conv1"))
    assert row.split()[5:] == ["unstructured", "0.0250", "0.0200", "50.0%", "100.0", "88%", "L1", "80%"]
    assert "roofs of 2 threads: FMA 214.0 GF/s; the model's memory is L3" in text
    assert "read, GB/s: L1 350.0, L2 150.0, L3 34.0, DRAM 17.0" in text
    sums = {line.split("  ")[0]: line.split()[-2:] for line in text.splitlines()}
    assert sums["layers"] == ["0.0250", "50.0%"] and sums["other functions"] == ["0.0125", "25.0%"]
    assert sums["virtual machine"] == ["0.0125", "25.0%"] and sums["total"] == ["0.0500", "100.0%"]
    assert sums["relayout"] == ["0.0125", "25.0%"]


def test_without_roofs_or_counts():
    text = profile_tables(profile(layer("conv1", work={})))
    assert "of roof" not in text and "roofs" not in text
    row = next(line for line in text.splitlines() if line.startswith("conv1"))
    assert row.split()[-3:] == ["50.0%", "-", "-"]
    assert profile_tables(profile()).startswith("No call of this model is a layer of its plan.")


def test_markdown():
    text = profile_tables(profile(layer("conv1", {"FMA": 0.008}), roofs=ROOFS), markdown_table)
    assert "| conv1 | conv 1x1 | 64x64 @56x56 | unstructured | 0.0250 |" in text


def test_below_their_roof_the_costliest_first():
    layers = [layer("good", {"L1": 0.019}), layer("bad", {"L1": 0.01}), layer("worst", {"L1": 0.01}, best=0.05)]
    assert [found.name for found in below_roof(profile(*layers, layer("unknown")), 0.6)] == ["worst", "bad"]
