"""compile, analyze, write_plan, load: from model files to arrays, and errors that a user can act on."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import tvm_sparse
from tests.frontend.helpers import model_of, small_model
from tvm_sparse.errors import ImportModelError, InputError, MissingPackageError, PackageError, TvmSparseError
from tvm_sparse.plan.plan import Plan

SHAPES = {"x": [2, 48, 9, 9]}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """One cache for this file: the kernels are compiled once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TVM_SPARSE_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("TVM_NUM_THREADS", "1")
        yield


def pruned(rng, *shape, zeros):
    weight = rng.standard_normal(shape).astype("float32")
    weight[rng.random(shape) < zeros] = 0
    return weight


def network() -> onnx.ModelProto:
    """A sparse 1x1 convolution, a depth-wise one, and a dense linear layer; any batch size."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["a"], name="narrow"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w1"], ["c"], name="deep", group=32, pads=[1] * 4),
        helper.make_node("GlobalAveragePool", ["c"], ["d"]),
        helper.make_node("Flatten", ["d"], ["e"]),
        helper.make_node("Gemm", ["e", "w2"], ["y"], name="classify", transB=1),
    ]
    weights = {
        "w0": pruned(rng, 32, 48, 1, 1, zeros=0.95),
        "w1": pruned(rng, 32, 1, 3, 3, zeros=0),
        "w2": pruned(rng, 10, 32, zeros=0),
    }
    return model_of(nodes, {"x": ["batch", 48, 9, 9]}, ["y"], weights)


def expected(x: np.ndarray) -> np.ndarray:
    import onnxruntime

    return onnxruntime.InferenceSession(network().SerializeToString()).run(None, {"x": x})[0]


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(1).standard_normal(SHAPES["x"]).astype("float32")


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The network, compiled with every output that can be asked for."""
    folder = tmp_path_factory.mktemp("package")
    steps: list[str] = []
    made = tvm_sparse.compile(
        network(),
        input_shapes=SHAPES,
        dump_code=["relax", "asm"],
        num_threads=1,
        output=folder / "net.tar",
        progress=steps.append,
    )
    assert {"import", "canonicalize", "columns", "build", "link", "write"} <= set(steps)
    return made


def test_compile_and_load(package, x):
    module = tvm_sparse.load(package.path)
    assert (module.inputs[0].name, module.inputs[0].shape, module.inputs[0].dtype) == ("x", (2, 48, 9, 9), "float32")
    np.testing.assert_allclose(module(x), expected(x), rtol=1e-4, atol=1e-5)
    assert list(module.run({"x": x})) == ["y"]
    assert isinstance(package, tvm_sparse.Package) and isinstance(module, tvm_sparse.Module)
    assert module.num_threads == 1 and tvm_sparse.load(package.path, num_threads=2).num_threads == 2


def test_what_is_written(package):
    folder = package.path.parent
    assert sorted(path.name for path in folder.iterdir()) == ["net.tar", "net.tar.asm", "net.tar.relax"]
    assert ".globl" in (folder / "net.tar.asm").read_text()
    layers = package.metadata["plan"]["layers"]
    assert [(layer["kind"], layer["format"]) for layer in layers] == [
        ("conv 1x1", "unstructured"),
        ("depthwise 3x3", "depthwise"),
        ("linear", "dense"),
    ]
    for layer in layers:
        assert layer["why"] and layer["bytes_packed"] > 0 and layer["kernel"].startswith("tvm_sparse_")


def test_a_plan_can_be_written_edited_and_given_back(package, x, tmp_path):
    path = tmp_path / "plan.json"
    tvm_sparse.write_plan(package, path)
    plan = json.loads(path.read_text())
    assert plan == package.metadata["plan"]
    # As it is: the same again, whatever the options say.
    again = tvm_sparse.compile(network(), input_shapes=SHAPES, sparsity=str(path), sparsity_threshold=1.0)
    formats = [layer["format"] for layer in plan["layers"]]
    assert [layer["format"] for layer in again.metadata["plan"]["layers"]] == formats
    for layer in plan["layers"]:
        layer["format"] = "dense"
    path.write_text(json.dumps(plan))
    dense = tvm_sparse.compile(network(), input_shapes=SHAPES, sparsity=path)
    assert {layer["format"] for layer in dense.metadata["plan"]["layers"]} == {"dense"}
    np.testing.assert_allclose(dense.load()(x), expected(x), rtol=1e-4, atol=1e-5)


