"""Our own converters, against ONNX Runtime, where the node tests of ONNX do not look."""

import numpy as np
import pytest
from onnx import helper
from tvm import relax

from tests.frontend.helpers import evaluate, expect_like_onnxruntime, model_of
from tvm_sparse.errors import ImportModelError
from tvm_sparse.frontend import import_model
from tvm_sparse.frontend.onnx_ops.registry import converters, register

RNG = np.random.default_rng(0)


def _image(*shape):
    return RNG.standard_normal(shape).astype("float32")


def _operators(model):
    found = []
    relax.analysis.post_order_visit(
        import_model(model).module["main"].body,
        lambda e: found.append(e.op.name) if isinstance(e, relax.Call) else None,
    )
    return found


def test_an_operator_has_one_converter():
    assert "Clip" in converters()
    with pytest.raises(ValueError, match="two converters for ONNX operator Clip"):
        register("Clip")(lambda *args: None)


@pytest.mark.parametrize(
    ("mode", "coordinates"),
    [
        ("linear", "half_pixel"),
        ("linear", "align_corners"),
        ("nearest", "asymmetric"),
        ("linear", "asymmetric"),
    ],
)
def test_common_upsampling_is_one_operator(mode, coordinates):
    attrs = {"mode": mode, "coordinate_transformation_mode": coordinates}
    if mode == "nearest":
        attrs["nearest_mode"] = "floor"
    node = helper.make_node("Resize", ["x", "", "scales"], ["y"], **attrs)
    model = model_of([node], {"x": [1, 3, 5, 4]}, ["y"], {"scales": np.array([1, 1, 2, 2], "float32")})
    assert _operators(model) == ["relax.image.resize2d"]
    expect_like_onnxruntime(model, {"x": _image(1, 3, 5, 4)})


@pytest.mark.parametrize(
    ("shape", "mode"),
    [([2, 7, 5, 3], mode) for mode in ("linear", "cubic", "nearest")] + [([1, 3, 9], "linear")],
)
def test_resize_of_other_axes_and_ranks(shape, mode):
    scales = np.ones(len(shape), "float32")
    scales[-1] = 1.7
    node = helper.make_node("Resize", ["x", "", "scales"], ["y"], mode=mode)
    expect_like_onnxruntime(
        model_of([node], {"x": shape}, ["y"], {"scales": scales}), {"x": _image(*shape)}, 1e-4
    )


def test_relu6_is_a_clip():
    bounds = {"low": np.float32(0), "high": np.float32(6)}
    model = model_of([helper.make_node("Clip", ["x", "low", "high"], ["y"])], {"x": [9]}, ["y"], bounds)
    assert _operators(model) == ["relax.clip"]
    expect_like_onnxruntime(model, {"x": np.linspace(-8, 8, 9, dtype="float32")})


@pytest.mark.parametrize("exponent", [2.0, 3.0, 0.5, 1.5, -1.0])
def test_constant_powers(exponent):
    model = model_of(
        [helper.make_node("Pow", ["x", "e"], ["y"])], {"x": [8]}, ["y"], {"e": np.float32(exponent)}
    )
    expect_like_onnxruntime(model, {"x": np.abs(_image(8)) + 0.1})


def test_gather_with_indices_computed_at_run_time_never_reads_outside():
    nodes = [helper.make_node("Cast", ["i"], ["n"], to=7), helper.make_node("Gather", ["w", "n"], ["y"])]
    model = model_of(nodes, {"i": [4]}, ["y"], {"w": np.arange(5, dtype="float32")})
    got = evaluate(model, {"i": np.array([0, -1, 4, 1e6], "float32")})["y"]
    np.testing.assert_array_equal(got, [0, 4, 4, 4])


@pytest.mark.parametrize(
    ("indices", "operator"),
    [
        (1, "relax.strided_slice"),
        (-1, "relax.strided_slice"),
        ([2], "relax.strided_slice"),
        ([0, 2, 4], "relax.strided_slice"),
        ([3, 0], "relax.take"),
        ([1, 1], "relax.take"),
        ([-1, -3], "relax.take"),
        ([[0, 1], [2, 3]], "relax.take"),
    ],
)
def test_gather_with_known_indices(indices, operator):
    nodes = [helper.make_node("Gather", ["x", "i"], ["y"], axis=-2)]
    model = model_of(nodes, {"x": [3, 5, 4]}, ["y"], {"i": np.array(indices)})
    assert operator in _operators(model)
    expect_like_onnxruntime(model, {"x": _image(3, 5, 4)})


def test_gather_with_a_constant_index_out_of_range_is_refused():
    nodes = [helper.make_node("Gather", ["x", "i"], ["y"], name="pick")]
    with pytest.raises(ImportModelError, match="pick.*outside"):
        import_model(model_of(nodes, {"x": [3]}, ["y"], {"i": np.array([1, 3])}))


