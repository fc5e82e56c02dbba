"""Choosing stages: the cheapest of all sequences of group sizes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tvm_sparse.transform.batch.stages import Stage, choose_stages, group_sizes


def brute_force(costs, sizes, crossing):
    """Cost of the cheapest sequence, tried one by one."""
    best = float("inf")
    for path in itertools.product(range(len(sizes)), repeat=len(costs)):
        cost = sum(costs[place][size] or 0 for place, size in enumerate(path))
        if any(costs[place][size] is None for place, size in enumerate(path)):
            continue
        cost += sum(crossing(place) for place in range(1, len(path)) if path[place] != path[place - 1])
        best = min(best, cost + (crossing(len(costs)) if path[-1] != len(sizes) - 1 else 0))
    return best


def cost_of(stages, costs, sizes, crossing):
    total = sum(costs[place][sizes.index(s.group)] for s in stages for place in range(s.start, s.stop))
    total += sum(crossing(stage.start) for stage in stages[1:])
    return total + (crossing(len(costs)) if stages[-1].group != sizes[-1] else 0)


@pytest.mark.parametrize("seed", range(30))
def test_against_all_sequences(seed):
    rng = np.random.default_rng(seed)
    sizes = [1, 2, 6]
    costs = [[*(float(c) if rng.random() < 0.8 else None for c in rng.integers(1, 20, 2)), 15.0] for _ in range(6)]
    change = [float(c) for c in rng.integers(0, 12, 7)]
    stages, gain = choose_stages(costs, sizes, lambda place: change[place])
    assert [s.start for s in stages] == [0, *(s.stop for s in stages[:-1])] and stages[-1].stop == 6
    cheapest = brute_force(costs, sizes, lambda place: change[place])
    assert cost_of(stages, costs, sizes, lambda place: change[place]) == pytest.approx(cheapest)
    assert gain == pytest.approx(90 - cheapest)


def test_small_gains_are_none():
    assert choose_stages([[99.0, 100.0]], [1, 4], lambda _: 0.0) == ([Stage(0, 1, 4)], 0.0)


def test_values_that_must_not_cross():
    costs = [[1.0, 100.0], [None, 1.0]]
    assert choose_stages(costs, [1, 4], lambda place: float("inf") if place == 1 else 0.0)[0] == [Stage(0, 2, 4)]


def test_nothing_to_run():
    assert choose_stages([], [1, 4], lambda _: 0.0) == ([], 0.0)


def test_sizes_divide_the_batch():
    assert group_sizes(6) == [1, 2, 3, 6]
    assert group_sizes(7) == [1, 7]
    # No more than 64 groups.
    assert group_sizes(256)[0] == 4
