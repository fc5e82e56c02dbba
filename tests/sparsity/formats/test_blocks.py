"""Blocks over columns: exact round trips, and the order of work that the kernel relies on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sparsity.formats.grouped import check_product
from tests.sparsity.weights import KINDS, pruned
from tvm_sparse.sparsity.formats.blocks import BlockColumns, count_blocks

FINITE = tuple(kind for kind in KINDS if kind != "infinite")


@st.composite
def formats(draw) -> tuple[BlockColumns, tuple[int, int, int]]:
    """A format with the shape of a weight that it takes."""
    shape = draw(st.sampled_from([(4, 1), (8, 1), (16, 1), (1, 4), (1, 1), (1, 3)]))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    per_group = draw(st.sampled_from([1, 2, 3, 5, 8, 13])) * shape[1]
    rows = groups * draw(st.sampled_from([1, 2, 3, 5, 7, 17, 32]))
    taps = draw(st.integers(1, 4))
    positions = tuple(draw(st.permutations(range(0, 8 * taps, 8))))
    block = draw(st.integers(1, per_group // shape[1])) * shape[1]
    return BlockColumns(shape, 8 * taps, positions, block, groups, draw(st.integers(1, 5))), (rows, per_group, taps)


CASES = formats().flatmap(lambda case: st.tuples(st.just(case[0]), pruned(case[1])))
FINITE_CASES = formats().flatmap(lambda case: st.tuples(st.just(case[0]), pruned(case[1], FINITE)))


@given(CASES)
def test_round_trip(case):
    fmt, weight = case
    packed = fmt.pack(weight)
    np.testing.assert_array_equal(fmt.unpack(packed, weight.shape), weight)
    assert packed["values"].dtype == np.float32 and packed["offsets"].dtype == np.uint16
    # Blocks without any nonzero are not stored.
    counted = fmt.chunks == fmt.groups == 1
    if counted:
        assert len(packed["offsets"]) == count_blocks(weight, fmt.shape) + 16


def multiply(fmt: BlockColumns, packed: dict, x: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """The kernel's order of work on the buffer ``x [channels * channel_stride]``: blocks, sizes, groups, strips."""
    y = np.full(len(bias), np.nan)
    width, sizes = fmt.shape[1], fmt.sizes
    for block, (channel, channels, first, _) in enumerate(packed["block"].tolist()):
        buffer = x[channel * fmt.channel_stride : (channel + channels) * fmt.channel_stride]
        for number, size in enumerate(sizes):
            begin, end = packed["group_pointers"][block * len(sizes) + number :][:2]
            for _, strips, offset, value, count, first_row in packed["group"][begin:end].tolist():
                for i in range(strips):
                    rows = packed["rows"][first_row + i * size :][:size]
                    at = packed["offsets"][offset + i * count : offset + (i + 1) * count].astype(int)
                    inputs = buffer[at[:, None] + np.arange(width) * fmt.channel_stride].reshape(-1)
                    weights = packed["values"][value + i * count * size * width :][: count * size * width]
                    total = inputs @ weights.reshape(-1, size).astype("float64")
                    y[rows] = total + (bias[rows] if first else y[rows])
    return y


@given(FINITE_CASES)
def test_product(case):
    fmt, weight = case
    check_product(fmt, fmt.pack(weight), weight, multiply)


@given(CASES)
def test_strips_are_sorted_by_count(case):
    fmt, weight = case
    packed = fmt.pack(weight)
    pointers, group = packed["group_pointers"], packed["group"]
    assert len(pointers) == len(packed["block"]) * len(fmt.sizes) + 1 and pointers[-1] == len(group)
    assert group[:, 0].tolist() == np.cumsum([0, *group[:, 1]])[:-1].tolist()
    for begin, end in zip(pointers[:-1], pointers[1:], strict=True):
        counts = group[begin:end, 4].tolist()
        assert counts == sorted(set(counts))


def test_blocks_of_a_weight_are_counted():
    weight = np.zeros((11, 8, 1, 1), np.float32)
    weight[0, 0] = weight[3, 0] = weight[5, 7] = weight[8, 2] = weight[10, 2] = 1
    assert count_blocks(weight, (4, 1)) == 4 and count_blocks(weight, (8, 1)) == 4
    assert count_blocks(weight, (16, 1)) == 4 and count_blocks(weight, (1, 4)) == 5
    assert count_blocks(weight, (1, 1)) == 5


def test_size():
    fmt = BlockColumns((4, 1), 1, (0,), 4)
    packed = fmt.pack(np.ones((4, 4, 1), np.float32))
    tables = sum(packed[name].size for name in ("rows", "group", "group_pointers", "block", "block_pointers"))
    assert fmt.nbytes(packed) == (16 + 16) * 4 + (4 + 16) * 2 + 4 * tables


@pytest.mark.parametrize("shape", [(3, 1), (0, 1), (2, 2), (4, 4), (1, 0)])
def test_shapes_that_no_kernel_has(shape):
    with pytest.raises(ValueError, match="Rx1 or 1xC"):
        BlockColumns(shape, 1, (0,), 4)


def test_errors():
    with pytest.raises(ValueError, match="at least 1"):
        BlockColumns((4, 1), 1, (0,), 1, chunks=0)
    with pytest.raises(ValueError, match="6 channels cut blocks of 4"):
        BlockColumns((1, 4), 1, (0,), 6)
    with pytest.raises(ValueError, match="smaller block"):
        BlockColumns((4, 1), 256, (0, 256), 256)
    with pytest.raises(ValueError, match="does not fit"):
        BlockColumns((4, 1), 1, (0,), 4).pack(np.zeros((2, 4, 2), np.float32))
    with pytest.raises(ValueError, match="6 input channels are no whole number of blocks of 4"):
        BlockColumns((1, 4), 1, (0,), 4).pack(np.zeros((2, 6, 1), np.float32))
