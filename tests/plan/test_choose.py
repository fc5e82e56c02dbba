"""The choice of formats: sparse where it pays, dense elsewhere, and what the user asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_sparse.layout.geometry import choose_geometry
from tvm_sparse.layout.halo import Window
from tvm_sparse.plan import choose as choose_module
from tvm_sparse.plan.choose import Choice, choose_format, dense_cycles, estimate_formats, sparse_cycles
from tvm_sparse.plan.layer import Convolution
from tvm_sparse.plan.plan import BLOCK_SHAPES, Plan
from tvm_sparse.schedules.cpu.isa import AVX2, AVX512


def layer_with(zeros: float, rows: int = 64, channels: int = 64, kernel: int = 1, groups: int = 1) -> Convolution:
    """A layer with exactly that share of zeros."""
    weight = np.ones(rows * channels // groups * kernel * kernel, np.float32)
    order = np.random.default_rng(0).permutation(weight.size)
    weight[order[: round(zeros * weight.size)]] = 0
    weight = weight.reshape(rows, channels // groups, kernel, kernel)
    padding = (kernel // 2,) * 4
    return Convolution(weight, np.zeros(rows, np.float32), Window((kernel, kernel), padding=padding), groups)


def choose(plan: Plan, layer: Convolution, size: int = 28, isa=AVX2) -> Choice:
    geometry = choose_geometry(1, size, size, isa.lanes)
    return choose_format(plan, "layer", layer, geometry, geometry, isa)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("isa", [AVX2, AVX512])
def test_pruned_layers_are_sparse(kernel, isa):
    choice = choose(Plan(), layer_with(0.95, kernel=kernel), isa=isa)
    assert choice.format == "unstructured" and choice.speedup > 2 and choice.why == "95% zeros"
    assert choose(Plan(), layer_with(0.0, kernel=kernel), isa=isa).format == "dense"


@pytest.mark.parametrize("zeros", [0.7, 0.8, 0.9, 0.95])
def test_below_the_threshold_layers_stay_dense(zeros):
    layer = layer_with(zeros, 100, 100)
    assert choose(Plan(threshold=zeros), layer).format == "unstructured"
    choice = choose(Plan(threshold=zeros + 0.01), layer)
    assert (choice.format, choice.speedup) == ("dense", 1.0)
    assert choice.why == f"{zeros:.0%} zeros, below the threshold of {zeros + 0.01:.0%}"


def test_where_sparse_would_lose_dense_is_taken():
    # A kernel's row costs more than its few products.
    choice = choose(Plan(threshold=0), layer_with(0.1))
    assert choice.format == "dense" and "times the dense speed" in choice.why


def test_options():
    layer = layer_with(0.95)
    assert choose(Plan("off"), layer) == Choice("dense", 1.0, "sparsity is off")
    assert choose(Plan(sparse_format="dense"), layer).format == "dense"
    assert choose(Plan(sparse_format="unstructured"), layer).format == "unstructured"


def test_the_plan_of_the_user_wins():
    sparse, dense = layer_with(0.95), layer_with(0.0)
    why = "asked for by the plan"
    asked = choose(Plan(overrides={"layer": "dense"}), sparse)
    assert asked == Choice("dense", 1.0, why)
    asked = choose(Plan("off", overrides={"layer": "unstructured"}), dense)
    assert asked.format == "unstructured" and asked.why == why
    # An honest estimate, though nobody asked for it.
    assert asked.speedup < 1
    for overrides in ({"layer": "auto"}, {"other": "dense"}):
        assert choose(Plan(overrides=overrides), sparse).format == "unstructured"


def test_depthwise_layers_have_a_format_of_their_own():
    layer = layer_with(0.0, 32, 32, 3, groups=32)
    assert choose(Plan(), layer).format == "depthwise"
    assert choose(Plan("off"), layer).format == "depthwise"
    assert choose(Plan(overrides={"layer": "unstructured"}), layer).format == "depthwise"
    assert choose(Plan(overrides={"layer": "dense"}), layer).format == "dense"


def blocked(shape: tuple[int, int], zeros: float, kernel: int = 1, rows: int = 64, channels: int = 64) -> Convolution:
    """A layer whose zeros lie in blocks."""
    grid = (rows // shape[0], channels // shape[1], kernel, kernel)
    keep = np.random.default_rng(0).random(grid) >= zeros
    layer = layer_with(0.0, rows, channels, kernel)
    return replace(layer, weight=layer.weight * keep.repeat(shape[0], 0).repeat(shape[1], 1))


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("isa", [AVX2, AVX512])
@pytest.mark.parametrize("zeros", [0.6, 0.8, 0.9, 0.95])
def test_rows_that_share_columns_are_blocks(kernel, isa, zeros):
    for rows in (4, 8, 16):
        layer = blocked((rows, 1), zeros, kernel)
        choice = choose(Plan(), layer, isa=isa)
        assert choice.format in ("block 4x1", "block 8x1", "block 16x1")
        assert choice.speedup > choose(Plan(sparse_format="unstructured"), layer, isa=isa).speedup
    # Scattered zeros are none: there the blocks would be filled with zeros.
    assert choose(Plan(), layer_with(zeros, kernel=kernel), isa=isa).format == "unstructured"


@pytest.mark.parametrize("isa", [AVX2, AVX512])
def test_rows_of_blocks_need_not_be_neighbours(isa):
    layer = blocked((4, 1), 0.9)
    mixed = replace(layer, weight=layer.weight[np.random.default_rng(1).permutation(64)])
    assert choose(Plan(), mixed, isa=isa) == choose(Plan(), layer, isa=isa)


def test_blocks_that_are_asked_for():
    layer = blocked((4, 1), 0.9)
    assert choose(Plan(sparse_format="unstructured"), layer).format == "unstructured"
    for shape in ("4x1", "8x1", "16x1", "1x4"):
        for plan in (
            Plan(sparse_format="block", block_shape=shape),
            Plan(overrides={"layer": f"block {shape}"}),
            Plan(overrides={"layer": "block"}, block_shape=shape),
        ):
            choice = choose(plan, blocked((16, 1) if shape != "1x4" else (1, 4), 0.9))
            assert choice.format == f"block {shape}"
    # What no block fits is unstructured, and what blocks would make slower stays dense.
    assert choose(Plan(sparse_format="block", block_shape="1x4"), layer_with(0.9, 64, 63)).format == "unstructured"
    assert choose(Plan(threshold=0, sparse_format="block"), layer_with(0.1, kernel=3)).format == "dense"


def test_estimates_of_every_format():
    geometry = choose_geometry(1, 28, 28, 16)
    costs = estimate_formats(blocked((4, 1), 0.9), geometry, geometry, AVX512)
    assert set(costs) == {"dense", "unstructured", *(f"block {shape}" for shape in BLOCK_SHAPES)}
    assert costs["block 4x1"] < costs["unstructured"] < costs["dense"]
    assert "block 1x4" not in estimate_formats(layer_with(0.9, 64, 63), geometry, geometry, AVX512)
    assert set(estimate_formats(layer_with(0.9), None, None, AVX512)) == {"dense", "unstructured"}


def test_few_plain_rows():
    for zeros, expected in ((0.95, "unstructured"), (0.0, "dense")):
        choice = choose_format(Plan(), "fc", layer_with(zeros, 1000, 512), None, None, AVX2)
        assert choice.format == expected


@given(st.integers(1, 100), st.integers(1, 100), st.sampled_from([1, 3]), st.integers(1, 40))
def test_estimates_grow_with_the_work(rows, channels, kernel, size):
    geometry = choose_geometry(1, size, size, 8)
    for source, target in ((geometry, geometry), (None, None)):
        layers = [layer_with(zeros, rows, channels, kernel) for zeros in (1.0, 0.9, 0.5, 0.0)]
        sparse = [sparse_cycles(layer, source, target, AVX2) for layer in layers]
        assert sparse == sorted(sparse) and sparse[0] > 0
        # The dense kernel doesn't see the zeros.
        assert len({dense_cycles(layer, source, target, AVX2) for layer in layers}) == 1


def test_a_weight_of_zeros_is_sparse():
    assert choose(Plan(), layer_with(1.0)).format != "dense"


@pytest.mark.parametrize(("cycles", "filled", "full"), [(101, False, False), (97, False, True), (80, True, True)])
def test_blocks_filled_with_zeros_must_win_clearly(monkeypatch, cycles, filled, full):
    estimates = {"dense": 500, "unstructured": 100, "block 4x1": cycles}
    monkeypatch.setattr(choose_module, "estimate_formats", lambda *_: estimates)
    for layer, wins in ((layer_with(0.9), filled), (blocked((4, 1), 0.9), full)):
        assert (choose(Plan(), layer).format == "block 4x1") == wins
