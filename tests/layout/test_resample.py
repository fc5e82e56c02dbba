"""Positions of resized pixels against formulas written out, and whole resizes against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_sparse.layout.resample import linear, nearest, source_positions

SIZES = st.integers(1, 40)
MODES = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]


def onnx_position(i: int, size_in: int, size_out: int, mode: str, scale: float) -> float:
    """One position by ONNX's definition of Resize; `scale` is its x_scale, output pixels per input pixel."""
    if mode == "half_pixel":
        return (i + 0.5) / scale - 0.5
    if mode == "pytorch_half_pixel":
        return (i + 0.5) / scale - 0.5 if size_out > 1 else 0.0
    if mode == "align_corners":
        return 0.0 if size_out == 1 else i * (size_in - 1) / (size_out - 1)
    return i / scale


@given(SIZES, SIZES, st.sampled_from(MODES), st.none() | st.floats(0.1, 10))
def test_positions(size_in, size_out, mode, scale):
    ratio = size_in / size_out if scale is None else scale
    expected = [onnx_position(i, size_in, size_out, mode, 1 / ratio) for i in range(size_out)]
    np.testing.assert_allclose(source_positions(size_in, size_out, mode, scale), expected, rtol=1e-12, atol=1e-9)


@given(SIZES, st.sampled_from(MODES))
def test_same_size_is_the_identity(size, mode):
    positions = source_positions(size, size, mode)
    np.testing.assert_allclose(positions, np.arange(size), atol=1e-12)
    for rounding in ("round", "round_prefer_floor", "round_prefer_ceil", "floor", "ceil", ""):
        if mode == "asymmetric":  # exact, so that no rounding moves a pixel
            assert nearest(positions, size, rounding).tolist() == list(range(size))


@pytest.mark.parametrize(
    ("rounding", "expected"),
    [
        ("round_prefer_floor", [0, 0, 1, 1, 2, 3]),
        ("", [0, 0, 1, 1, 2, 3]),
        ("round_prefer_ceil", [0, 1, 1, 2, 3, 3]),
        ("floor", [0, 0, 0, 1, 2, 3]),
        ("ceil", [0, 1, 1, 2, 3, 3]),
        ("round", [0, 0, 1, 2, 2, 3]),
    ],
)
def test_rounding(rounding, expected):
    # Halves, what lies outside, and one that any rounding but ceil and floor rounds up.
    positions = np.array([-0.7, 0.5, 0.75, 1.5, 2.5, 9.0])
    got = nearest(positions, 4, rounding)
    assert got.dtype == np.int64 and got.tolist() == expected


@given(SIZES, st.integers(1, 5))
def test_nearest_upsampling_repeats(size, factor):
    x = np.random.default_rng(0).standard_normal(size)
    for mode, rounding in (("half_pixel", "round_prefer_floor"), ("asymmetric", "floor")):
        at = nearest(source_positions(size, size * factor, mode), size, rounding)
        np.testing.assert_array_equal(x[at], np.repeat(x, factor))


@given(SIZES, SIZES, st.sampled_from(MODES))
def test_linear_is_interpolation(size_in, size_out, mode):
    x = np.random.default_rng(0).standard_normal(size_in)
    positions = source_positions(size_in, size_out, mode)
    pixels, weights = linear(positions, size_in)
    assert pixels.shape == weights.shape == (2, size_out)
    assert pixels.min() >= 0 and pixels.max() < size_in
    np.testing.assert_allclose(weights.sum(0), 1)
    # numpy holds the first and last value outside of the range, as a resize does.
    expected = np.interp(positions, np.arange(size_in), x)
    np.testing.assert_allclose((x[pixels] * weights).sum(0), expected, atol=1e-12)


def test_corners_stay_corners():
    positions = source_positions(5, 17, "align_corners")
    assert positions[0] == 0 and positions[-1] == 4


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="transformation 'tf_crop_and_resize'"):
        source_positions(4, 4, "tf_crop_and_resize")
    with pytest.raises(ValueError, match="rounding 'up'"):
        nearest(np.zeros(1), 4, "up")
