"""Pairs of rows that share columns, and counts rounded to few levels."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_sparse.sparsity.formats.row_pairs import pair_rows, round_down


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 127, 128, 129, 300])
@pytest.mark.parametrize("density", [0.0, 0.1, 1.0])
def test_every_row_has_one_partner(rows, density):
    nonzero = np.random.default_rng(rows).random((rows, 50)) < density
    nonzero = nonzero[np.argsort(nonzero.sum(1), kind="stable")]
    pairs = pair_rows(nonzero)
    assert pairs.shape == ((rows + 1) // 2, 2)
    listed = pairs.reshape(-1).tolist()
    assert set(listed) == set(range(rows)) and len(listed) == rows + rows % 2
    # One row of an odd number is left over.
    assert (pairs[:, 0] == pairs[:, 1]).sum() == rows % 2


def test_twins_are_found():
    rng = np.random.default_rng(0)
    one = rng.random((60, 80)) < 0.2
    rows = np.concatenate([one, one])[rng.permutation(120)]
    rows = rows[np.argsort(rows.sum(1), kind="stable")]
    for a, b in pair_rows(rows).tolist():
        np.testing.assert_array_equal(rows[a], rows[b])


def test_pairs_share_more_than_neighbours():
    rng = np.random.default_rng(0)
    rows = rng.random((256, 100)) < 0.2
    rows = rows[np.argsort(rows.sum(1), kind="stable")]
    a, b = pair_rows(rows).T
    assert (rows[a] & rows[b]).sum() > 1.7 * (rows[::2] & rows[1::2]).sum()


def test_unlike_counts_are_no_pair():
    # Sharing a column is worth less than the zeros that fill up the shorter row.
    nonzero = np.zeros((4, 12), bool)
    nonzero[0, :2] = nonzero[1, 1:3] = True
    nonzero[2, :10] = nonzero[3, 2:] = True
    assert pair_rows(nonzero).tolist() == [[0, 1], [2, 3]]


@given(st.lists(st.integers(0, 6), max_size=7), st.sampled_from([0.5, 1, 3, 10]))
def test_rounding_down_costs_least(values, cost):
    values = np.array(values, np.int64)
    rounded = round_down(values, cost)
    assert (rounded <= values).all() and set(rounded.tolist()) <= set(values.tolist())

    def total(levels: set[int]) -> float:
        below = [max((level for level in levels if level <= value), default=None) for value in values.tolist()]
        if None in below:
            return float("inf")
        return sum(value - level for value, level in zip(values.tolist(), below, strict=True)) + cost * len(levels)

    known = sorted(set(values.tolist()))
    best = min(total(set(s)) for n in range(len(known) + 1) for s in itertools.combinations(known, n))
    assert total(set(rounded.tolist())) == pytest.approx(best)