def test_a_plan_object_can_be_used_again():
    plan = Plan("off")
    counts = [
        len(tvm_sparse.compile(network(), input_shapes=SHAPES, sparsity=plan).metadata["plan"]["layers"])
        for _ in range(2)
    ]
    assert counts == [3, 3] and plan == Plan("off")


def test_plan_for_another_model(tmp_path):
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"layers": [{"name": "encoder.7", "format": "dense"}]}))
    with pytest.raises(TvmSparseError, match=r"does not have: encoder\.7; it has: "):
        tvm_sparse.compile(network(), input_shapes=SHAPES, sparsity=path, output=tmp_path / "net.tar")
    assert list(tmp_path.iterdir()) == [path]


def test_write_plan_to_nowhere(package, tmp_path):
    with pytest.raises(TvmSparseError, match="doesn't exist"):
        tvm_sparse.write_plan(package, tmp_path / "none" / "plan.json")


def test_without_an_output_the_file_lives_as_long_as_the_package(x):
    package = tvm_sparse.compile(network(), input_shapes=SHAPES)
    path = Path(package.path)
    np.testing.assert_allclose(package.load()(x), expected(x), rtol=1e-4, atol=1e-5)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    del package
    gc.collect()
    assert not path.parent.exists()


def test_plain_library(x, tmp_path):
    onnx.save(network(), tmp_path / "net.onnx")
    package = tvm_sparse.compile(tmp_path / "net.onnx", input_shapes=SHAPES, output=tmp_path / "net.so")
    np.testing.assert_allclose(tvm_sparse.load(package.path)(x), expected(x), rtol=1e-4, atol=1e-5)


def test_torch_program(tmp_path):
    torch = pytest.importorskip("torch")
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 1), torch.nn.ReLU(), torch.nn.Flatten()).eval()
    with torch.no_grad():
        network[0].weight[torch.rand(network[0].weight.shape) < 0.8] = 0
    value = torch.randn(1, 3, 6, 6)
    program = torch.export.export(network, (value,))
    torch.export.save(program, tmp_path / "net.pt2")
    wanted = network(value).detach().numpy()
    for model in (program, tmp_path / "net.pt2"):
        got = tvm_sparse.compile(model).load()(value.numpy())
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_analyze():
    found = tvm_sparse.analyze(network(), input_shapes=SHAPES, what_if=(0.5, 0.99))
    assert [layer.kind for layer in found] == ["conv 1x1", "depthwise 3x3", "linear"]
    narrow, deep, classify = found
    assert 0.9 < narrow.zeros < 1 and narrow.structure == "unstructured" and narrow.bytes_dense == 32 * 48 * 4
    assert narrow.bytes_by_format["unstructured"] < narrow.bytes_by_format["dense"] == narrow.bytes_dense
    assert set(narrow.speedup) == {"as is", "at 50%", "at 99%"}
    assert narrow.speedup["at 99%"] >= narrow.speedup["at 50%"] >= 1
    assert (deep.zeros, deep.structure, classify.structure) == (0, "dense", "dense")


def test_analyze_refuses_what_compile_refuses(tmp_path):
    with pytest.raises(ImportModelError, match="open dimensions"):
        tvm_sparse.analyze(network())
    with pytest.raises(TvmSparseError, match="mcpu 'none' is not a CPU"):
        tvm_sparse.analyze(network(), "llvm -mcpu=none", input_shapes=SHAPES)
    with pytest.raises(ImportModelError, match="none.onnx' doesn't exist"):
        tvm_sparse.analyze(tmp_path / "none.onnx")


