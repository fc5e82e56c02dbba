"""Orders of rows: permutations that bring equal supports together, and none without gain."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sparsity.weights import pruned
from tvm_sparse.sparsity.formats.blocks import count_blocks
from tvm_sparse.sparsity.row_order import order_rows


@given(
    st.sampled_from([(12, 5, 1), (24, 3, 2), (7, 4, 1), (1, 1, 1)]).flatmap(pruned),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from([1, 2, 3]),
)
def test_orders_are_permutations_within_groups(weight, size, groups):
    groups = groups if len(weight) % groups == 0 else 1
    order = order_rows(weight, size, groups)
    per_group = len(weight) // groups
    for group in range(groups):
        rows = range(group * per_group, (group + 1) * per_group)
        assert sorted(order[rows.start : rows.stop].tolist()) == list(rows)


def blocks(rows: int, size: int, zeros: float = 0.8, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.random((rows // size, 64, 1)) >= zeros).repeat(size, 0) * rng.uniform(0.5, 1, (rows, 64, 1))


@pytest.mark.parametrize("size", [2, 4, 8, 16])
@pytest.mark.parametrize("seed", range(3))
def test_permuted_blocks_are_found(size, seed):
    weight = blocks(64, size)
    assert order_rows(weight, size).tolist() == list(range(64))
    mixed = weight[np.random.default_rng(seed).permutation(64)]
    assert count_blocks(mixed, (size, 1)) == count_blocks(weight, (size, 1)) == np.count_nonzero(weight) // size


def test_rows_that_fill_no_block_come_last():
    kinds = np.array([0, 1, 0, 2, 1, 0, 0, 0])
    assert order_rows(np.eye(3)[kinds], 4).tolist() == [0, 2, 5, 6, 1, 3, 4, 7]
    assert order_rows(np.eye(3)[kinds], 2).tolist() == [0, 2, 5, 6, 1, 4, 3, 7]


def test_scattered_zeros_stay_as_they_are():
    weight = (np.random.default_rng(0).random((64, 64)) < 0.3).astype(np.float32)
    assert order_rows(weight, 4).tolist() == list(range(64))
    assert order_rows(np.zeros((8, 4)), 4).tolist() == list(range(8))
