"""``tvmc benchmark``."""

import importlib.util
import json
import os
import sys

import numpy as np
import pytest

from tvm_sparse.errors import InputError, TvmSparseError
from tvm_sparse.runtime import TensorSpec
from tvm_sparse.tvmc import engines
from tvm_sparse.tvmc.cmd_benchmark import make_report, report_table
from tvm_sparse.tvmc.engines import (
    EngineProcess,
    EngineResult,
    EngineSkipped,
    max_relative_error,
    parse_engines,
)
from tvm_sparse.tvmc.onnx_inputs import onnx_inputs

onnx = pytest.importorskip("onnx")


@pytest.fixture()
def relu(tmp_path):
    """The ONNX model that the package of these tests is of, with an open batch size."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "relu",
        [helper.make_tensor_value_info("x", kind, ["batch", 5])],
        [helper.make_tensor_value_info("y", kind, ["batch", 5])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "relu.onnx")
    return tmp_path / "relu.onnx"


FAST = ("--time", "0.1", "--warmup", "0", "--rounds", "2", "--num-cores", "1")


def test_engines_side_by_side(tvmc, compiled, relu, tmp_path):
    pytest.importorskip("onnxruntime")
    command = ("benchmark", relu, "--engine", "tvm,onnxruntime", "--batch-size", "2", *FAST, "-x", "out.json")
    code, out, err = tvmc(*command)
    assert code == 0, err
    assert compiled[0]["input_shapes"] == {"x": (2, 5)}
    report = json.loads((tmp_path / "out.json").read_text())
    assert (
        report["reference"] == "onnxruntime" and report["inputs"] == {"x": [2, 5]} and not report["skipped"]
    )
    ours, theirs = report["results"]
    assert (ours["engine"], theirs["engine"]) == ("tvm", "onnxruntime")
    assert ours["max_relative_error"] == theirs["max_relative_error"] == 0
    assert theirs["speed"] == 1 and ours["speed"] == pytest.approx(theirs["median_ms"] / ours["median_ms"])
    assert ours["items_per_second"] == pytest.approx(2e3 / ours["median_ms"])
    for entry in (ours, theirs):
        # Two rounds of 0.05 s, less what the loop itself takes.
        assert 0.02 <= entry["runs"] * entry["mean_ms"] / 1e3 < 0.3
        assert entry["min_ms"] <= entry["median_ms"] and entry["peak_bytes"] > 1e7
    # This process, which holds the compiler, doesn't count.
    assert ours["peak_bytes"] != theirs["peak_bytes"]
    table = [line for line in out.splitlines() if line.startswith("|")]
    assert len(table) == 4 and "| tvm |" in table[2] and "| onnxruntime |" in table[3]


def test_package_is_timed_by_tvm_alone(tvmc, package_path):
    code, out, err = tvmc("benchmark", package_path, *FAST)
    assert code == 0, err
    assert "| tvm |" in out and "1.00x" in out
    code, _, err = tvmc("benchmark", package_path, "--engine", "tvm,onnxruntime")
    assert code == 4 and "only the engine tvm can run it" in err


def test_missing_engine_is_skipped_by_name(tvmc, relu):
    if importlib.util.find_spec("deepsparse"):
        pytest.skip("deepsparse is installed")
    code, _, err = tvmc("benchmark", relu, "--engine", "deepsparse", "--batch-size", "1", *FAST)
    assert code == 4
    assert 'skipped deepsparse: package "deepsparse" is not installed' in err
    assert "Error: No engine could run this model." in err


def test_interpreter_of_another_environment(tvmc, relu, tmp_path):
    pytest.importorskip("onnxruntime")
    log = tmp_path / "started"
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$@" > {log}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    engine = ("--engine", "onnxruntime", "--python", f"onnxruntime={python}", "--batch-size", "3")
    code, out, err = tvmc("benchmark", relu, *engine, *FAST)
    assert code == 0, err
    assert "onnxruntime" in log.read_text() and "| onnxruntime |" in out
    missing = ("--engine", "onnxruntime", "--python", "onnxruntime=/none/python", "--batch-size", "3")
    code, _, err = tvmc("benchmark", relu, *missing, *FAST)
    assert code == 4 and "'/none/python' cannot be started: No such file or directory" in err


def test_engine_that_dies(tmp_path, monkeypatch):
    script = tmp_path / "worker.py"
    script.write_text("import sys\nsys.exit('out of luck')\n")
    monkeypatch.setattr(engines.worker, "__file__", str(script))
    with pytest.raises(EngineSkipped, match="its process ended with code 1: out of luck"):
        EngineProcess("tvm", "m.tar", tmp_path / "in.npz", [0])


def test_engine_that_cannot_read_the_model(tmp_path):
    pytest.importorskip("onnxruntime")
    (tmp_path / "bad.onnx").write_bytes(b"bad")
    np.savez(tmp_path / "in.npz", x=np.zeros(1))
    with pytest.raises(EngineSkipped, match="cannot run this model: "):
        EngineProcess(
            "onnxruntime", tmp_path / "bad.onnx", tmp_path / "in.npz", [min(os.sched_getaffinity(0))]
        )


def test_engines_are_confined_to_their_cores(package_path, tmp_path):
    np.savez(tmp_path / "in.npz", x=np.zeros((2, 5), "float32"))
    core = max(os.sched_getaffinity(0))
    process = EngineProcess("tvm", package_path, tmp_path / "in.npz", [core])
    try:
        assert os.sched_getaffinity(process._process.pid) == {core}
        process.run(0.01, counted=False)
        assert process.result.times == [] and process.result.peak_bytes > 0
    finally:
        process.close()


@pytest.mark.parametrize("text", ["", ",", "tvm,magic"])
def test_unknown_engines(text):
    with pytest.raises(TvmSparseError, match="Known engines: tvm, onnxruntime, openvino, deepsparse"):
        parse_engines(text)
    assert parse_engines("tvm, onnxruntime,tvm") == ("tvm", "onnxruntime")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--time", "0"], "--time must be positive"),
        (["--num-cores", "100000"], "this process may use"),
        ([], "the input 'x' has the open shape ['?', 5]"),
        (["--input-shapes", "x:[2,6]"], "gives 'x' the shape [2, 6], the model has ['?', 5]"),
        (["--input-shapes", "x:[2,5,1]"], "gives 'x' the shape [2, 5, 1], the model has ['?', 5]"),
        (["--input-shapes", "z:[2,5]"], "the input tensor 'z' is not in the graph"),
        (
            ["--input-shapes", "x:[2,5]", "--batch-size", "3"],
            "gives 'x' the shape [2, 5], the model has [3, 5]",
        ),
    ],
)
def test_wrong_options(tvmc, relu, flags, message):
    code, _, err = tvmc("benchmark", relu, *flags)
    assert code == 4 and message in err


def test_shapes_of_a_model(relu, tmp_path):
    assert onnx_inputs(str(relu), {"x": (7, 5)}, None) == (TensorSpec("x", (7, 5), "float32"),)
    assert onnx_inputs(str(relu), None, 4) == (TensorSpec("x", (4, 5), "float32"),)
    (tmp_path / "bad.onnx").write_bytes(b"\xff\xff")
    with pytest.raises(TvmSparseError, match="is not an ONNX model"):
        onnx_inputs(str(tmp_path / "bad.onnx"), None, None)
    model = onnx.load(relu)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, relu)
    with pytest.raises(InputError, match="the input 'x' has the fixed batch 1"):
        onnx_inputs(str(relu), None, 4)


def test_errors_are_relative_to_the_largest_value():
    reference = [np.array([1.0, -10.0]), np.array([], "float32"), np.array([0, 0], "int64")]
    same = [array.copy() for array in reference]
    assert max_relative_error(same, reference) == 0
    same[0][0] += 0.5
    assert max_relative_error(same, reference) == pytest.approx(0.05)
    same[2][1] = 2
    assert max_relative_error(same, reference) == 2
    assert max_relative_error(same[:1], reference) is None
    # Unsigned differences don't wrap.
    assert max_relative_error([np.array([1], "uint8")], [np.array([2], "uint8")]) == 0.5


def test_report_without_onnxruntime_is_relative_to_the_first():
    results = [
        EngineResult("tvm", "1", 0.1, [0.002, 0.004], 10**7),
        EngineResult("openvino", "2", 0.1, [0.006], 10**8),
    ]
    report = make_report(
        "dir/m.onnx", [TensorSpec("x", (8, 3), "float32")], [1], results, {"deepsparse": "why"}
    )
    assert report["reference"] == "tvm" and report["model"] == "m.onnx"
    assert [entry["speed"] for entry in report["results"]] == pytest.approx([1, 0.5])
    assert report["results"][0]["items_per_second"] == pytest.approx(8 / 0.003)
    assert report_table(report).splitlines()[1].startswith("| --- | --- | ---: |")
