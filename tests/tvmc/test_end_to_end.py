"""The command line with the real compiler, on a small network."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tvm_sparse.runtime import host
from tvm_sparse.runtime.host import cpu_features, machine

onnx = pytest.importorskip("onnx")

SHAPES = ("--input-shapes", "x:[1,8,12,12]")


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A dense 3x3 convolution, a 1x1 one with 90 % zeros, a linear layer with 80 %; any batch size."""
    rng = np.random.default_rng(0)

    def weight(name, *shape, zeros):
        values = rng.standard_normal(shape).astype("float32") * 0.2
        values[rng.random(shape) < zeros] = 0
        return onnx.numpy_helper.from_array(values, name)

    node, info, kind = onnx.helper.make_node, onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [
            node("Conv", ["x", "w0"], ["a"], pads=[1] * 4),
            node("Relu", ["a"], ["b"]),
            node("Conv", ["b", "w1"], ["c"]),
            node("GlobalAveragePool", ["c"], ["d"]),
            node("Flatten", ["d"], ["e"]),
            node("Gemm", ["e", "w2"], ["y"], transB=1),
        ],
        "network",
        [info("x", kind, ["batch", 8, 12, 12])],
        [info("y", kind, ["batch", 24])],
        [
            weight("w0", 16, 8, 3, 3, zeros=0),
            weight("w1", 64, 16, 1, 1, zeros=0.9),
            weight("w2", 24, 64, zeros=0.8),
        ],
    )
    path = tmp_path_factory.mktemp("network") / "network.onnx"
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9), path
    )
    return path


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    """One cache for this file: the tests aren't about compiling kernels again."""
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture(autouse=True)
def shared_cache(private_folder, kernels, monkeypatch):
    monkeypatch.setenv("TVM_SPARSE_CACHE_DIR", str(kernels))


def expected(network, x):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def close(actual, wanted):
    assert np.abs(actual - wanted).max() <= 1e-4 * np.abs(wanted).max()


def test_compile_and_run(tvmc, network):
    flags = ("-o", "net.tar", "--num-threads", "1", "--dump-plan", "plan.json")
    code, out, err = tvmc("compile", network, *SHAPES, *flags)
    assert code == 0, err
    with open("plan.json") as file:
        layers = json.load(file)["layers"]
    assert len(layers) == 3
    for layer in layers:
        (row,) = (line for line in out.splitlines() if line.startswith(layer["name"] + " "))
        assert layer["format"] in row and f"{layer['density']:.1%}" in row
    x = np.random.default_rng(1).standard_normal((1, 8, 12, 12)).astype("float32")
    np.savez("in.npz", x=x)
    code, out, err = tvmc("run", "net.tar", "-i", "in.npz", "-o", "out.npz", "--print-time", "--profile")
    assert code == 0, err
    assert "threads  1" in out and "y: float32[1, 24]" in out and "Execution time summary" in out
    close(np.load("out.npz")["output_0"], expected(network, x))
    # Each layer's time is named, and compared with the roof that binds it.
    for layer in layers:
        (row,) = (line.split() for line in out.splitlines() if line.startswith(layer["name"] + " "))
        assert row[-2] in ("FMA", "L1", "L2", "L3", "DRAM") and row[-1].endswith("%")
    assert "roofs of 1 thread: FMA" in out
    command = [sys.executable, "-m", "tvm_sparse.runtime", "net.tar", "-i", "in.npz", "-o", "again.npz"]
    subprocess.run(command, check=True)
    np.testing.assert_array_equal(np.load("again.npz")["output_0"], np.load("out.npz")["output_0"])


def test_plan_is_obeyed(tvmc, network):
    assert tvmc("compile", network, *SHAPES, "-o", "auto.tar", "--dump-plan", "plan.json")[0] == 0
    with open("plan.json") as file:
        plan = json.load(file)
    assert {layer["format"] for layer in plan["layers"]} > {"unstructured"}
    for layer in plan["layers"]:
        layer["format"] = "dense"
    with open("dense.json", "w") as file:
        json.dump(plan, file)
    command = (
        "compile",
        network,
        *SHAPES,
        "-o",
        "dense.tar",
        "--sparsity",
        "dense.json",
        "--dump-plan",
        "now.json",
    )
    code, out, err = tvmc(*command)
    assert code == 0, err
    with open("now.json") as file:
        assert {layer["format"] for layer in json.load(file)["layers"]} == {"dense"}
    for name in ("auto", "dense"):
        assert tvmc("run", f"{name}.tar", "-o", f"{name}.npz")[0] == 0
    close(np.load("auto.npz")["output_0"], np.load("dense.npz")["output_0"])
    with open("wrong.json", "w") as file:
        json.dump({"layers": [{"name": "nonexistent", "format": "dense"}]}, file)
    code, _, err = tvmc("compile", network, *SHAPES, "--sparsity", "wrong.json")
    assert code == 4 and "nonexistent" in err


def test_dumped_code(tvmc, network):
    code, _, err = tvmc("compile", network, *SHAPES, "-o", "net.tar", "--dump-code", "asm,ll,tir,relax")
    assert code == 0, err
    signs = {"asm": ".globl", "ll": "define ", "tir": "prim_func", "relax": "R.function"}
    for form, sign in signs.items():
        with open(f"net.tar.{form}") as file:
            assert sign in file.read(), form


