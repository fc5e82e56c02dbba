"""import_model: formats, names, shapes, and errors that a user can act on."""

import numpy as np
import onnx
import pytest
import tvm
from onnx import helper
from tvm import relax

from tests.frontend.helpers import evaluate, model_of, small_model
from tvm_sparse.errors import ImportModelError, TvmSparseError
from tvm_sparse.frontend import import_model
from tvm_sparse.runtime.spec import TensorSpec


def test_names_shapes_and_bound_weights():
    imported = import_model(small_model(), {"x": [4, 3]})
    assert imported.inputs == (TensorSpec("x", (4, 3), "float32"),)
    assert imported.outputs == (TensorSpec("y", (4, 2), "float32"),)
    main = imported.module["main"]
    assert len(main.params) == 1
    shapes = []
    relax.analysis.post_order_visit(
        main.body, lambda e: shapes.append(e.value.shape) if isinstance(e, tvm.ir.GenericConst) else None
    )
    assert shapes == [(3, 2)]


def test_result():
    x = np.array([[1, 2, 3]], dtype="float32")
    got = evaluate(small_model(), {"x": x}, {"x": [1, 3]})
    np.testing.assert_allclose(got["y"], [[4, 10]])


def test_names_that_are_not_identifiers_and_output_order():
    nodes = [
        helper.make_node("Neg", ["in.put:0"], ["b/out"]),
        helper.make_node("Abs", ["1st"], ["a.out"]),
    ]
    model = model_of(nodes, {"in.put:0": [2], "1st": [3]}, ["b/out", "a.out"])
    imported = import_model(model)
    assert [spec.name for spec in imported.inputs] == ["in.put:0", "1st"]
    assert [spec.name for spec in imported.outputs] == ["b/out", "a.out"]
    assert [spec.shape for spec in imported.outputs] == [(2,), (3,)]


def test_unused_input_stays():
    model = model_of([helper.make_node("Neg", ["x"], ["y"])], {"unused": [5], "x": [2]}, ["y"])
    got = evaluate(model, {"unused": np.zeros(5, "float32"), "x": np.ones(2, "float32")})
    np.testing.assert_array_equal(got["y"], [-1, -1])


def test_output_that_is_an_input_or_a_weight():
    model = model_of(
        [helper.make_node("Identity", ["w"], ["z"]), helper.make_node("Identity", ["x"], ["y"])],
        {"x": [2]},
        ["y", "z"],
        {"w": np.arange(3, dtype="float32")},
    )
    got = evaluate(model, {"x": np.array([5, 6], "float32")})
    np.testing.assert_array_equal(got["y"], [5, 6])
    np.testing.assert_array_equal(got["z"], [0, 1, 2])


def test_the_callers_model_is_not_changed():
    model = small_model()
    before = model.SerializeToString()
    import_model(model, {"x": [4, 3]})
    assert model.SerializeToString() == before


def test_file_by_suffix_and_by_format(tmp_path):
    onnx.save(small_model((1, 3)), tmp_path / "m.onnx")
    (tmp_path / "m.bin").write_bytes((tmp_path / "m.onnx").read_bytes())
    expected = import_model(tmp_path / "m.onnx").outputs
    assert import_model(str(tmp_path / "m.bin"), model_format="onnx").outputs == expected
    with pytest.raises(ImportModelError, match=r"m\.bin.*suffix"):
        import_model(tmp_path / "m.bin")
    with pytest.raises(ImportModelError, match="format 'keras'.*onnx"):
        import_model(tmp_path / "m.bin", model_format="keras")
    with pytest.raises(ImportModelError, match="type dict"):
        import_model({})


def test_error_in_a_node_names_it():
    nodes = [
        helper.make_node("Relu", ["x"], ["h"], name="first"),
        helper.make_node("Reshape", ["h", "shape"], ["y"], name="the_reshape"),
    ]
    model = model_of(nodes, {"x": [6]}, ["y"], {"shape": np.array([4, 2])})
    with pytest.raises(ImportModelError, match="Reshape.*the_reshape"):
        import_model(model)


def test_data_dependent_shape_is_refused():
    model = model_of([helper.make_node("NonZero", ["x"], ["y"], name="find")], {"x": [3]}, ["y"])
    with pytest.raises(ImportModelError, match="NonZero.*find.*depends on the data"):
        import_model(model)


def test_errors_share_the_base_that_the_command_line_prints():
    assert issubclass(ImportModelError, TvmSparseError)
