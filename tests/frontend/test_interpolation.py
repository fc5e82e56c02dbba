"""Interpolation along an axis against ONNX's reference implementation, over random settings."""

import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings
from onnx import helper
from onnx.reference import ReferenceEvaluator

from tests.frontend.helpers import model_of
from tvm_sparse.frontend.onnx_ops.interpolation import AxisResize

COORDINATES = ["half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric"]


@st.composite
def resizes(draw):
    size_in, size_out = draw(st.integers(1, 9)), draw(st.integers(1, 20))
    mode = draw(st.sampled_from(["nearest", "linear", "cubic"]))
    return AxisResize(
        size_in,
        size_out,
        size_out / size_in,
        mode,
        draw(st.sampled_from(COORDINATES)),
        draw(st.sampled_from(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])),
        exclude_outside=mode == "cubic" and draw(st.booleans()),
        antialias=mode != "nearest" and draw(st.booleans()),
    )


def _apply(resize, x):
    indices, weights = resize.taps()
    assert indices.min() >= 0 and indices.max() < resize.size_in
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    return (x[indices] * weights).sum(axis=1)


@given(resizes())
@settings(max_examples=150, deadline=None)
def test_like_the_reference(resize):
    x = np.random.default_rng(0).standard_normal(resize.size_in).astype("float32")
    node = helper.make_node(
        "Resize",
        ["x", "", "", "sizes"],
        ["y"],
        mode=resize.mode,
        coordinate_transformation_mode=resize.coordinates,
        nearest_mode=resize.rounding,
        exclude_outside=int(resize.exclude_outside),
        antialias=int(resize.antialias),
    )
    model = model_of([node], {"x": [resize.size_in]}, ["y"], {"sizes": np.array([resize.size_out])}, opset=19)
    want = ReferenceEvaluator(model).run(None, {"x": x})[0]
    sure = np.ones(resize.size_out, dtype=bool)
    if resize.mode == "nearest":
        # At whole and half positions the reference goes by its rounding errors; ONNX's node tests have ties.
        doubled = 2 * resize.source()
        sure = np.abs(doubled - np.round(doubled)) > 1e-6
    np.testing.assert_allclose(_apply(resize, x)[sure], want[sure], rtol=1e-4, atol=1e-5)


def test_scales_that_give_no_whole_size_keep_their_fraction():
    # floor(5 * 0.7) = 3, but coordinates step by 1 / 0.7, not by 5 / 3.
    np.testing.assert_allclose(AxisResize(5, 3, 0.7, "linear", "asymmetric").source(), np.arange(3) / 0.7)