def test_passes_are_printed_and_disabled(tvmc, network):
    code, out, err = tvmc("compile", network, *SHAPES, "--print-ir-after", "FuseLayers", "--print-pass-times")
    assert code == 0, err
    assert "R.function" in out and "FuseLayers" in out
    assert tvmc("compile", network, *SHAPES, "--disabled-pass", "FoldConstant")[0] == 0


@pytest.mark.parametrize("content", [b"", b"this is text", b"\x08\x09\x3a\xff\xff\xff"])
def test_files_that_are_no_models(tvmc, tmp_path, content):
    (tmp_path / "bad.onnx").write_bytes(content)
    code, _, err = tvmc("compile", "bad.onnx")
    assert code == 4 and "bad.onnx" in err.splitlines()[-1]
    assert not (tmp_path / "module.tar").exists()


def test_truncated_model(tvmc, network, tmp_path):
    (tmp_path / "bad.onnx").write_bytes(network.read_bytes()[:2000])
    assert tvmc("compile", "bad.onnx")[0] == 4


def test_open_shape(tvmc, network):
    code, _, err = tvmc("compile", network)
    assert code == 4 and "--input-shapes" in err and "x: [batch, 8, 12, 12]" in err
    code, _, err = tvmc("compile", network, "--input-shapes", "z:[1]")
    assert code == 4 and "'z'" in err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--target", "cuda"], "cuda"),
        (["--target", "llvm -mcpu=znver44"], "mcpu 'znver44' is not a CPU"),
        (["--target-llvm-mcpu", "znver44"], "similar ones: "),
        (["--target", "llvm -mtriple=vax-dec-vms"], "'vax-dec-vms' names no supported machine"),
        (["--pass-config", "tir.disable_vectorize=1"], "similar ones: tirx.disable_vectorize"),
        (["--pass-config", "relax.FuseOps.max_depth=deep"], "relax.FuseOps.max_depth cannot be 'deep'"),
        (["--disabled-pass", "FuseLayers,FoldPad"], "no pass 'FoldPad'; similar ones: FoldPadding"),
        (["--print-ir-before", "fuselayers"], "similar ones: FuseLayers"),
        (["--print-ir-after", "*,xyzzy"], "no pass 'xyzzy'; known ones: "),
    ],
)
def test_wrong_options(tvmc, network, tmp_path, flags, message):
    code, _, err = tvmc("compile", network, *SHAPES, *flags)
    assert code == 4 and err.splitlines()[-1].startswith("Error: ") and message in err.splitlines()[-1]
    assert "Traceback" not in err and not list(tmp_path.glob("*.tar"))


def test_missing_cross_compiler(tvmc, network):
    code, _, err = tvmc("compile", network, *SHAPES, "--cross-compiler", "no-such-compiler")
    assert code == 5 and 'Package "no-such-compiler" is not installed' in err.splitlines()[-1]


@pytest.mark.skipif(machine() != "x86_64", reason="compiles for a CPU of x86_64 without a cross compiler")
def test_package_for_another_cpu(tvmc, network, monkeypatch):
    # As on a machine without AVX-512, whatever this one has.
    present = cpu_features() - {"avx512f"}
    monkeypatch.setattr(host, "cpu_features", lambda: present)
    assert tvmc("compile", network, *SHAPES, "-o", "net.tar", "--target", "llvm -mcpu=znver4")[0] == 0
    code, _, err = tvmc("run", "net.tar")
    assert code == 4 and "needs CPU features that this machine lacks" in err and "avx512f" in err


def test_analyze(tvmc, network):
    code, out, err = tvmc("analyze", network, *SHAPES, "-x", "analysis.json")
    assert code == 0, err
    with open("analysis.json") as file:
        layers = json.load(file)
    assert len(layers) == 3 and [round(layer["zeros"], 1) for layer in layers] == [0, 0.9, 0.8]
    assert "90." in out or "89." in out


def test_benchmark(tvmc, network):
    pytest.importorskip("onnxruntime")
    command = ("benchmark", network, "--engine", "tvm,onnxruntime", "--batch-size", "2", "--num-cores", "1")
    code, _, err = tvmc(*command, "--time", "0.2", "--warmup", "0", "-x", "out.json")
    assert code == 0, err
    with open("out.json") as file:
        report = json.load(file)
    assert [entry["engine"] for entry in report["results"]] == ["tvm", "onnxruntime"]
    assert all(entry["max_relative_error"] < 1e-4 for entry in report["results"])


def test_compatibility_module(network, tmp_path):
    from tvm_sparse import tvmc as module

    model = module.load(network, shape_dict={"x": [1, 8, 12, 12]})
    package = module.compile(model, target="llvm", package_path=tmp_path / "net.tar")
    x = np.ones((1, 8, 12, 12), "float32")
    result = module.run(package, device="cpu", inputs={"x": x}, repeat=1, number=1)
    close(result.get_output("output_0"), expected(network, x))
    # Without a path the package lives as long as the object.
    temporary = module.compile(model)
    assert os.path.exists(temporary.package_path)
    close(module.run(temporary, inputs={"x": x}, benchmark=False).outputs["output_0"], expected(network, x))
