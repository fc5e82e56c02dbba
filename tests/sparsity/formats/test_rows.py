"""Formats of linear layers on plain rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sparsity.weights import pruned
from tvm_sparse.sparsity.formats.rows import BitmaskRowsFormat, DenseStrips, SparseRowsFormat

SIZES = st.sampled_from([1, 2, 3, 5, 7, 8, 31, 64])
WEIGHTS = st.tuples(SIZES, SIZES).flatmap(pruned)


@given(WEIGHTS, st.sampled_from([1, 4, 32, 64]))
def test_dense_strips(weight, width):
    fmt = DenseStrips(width)
    packed = fmt.pack(weight)
    np.testing.assert_array_equal(fmt.unpack(packed, weight.shape), weight)
    strips = packed["values"].reshape(-1, weight.shape[1], width)
    row, column = len(weight) - 1, weight.shape[1] - 1
    assert strips[row // width, column, row % width] == weight[row, column]
    # Outputs that the last strip has beyond the weight's are zero.
    assert np.count_nonzero(strips) == np.count_nonzero(weight)


@given(WEIGHTS, st.sampled_from([1, 4, 16]))
def test_sparse_rows(weight, unit):
    fmt = SparseRowsFormat(unit)
    packed = fmt.pack(weight)
    np.testing.assert_array_equal(fmt.unpack(packed, weight.shape), weight)
    assert packed["columns"].dtype == np.uint16 and packed["values"].dtype == np.float32
    assert len(packed["pointers"]) == len(weight) + 1 and packed["pointers"][0] == 0
    for row, values in enumerate(weight):
        begin, end = packed["pointers"][row : row + 2].tolist()
        kept = np.flatnonzero(values)
        assert end - begin == -(-len(kept) // unit) * unit
        np.testing.assert_array_equal(packed["values"][begin:end][: len(kept)], values[kept])
        np.testing.assert_array_equal(packed["columns"][begin:end][: len(kept)], kept)
        # The padding reads an input that the row reads anyway: no other one may be infinite for it.
        assert (packed["values"][begin + len(kept) : end] == 0).all()
        assert (packed["columns"][begin + len(kept) : end] == kept[-1:]).all()
    assert len(packed["values"]) == len(packed["columns"]) == packed["pointers"][-1] + 16


def test_columns_must_fit_16_bits():
    weight = np.zeros((1, 1 << 16), np.float32)
    weight[0, -1] = 3
    packed = SparseRowsFormat().pack(weight)
    np.testing.assert_array_equal(SparseRowsFormat().unpack(packed, weight.shape), weight)
    with pytest.raises(ValueError, match="65537 columns do not fit 16-bit"):
        SparseRowsFormat().pack(np.zeros((1, (1 << 16) + 1), np.float32))


@given(st.tuples(SIZES, st.sampled_from([16, 32, 80])).flatmap(pruned), st.sampled_from([8, 16]))
def test_bitmask_rows(weight, width):
    fmt = BitmaskRowsFormat(width)
    packed = fmt.pack(weight)
    np.testing.assert_array_equal(fmt.unpack(packed, weight.shape), weight)
    assert packed["masks"].dtype == np.uint16 and len(packed["masks"]) == weight.size // width
    assert packed["pointers"].tolist() == [0, *np.cumsum(np.count_nonzero(weight, 1)).tolist()]
    assert len(packed["values"]) == np.count_nonzero(weight) + 16
    for mask, part in zip(packed["masks"].tolist(), weight.reshape(-1, width), strict=True):
        assert [mask >> i & 1 for i in range(width)] == (part != 0).astype(int).tolist()


def test_masks_must_cover_rows():
    with pytest.raises(ValueError, match="33 columns are no whole number of masks of 16"):
        BitmaskRowsFormat().pack(np.zeros((2, 33), np.float32))