def nan_model() -> onnx.ModelProto:
    model = small_model((1, 3))
    weight = onnx.numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight[1, 1] = np.nan
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, "w"))
    return model


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, r"bad\.onnx' doesn't exist"),
        (lambda path: path.mkdir(), r"bad\.onnx' doesn't exist, is a broken symbolic link, or a directory"),
        (lambda path: path.write_bytes(b""), r"bad\.onnx"),
        (lambda path: path.write_text("this is text\n" * 9), r"bad\.onnx' is not an ONNX file"),
        (lambda path: path.write_bytes(network().SerializeToString()[:-300]), r"bad\.onnx.* truncated"),
        (lambda path: onnx.save(nan_model(), path), r"NaN in weight 'w' \(1 of 6 values\)"),
        (lambda path: onnx.save(network(), path), r"open dimensions: x: \[batch, 48, 9, 9\].*input_shapes="),
    ],
)
def test_models_that_cannot_be_compiled(tmp_path, write, message):
    write(tmp_path / "bad.onnx")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ImportModelError, match=message):
        tvm_sparse.compile(tmp_path / "bad.onnx", output=tmp_path / "net.tar")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "llvm -mcpu=pentium9"}, "mcpu 'pentium9' is not a CPU .*pentium4"),
        ({"target": "cuda"}, "'cuda' is not supported"),
        ({"sparsity": "none.json"}, "plan 'none.json' cannot be read"),
        ({"sparsity_threshold": 1.5}, "between 0 and 1"),
        ({"sparse_format": "2:4"}, "unknown sparse format '2:4'"),
        ({"disabled_passes": ["FoldPad"]}, "disabled_passes: there is no pass 'FoldPad'; similar ones: FoldPadding"),
        ({"print_ir_before": ["x"]}, "print_ir_before: there is no pass 'x'"),
        ({"print_ir_after": ["*", "x"]}, "print_ir_after: there is no pass 'x'"),
        ({"pass_config": {"tir.disable_assert": True}}, r"no setting 'tir\.disable_assert'; .*tirx\.disable_assert"),
        ({"dump_code": ["asm", "exe"]}, "cannot dump exe; known: asm, ll, tir, relax"),
        ({"num_threads": 0}, "num_threads"),
        ({"input_shapes": {"z": [1]}}, "'z', which is not an input"),
        ({"input_shapes": {"x": [2, 49, 9, 9]}}, "does not fit input 'x'"),
        ({"model_format": "keras"}, "format 'keras'"),
    ],
)
def test_wrong_options(tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TvmSparseError, match=message):
        tvm_sparse.compile(network(), **{"input_shapes": SHAPES, "output": tmp_path / "net.tar", **options})
    assert not list(tmp_path.iterdir())


def test_outputs_that_cannot_be_written(tmp_path):
    (tmp_path / "taken.tar.asm").mkdir()
    steps: list[str] = []
    for output, dump, message in (
        (tmp_path / "none" / "net.tar", (), "doesn't exist"),
        (tmp_path, (), "a directory or not a regular file"),
        (tmp_path / "taken.tar", ("asm",), r"taken\.tar\.asm'.* a directory"),
    ):
        with pytest.raises(TvmSparseError, match=message):
            tvm_sparse.compile(network(), input_shapes=SHAPES, output=output, dump_code=dump, progress=steps.append)
    # Found before the work, and nothing half-written.
    assert not steps and [path.name for path in tmp_path.iterdir()] == ["taken.tar.asm"]


def test_an_older_package_survives_a_failure(package, tmp_path, monkeypatch):
    old = tmp_path / "net.tar"
    old.write_bytes(package.path.read_bytes())

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tvm_sparse.runtime.files.os.replace", full)
    with pytest.raises(TvmSparseError, match="No space left on device"):
        tvm_sparse.compile(small_model((1, 3)), output=old)
    assert old.read_bytes() == package.path.read_bytes() and list(tmp_path.iterdir()) == [old]


