"""Fast convolutions along an axis, in float64 against the definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tvm_sparse.sparsity.formats.toom_cook import axis_algorithm, can_compute


@given(st.integers(1, 7), st.integers(1, 12), st.integers(1, 4), st.integers(0, 1 << 16))
def test_outputs_are_those_of_the_convolution(outputs, taps, stride, seed):
    assume(can_compute(outputs, taps, stride))
    axis = axis_algorithm(outputs, taps, stride)
    rng = np.random.default_rng(seed)
    w, x = rng.standard_normal(taps), rng.standard_normal((outputs - 1) * stride + taps)
    sums = np.zeros(axis.points)
    np.add.at(sums, list(axis.point), (axis.weights @ w) * (axis.read @ x))
    want = [w @ x[stride * i : stride * i + taps] for i in range(outputs)]
    np.testing.assert_allclose(axis.combine @ sums, want, atol=1e-11)
    assert axis.window == len(x) and list(axis.point) == sorted(axis.point)


@pytest.mark.parametrize(
    ("outputs", "taps", "stride", "products", "points"),
    [
        (1, 3, 1, 3, 1),  # tap by tap
        (2, 3, 1, 4, 4),
        (4, 3, 1, 6, 6),
        (2, 7, 2, 9, 5),  # phases of four and three taps
        (4, 7, 1, 13, 7),  # segments of four and three taps
        (2, 2, 2, 4, 2),  # nothing to gain
    ],
)
def test_products_are_few(outputs, taps, stride, products, points):
    axis = axis_algorithm(outputs, taps, stride)
    assert (axis.products, axis.points) == (products, points)
    assert products <= outputs * taps


def test_errors_of_float32_are_small():
    rng = np.random.default_rng(0)
    for outputs, taps in ((2, 3), (4, 3), (4, 4)):
        axis = axis_algorithm(outputs, taps, 1)
        w = rng.standard_normal((64, taps)).astype("float32")
        x = rng.standard_normal((64, axis.window)).astype("float32")
        combined = (w @ axis.weights.T).astype("float32") * (x @ axis.read.T.astype("float32"))
        got = axis.combine.astype("float32") @ combined.sum(0, dtype="float32")
        want = [(w.astype("float64") * x[:, i : i + taps]).sum() for i in range(outputs)]
        np.testing.assert_allclose(got, want, atol=2e-5 * np.sqrt(64 * taps))


@pytest.mark.parametrize(("outputs", "taps", "stride"), [(2, 1, 2), (8, 3, 1)])
def test_what_has_no_algorithm_is_refused(outputs, taps, stride):
    assert not can_compute(outputs, taps, stride)
    with pytest.raises(ValueError, match=f"{outputs} outputs of {taps} taps with a stride of {stride}"):
        axis_algorithm(outputs, taps, stride)
