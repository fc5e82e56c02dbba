"""Combined weights over columns: round trips, and the product in the kernel's order."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.sparsity.weights import KINDS, pruned
from tvm_sparse.sparsity.formats.toom_cook import axis_algorithm
from tvm_sparse.sparsity.formats.winograd import WinogradColumns

FINITE = tuple(kind for kind in KINDS if kind != "infinite")


@st.composite
def formats(draw) -> tuple[WinogradColumns, tuple[int, int, int, int]]:
    """A format with the shape of a weight that it takes."""
    axes, taps = [], []
    for _ in range(2):
        stride = draw(st.integers(1, 2))
        taps.append(draw(st.integers(stride, 5)))
        axes.append(axis_algorithm(draw(st.integers(1, 4)), taps[-1], stride))
    rows, channels = draw(st.sampled_from([1, 2, 5, 8, 13])), draw(st.sampled_from([1, 3, 4, 7]))
    fmt = WinogradColumns(*axes, draw(st.integers(1, channels)), draw(st.integers(1, 8)), draw(st.integers(1, 3)))
    return fmt, (rows, channels, *taps)


CASES = formats().flatmap(lambda case: st.tuples(st.just(case[0]), pruned(case[1], FINITE)))


@given(CASES)
def test_round_trip(case):
    fmt, weight = case
    packed = fmt.pack(weight)
    np.testing.assert_allclose(fmt.unpack(packed, weight.shape), weight, atol=1e-5 * max(1, np.abs(weight).max()))
    assert fmt.nbytes(packed) > 4 * weight.size and packed["values"].dtype == np.float32


@given(CASES, st.integers(0, 1 << 16))
def test_product(case, seed):
    """One square of outputs, by blocks, strips and points."""
    fmt, weight = case
    down, across = fmt.down, fmt.across
    packed, (rows, channels) = fmt.pack(weight), weight.shape[:2]
    x = np.random.default_rng(seed).standard_normal((channels, down.window, across.window))
    combined = np.einsum("py,cyx,qx->pqc", down.read, x, across.read)[tuple(np.transpose(fmt.order))]
    sums = np.zeros((rows, len(fmt.points) - 1))
    for (channel, count, _, _), (row, of_part, at) in zip(packed["block"], packed["part"], strict=True):
        for first in range(row, row + of_part, fmt.strip):
            size = len(fmt.order) * count * fmt.strip
            strip = packed["values"][at : at + size].reshape(len(fmt.order), count, fmt.strip).astype("float64")
            products = np.einsum("pc,pcm->mp", combined[:, channel : channel + count], strip)
            mine = products[: row + of_part - first]
            sums[first : first + len(mine)] += np.add.reduceat(mine, fmt.points[:-1], 1)
            at += size
    got = np.einsum("ip,mpq,jq->mij", down.combine, sums.reshape(rows, down.points, across.points), across.combine)
    want = np.zeros_like(got)
    for i, j in np.ndindex(*want.shape[1:]):
        seen = x[:, i * down.stride :, j * across.stride :][:, : down.taps, : across.taps]
        want[:, i, j] = np.einsum("ockl,ckl->o", weight.astype("float64"), seen)
    np.testing.assert_allclose(got, want, atol=2e-4 * max(1, np.abs(want).max()))