def test_layer_norm_with_its_statistics():
    nodes = [helper.make_node("LayerNormalization", ["x", "s"], ["y", "m", "d"], axis=1)]
    model = model_of(nodes, {"x": [2, 3, 4]}, ["y", "m", "d"], {"s": _image(3, 4)})
    expect_like_onnxruntime(model, {"x": _image(2, 3, 4)}, 1e-4)


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "NOTSET"])
@pytest.mark.parametrize("size", [[12, 11], [13, 12], [14, 14]])
def test_transposed_convolution_by_output_shape(auto_pad, size):
    node = helper.make_node(
        "ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], output_shape=size, auto_pad=auto_pad
    )
    model = model_of([node], {"x": [1, 2, 6, 6]}, ["y"], {"w": _image(2, 3, 3, 3)})
    expect_like_onnxruntime(model, {"x": _image(1, 2, 6, 6)}, 1e-4)


def test_quantised_convolution_with_a_scale_per_channel():
    weights = {
        "xs": np.float32(0.05),
        "xz": np.uint8(120),
        # Seven bits: with eight, ONNX Runtime's kernels for AVX2 saturate sums of two products.
        "w": RNG.integers(-64, 64, (4, 2, 3, 3)).astype("int8"),
        "ws": (np.arange(4, dtype="float32") + 1) / 100,
        "wz": np.zeros(4, "int8"),
        "ys": np.float32(0.3),
        "yz": np.uint8(100),
        "b": RNG.integers(-500, 500, 4).astype("int32"),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["q"]),
        helper.make_node(
            "QLinearConv", ["q", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"], ["c"], pads=[1] * 4
        ),
        helper.make_node("DequantizeLinear", ["c", "ys", "yz"], ["y"]),
    ]
    # Halves may round either way, by one step.
    model = model_of(nodes, {"x": [1, 2, 6, 6]}, ["y"], weights)
    expect_like_onnxruntime(model, {"x": 2 * _image(1, 2, 6, 6)}, 0.31)


@pytest.mark.parametrize("mode", ["test", "training"])
def test_dropout_does_nothing_and_training_is_refused(mode):
    nodes = [helper.make_node("Dropout", ["x", "ratio", "mode"], ["y"], name="drop")]
    weights = {"ratio": np.float32(0.3), "mode": np.array(mode == "training")}
    model = model_of(nodes, {"x": [3]}, ["y"], weights)
    if mode == "training":
        with pytest.raises(ImportModelError, match="drop.*training"):
            import_model(model)
    else:
        assert _operators(model) == []


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
@pytest.mark.parametrize(
    "amounts", [[0, 0, 1, 2, 0, 0, 2, 1], [0, 1, 0, 0, 0, 0, 0, 0], [0, 0, -1, 2, 0, 0, 0, -2]]
)
def test_pad(mode, amounts):
    weights = {"p": np.array(amounts), "v": np.float32(1.5)}
    names = ["x", "p", "v"] if mode == "constant" else ["x", "p"]
    model = model_of([helper.make_node("Pad", names, ["y"], mode=mode)], {"x": [1, 2, 5, 5]}, ["y"], weights)
    assert "relax.nn.pad" in _operators(model)
    expect_like_onnxruntime(model, {"x": _image(1, 2, 5, 5)})


def test_pad_of_integers_and_by_axes():
    weights = {"p": np.array([2, 1]), "v": np.array(7), "a": np.array([-1])}
    nodes = [
        helper.make_node("Cast", ["x"], ["i"], to=7),
        helper.make_node("Pad", ["i", "p", "v", "a"], ["j"]),
        helper.make_node("Cast", ["j"], ["y"], to=1),
    ]
    model = model_of(nodes, {"x": [2, 3]}, ["y"], weights, opset=18)
    expect_like_onnxruntime(model, {"x": 10 * _image(2, 3)})


@pytest.mark.parametrize("direction", ["LEFT", "RIGHT"])
@pytest.mark.parametrize("dtype", ["int8", "uint32", "int64"])
def test_shifts_by_constants_within_and_beyond_the_width(direction, dtype):
    """Counts beyond the width lose every bit; ONNX Runtime takes them modulo the width."""
    bits = np.iinfo(dtype).bits
    x = np.array([100, 3, 1, 0, 77], dtype)
    if np.iinfo(dtype).min < 0:
        x = np.concatenate([x, -x]).astype(dtype)
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    for count in (0, 3, bits - 1, bits, 100):
        model = model_of(
            [helper.make_node("BitShift", ["x", "n"], ["y"], direction=direction)],
            {"x": list(x.shape)},
            ["y"],
            {"n": np.array([count], dtype)},
            dtype=element,
        )
        want = (int(value) << count if direction == "LEFT" else int(value) >> count for value in x)
        wrapped = np.array([value & ((1 << bits) - 1) for value in want], "uint64").astype(dtype)
        np.testing.assert_array_equal(evaluate(model, {"x": x})["y"], wrapped)
