"""Dense strips over columns: exact round trips, and the product in the kernel's order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sparsity.formats.grouped import check_product
from tests.sparsity.weights import KINDS, pruned
from tvm_sparse.sparsity.formats.dense import DenseColumns

FINITE = tuple(kind for kind in KINDS if kind != "infinite")


@st.composite
def formats(draw) -> tuple[DenseColumns, tuple[int, int, int]]:
    """A format with the shape of a weight that it takes."""
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    per_group = draw(st.sampled_from([1, 2, 3, 5, 8, 13]))
    rows = groups * draw(st.sampled_from([1, 2, 3, 5, 7, 17]))
    taps = draw(st.integers(1, 4))
    positions = tuple(draw(st.permutations(range(0, 8 * taps, 8))))
    sizes = draw(st.sampled_from([(1,), (4, 2, 1), (6, 4, 2, 1)]))
    block = draw(st.integers(1, per_group))
    return DenseColumns(8 * taps, positions, block, sizes, groups, draw(st.integers(1, 5))), (rows, per_group, taps)


CASES = formats().flatmap(lambda case: st.tuples(st.just(case[0]), pruned(case[1])))
FINITE_CASES = formats().flatmap(lambda case: st.tuples(st.just(case[0]), pruned(case[1], FINITE)))


@given(CASES)
def test_round_trip(case):
    fmt, weight = case
    packed = fmt.pack(weight)
    np.testing.assert_array_equal(fmt.unpack(packed, weight.shape), weight)
    assert len(packed["values"]) == weight.size + 16 and packed["values"].dtype == np.float32


def multiply(fmt: DenseColumns, packed: dict, x: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """The kernel's order of work on the buffer ``x [channels * channel_stride]``: blocks, strip sizes, strips."""
    y = np.full(len(bias), np.nan)
    for block, (channel, _, first, _) in enumerate(packed["block"].tolist()):
        depth = int(packed["depth"][block])
        inputs = x[channel * fmt.channel_stride :][packed["offsets"][:depth]]
        for index, size in enumerate(fmt.row_sizes):
            begin, end = packed["strip_pointers"][block * len(fmt.row_sizes) + index :][:2]
            for row, position in packed["strip"][begin:end].tolist():
                tile = packed["values"][position : position + depth * size].reshape(depth, size)
                rows = slice(row, row + size)
                y[rows] = inputs @ tile.astype("float64") + (bias[rows] if first else y[rows])
    return y


@given(FINITE_CASES)
def test_product(case):
    fmt, weight = case
    packed = fmt.pack(weight)
    check_product(fmt, packed, weight, multiply)
    # Sums start and end where the group's channels do.
    for channel, channels, first, last in packed["block"].tolist():
        start = channel % weight.shape[1]
        assert (first, last) == (start == 0, start + channels == weight.shape[1])


def test_largest_strips_come_first():
    packed = DenseColumns(1, (0,), 3, (4, 2, 1)).pack(np.ones((7, 3, 1), np.float32))
    assert packed["strip"].tolist() == [[0, 0], [4, 12], [6, 18]]
    assert packed["strip_pointers"].tolist() == [0, 1, 2, 3]


def test_size():
    fmt = DenseColumns(1, (0,), 4, (1,))
    packed = fmt.pack(np.ones((2, 4, 1), np.float32))
    tables = sum(packed[name].size for name in ("strip", "strip_pointers", "depth", "block", "block_pointers"))
    assert fmt.nbytes(packed) == (8 + 16) * 4 + (4 + 16) * 2 + 4 * tables


@pytest.mark.parametrize("sizes", [(4, 2), (1, 2), (2, 4, 1), (2, 2, 1)])
def test_strips_must_fall_to_one_row(sizes):
    with pytest.raises(ValueError, match="fall to 1"):
        DenseColumns(1, (0,), 1, sizes)


def test_offsets_must_fit_16_bits():
    DenseColumns(256, (255,), 256, (1,))
    with pytest.raises(ValueError, match="256 channels of 256 elements do not fit 16 bits"):
        DenseColumns(256, (256,), 256, (1,))
