"""The unstructured format over columns: exact round trips, and the order of work that the kernel relies on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sparsity.formats.grouped import check_product
from tests.sparsity.weights import KINDS, pruned
from tvm_sparse.sparsity.formats.columns import QUAD, UnstructuredColumns, split_rows

FINITE = tuple(kind for kind in KINDS if kind != "infinite")


@st.composite
def formats(draw) -> tuple[UnstructuredColumns, tuple[int, int, int]]:
    """A format with the shape of a weight that it takes."""
    groups = draw(st.sampled_from([1, 1, 1, 2, 3, 7]))
    per_group = draw(st.sampled_from([1, 2, 3, 5, 8, 13]))
    rows = groups * draw(st.sampled_from([1, 2, 3, 5, 7, 16]))
    taps = draw(st.integers(1, 4))
    positions = tuple(draw(st.permutations(range(0, 8 * taps, 8))))
    # Several groups share a block only where whole groups fit.
    block = draw(st.integers(per_group if groups > 1 else 1, 2 * per_group * groups))
    chunks = draw(st.integers(1, 5))
    bundle = draw(st.integers(1, 4))
    pairs = bundle % 2 == 0 and draw(st.booleans())
    return UnstructuredColumns(8 * taps, positions, block, groups, chunks, bundle, pairs), (rows, per_group, taps)


CASES = formats().flatmap(lambda case: st.tuples(st.just(case[0]), pruned(case[1])))
FINITE_CASES = formats().flatmap(lambda case: st.tuples(st.just(case[0]), pruned(case[1], FINITE)))


@given(CASES)
def test_round_trip(case):
    fmt, weight = case
    packed = fmt.pack(weight)
    np.testing.assert_array_equal(fmt.unpack(packed, weight.shape), weight)
    # Only bundles are padded, to their longest row and so that quads are aligned, and the loads of the last values.
    stored = len(packed["values"]) - 16
    assert len(packed["offsets"]) == stored + 16
    # Steps of the count within a block's bundles add up to its longest row at most; a short bundle repeats a row.
    padding = 2 * (fmt.bundle - 1) * weight[0].size * len(packed["block"])
    padding += 2 * (QUAD - 1) * packed["group"][:, 1].sum()
    assert (packed["group"][:, 2] % QUAD == 0).all()
    assert 0 <= stored - np.count_nonzero(weight) <= padding
    assert packed["values"].dtype == np.float32 and packed["offsets"].dtype == np.uint16


def multiply(fmt: UnstructuredColumns, packed: dict, x: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """The kernel's order of work on the buffer ``x [channels * channel_stride]``: blocks, tails, groups, rows."""
    y = np.full(len(bias), np.nan)
    for block, (channel, channels, first, _) in enumerate(packed["block"].tolist()):
        buffer = x[channel * fmt.channel_stride : (channel + channels) * fmt.channel_stride]
        for tail in range(QUAD):
            begin, end = packed["group_pointers"][block * QUAD + tail :][:2]
            for first_row, bundles, position, quads, shared in packed["group"][begin:end].tolist():
                for i in range(bundles):
                    rows = packed["rows"][first_row + i * fmt.bundle :][: fmt.bundle]
                    # A short bundle repeats a row: all starts are read before any sum is stored.
                    sums = np.array([bias[row] if first else y[row] for row in rows])
                    # The shared ones and the others begin at multiples of four.
                    for steps in ([1] * shared, [QUAD] * quads + [tail]):
                        position = -(-position // QUAD) * QUAD
                        for step in steps:
                            for r in range(fmt.bundle):
                                at = slice(position, position := position + step)
                                sums[r] += packed["values"][at].astype("float64") @ buffer[packed["offsets"][at]]
                    y[rows] = sums
    return y


@given(FINITE_CASES)
def test_product(case):
    fmt, weight = case
    check_product(fmt, fmt.pack(weight), weight, multiply)


@given(CASES)
def test_work_of_a_chunk(case):
    fmt, weight = case
    packed = fmt.pack(weight)
    pointers, groups = packed["group_pointers"], packed["group"]
    assert packed["block_pointers"][0] == 0 and packed["block_pointers"][-1] == len(packed["block"])
    assert pointers[-1] == len(groups) and len(pointers) == len(packed["block"]) * QUAD + 1
    # Rows lie in order of work: a kernel counts them to know which lines to prefetch.
    assert [first for first, *_ in groups.tolist()] == np.cumsum([0, *groups[:, 1] * fmt.bundle])[:-1].tolist()
    owners: list[set[int]] = []
    for begin, end in zip(packed["block_pointers"][:-1], packed["block_pointers"][1:], strict=True):
        starts, ends = [], []
        for block in range(begin, end):
            entries = groups[pointers[block * QUAD] : pointers[(block + 1) * QUAD]].tolist()
            bundles = [packed["rows"][first:][: n * fmt.bundle] for first, n, *_ in entries]
            listed = [int(r) for rows in bundles for r in rows]
            rows = list(dict.fromkeys(listed))
            # One bundle may repeat its last row.
            assert len(listed) == -(-len(rows) // fmt.bundle) * fmt.bundle
            starts += rows * int(packed["block"][block, 2])
            ends += rows * int(packed["block"][block, 3])
        # Every sum starts once and ends once, and no two chunks write one row.
        assert sorted(starts) == sorted(ends) == sorted(set(starts))
        owners.append(set(starts))
    assert sorted(row for chunk in owners for row in chunk) == list(range(len(weight)))


@pytest.mark.parametrize("bundle", [2, 4])
@pytest.mark.parametrize("groups", [1, 2])
def test_pairs_share_columns(bundle, groups):
    # Rows alike in pairs, far from each other, of different counts.
    rng = np.random.default_rng(0)
    half = rng.standard_normal((20, 40, 1)).astype("float32")
    half[np.arange(40) >= np.arange(20)[:, None] // 4 * 5 + 10] = 0
    weight = np.concatenate([half, half[::-1]])
    fmt = UnstructuredColumns(8, (0,), 40 * groups, groups, bundle=bundle, pairs=True)
    packed = fmt.pack(weight)
    np.testing.assert_array_equal(fmt.unpack(packed, weight.shape), weight)
    shared = (packed["group"][:, 1] * packed["group"][:, 4]).sum() * bundle
    # Rows of several conv groups in one block have no channel in common.
    assert shared == (np.count_nonzero(weight) if groups == 1 else 0)


@settings(max_examples=50)
@given(st.integers(1, 60), st.integers(1, 12), st.integers(1, 6))
def test_split_rows(groups, chunks, unit):
    parts = split_rows(groups * unit, chunks, unit)
    assert [row for part in parts for row in part] == list(range(groups * unit))
    assert all(len(part) for part in parts)
    for part in parts:
        whole = part.start % unit == 0 and part.stop % unit == 0
        assert whole or part.start // unit == (part.stop - 1) // unit
    if unit == 1 or groups >= chunks:
        assert len(parts) == min(chunks, groups)


def test_size():
    fmt = UnstructuredColumns(1, (0,), 4)
    packed = fmt.pack(np.ones((2, 4, 1), np.float32))
    tables = sum(packed[name].size for name in ("rows", "group", "group_pointers", "block", "block_pointers"))
    assert fmt.nbytes(packed) == (8 + 16) * 6 + 4 * tables


def test_offsets_must_fit_16_bits():
    UnstructuredColumns(256, (0, 255), 256)
    with pytest.raises(ValueError, match="even number of rows"):
        UnstructuredColumns(1, (0,), 4, bundle=3, pairs=True)
    with pytest.raises(ValueError, match="256 channels of 256 elements.*smaller block"):
        UnstructuredColumns(256, (0, 256), 256)


@pytest.mark.parametrize("sizes", [{"block": 0}, {"groups": 0}, {"chunks": 0}])
def test_sizes_must_be_positive(sizes):
    with pytest.raises(ValueError, match="at least 1"):
        UnstructuredColumns(1, (0,), **{"block": 1, **sizes})


def test_weights_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="does not fit"):
        UnstructuredColumns(1, (0,), 4).pack(np.zeros((2, 4, 2), np.float32))
    with pytest.raises(ValueError, match="does not fit"):
        UnstructuredColumns(1, (0,), 4, groups=2).pack(np.zeros((3, 4, 1), np.float32))
    with pytest.raises(ValueError, match="groups of 4 channels do not fit a block of 2"):
        UnstructuredColumns(1, (0,), 2, groups=2).pack(np.zeros((4, 4, 1), np.float32))