def test_missing_linker(monkeypatch, tmp_path):
    with pytest.raises(MissingPackageError, match="no-such-compiler"):
        tvm_sparse.compile(small_model((1, 3)), cross_compiler="no-such-compiler", output=tmp_path / "net.tar")
    for option, message in (("-no-such-flag", "cannot compile launch.c"), ("-Wl,--no-such-flag", "linking failed")):
        with pytest.raises(TvmSparseError, match=message):
            tvm_sparse.compile(
                small_model((1, 3)),
                cross_compiler="g++",
                cross_compiler_options=[option],
                output=tmp_path / "n.tar",
            )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"x": np.zeros((1, 48, 9, 9), "float32")}, r"'x' has shape \(1, 48, 9, 9\), expected \(2, 48, 9, 9\)"),
        ({"x": np.zeros((2, 48, 9, 9), "float64")}, "'x' has dtype float64, expected float32"),
        ({"x": np.zeros((2, 48, 9, 9), "float32"), "z": np.zeros(1)}, "'z' is not in the graph"),
        ({}, "'x' is missing"),
    ],
)
def test_inputs_that_do_not_fit(package, inputs, message):
    with pytest.raises(InputError, match=message):
        package.load().run(inputs)


def test_files_that_are_no_packages(tmp_path):
    for content in (b"", b"text", network().SerializeToString()):
        (tmp_path / "net.tar").write_bytes(content)
        with pytest.raises(PackageError, match="net.tar"):
            tvm_sparse.load(tmp_path / "net.tar")
    with pytest.raises(PackageError, match="doesn't exist"):
        tvm_sparse.load(tmp_path / "none.tar")


def test_printed_passes(capsys):
    tvm_sparse.compile(small_model((1, 3)), print_ir_after=["FuseLayers"], print_ir_before=["ToColumns"])
    out = capsys.readouterr().out
    assert out.count("# ---- after FuseLayers") == out.count("# ---- before ToColumns") == 1
    assert "tvm_sparse.linear" in out
    tvm_sparse.compile(small_model((1, 3)), print_pass_times=True)
    assert "FuseLayers: " in capsys.readouterr().out


def test_disabled_passes_do_not_run(capsys):
    tvm_sparse.compile(small_model((1, 3)), disabled_passes=["RecognizeNorms"], print_ir_before=["*"])
    out = capsys.readouterr().out
    assert "before FuseLayers" in out and "before RecognizeNorms" not in out


def test_large_windows():
    """What one panel reads does not fit the kernels' buffer; what a vector reads must."""
    rng = np.random.default_rng(0)
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], strides=[16, 16])]
    weight = rng.standard_normal((8, 3, 16, 16)).astype("float32")
    model = model_of(nodes, {"x": [1, 3, 112, 112]}, ["y"], {"w": weight})
    x = rng.standard_normal((1, 3, 112, 112)).astype("float32")
    # One product of matrices: patches don't overlap.
    patches = x.reshape(3, 7, 16, 7, 16).transpose(1, 3, 0, 2, 4).reshape(49, -1)
    got = tvm_sparse.compile(model).load()(x)
    wanted = (patches @ weight.reshape(8, -1).T).T.reshape(1, 8, 7, 7)
    np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-3)


def test_windows_that_never_fit_are_an_error_of_ours():
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    model = model_of(nodes, {"x": [1, 1, 80, 80]}, ["y"], {"w": np.ones((1, 1, 80, 80), "float32")})
    with pytest.raises(TvmSparseError, match="too large for the kernels"):
        tvm_sparse.compile(model)


def test_max_pool_of_one_pixel():
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"]),
        helper.make_node("MaxPool", ["h"], ["y"], kernel_shape=[1, 1]),
    ]
    model = model_of(nodes, {"x": [1, 2, 5, 5]}, ["y"], {"w": np.eye(2, dtype="float32").reshape(2, 2, 1, 1)})
    x = np.random.default_rng(0).standard_normal((1, 2, 5, 5)).astype("float32")
    np.testing.assert_allclose(tvm_sparse.compile(model).load()(x), x)


def test_unknown_attribute():
    assert not hasattr(tvm_sparse, "tune_everything")
