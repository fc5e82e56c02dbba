"""The comparison of formats on a small model: what is timed, and how choices are judged."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from scripts import compare_formats
from scripts.compare_formats import Comparison, report, summary, take_turns


@pytest.fixture()
def model(tmp_path):
    """A pruned convolution, a depth-wise one, and a linear layer on the pooled image."""
    rng = np.random.default_rng(0)
    weights = {
        "w1": rng.standard_normal((32, 32, 1, 1)),
        "w2": rng.standard_normal((32, 1, 3, 3)),
        "w3": rng.standard_normal((10, 32)),
    }
    weights["w1"][rng.random(weights["w1"].shape) < 0.9] = 0
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="pruned"),
        helper.make_node("Conv", ["a", "w2"], ["b"], name="deep", group=32, pads=[1] * 4),
        helper.make_node("GlobalAveragePool", ["b"], ["c"]),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("Gemm", ["d", "w3"], ["y"], name="classify", transB=1),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 32, 8, 8))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 10))
    constants = [numpy_helper.from_array(w.astype("float32"), name) for name, w in weights.items()]
    graph = helper.make_graph(nodes, "net", [x], [y], constants)
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_a_small_model(model, tmp_path, capsys, monkeypatch):
    # This process keeps its cores.
    monkeypatch.setattr(compare_formats.os, "sched_setaffinity", lambda _process, _cores: None)
    paths = {name: tmp_path / f"out.{name}" for name in ("json", "md")}
    options = ("--seconds", "0.001", "--json", paths["json"], "--markdown", paths["md"])
    assert compare_formats.main([str(model), *map(str, options)]) == 0
    out = capsys.readouterr().out
    assert paths["md"].read_text().strip() == out.strip() and "of 2 (" in out
    pruned, classify = json.loads(paths["json"].read_text())["models"]["net"]
    # Nobody chooses the format of the depth-wise layer.
    assert (pruned["shape"], classify["shape"]) == ("32x32 1x1 @8x8", "10x32 1x1")
    assert set(pruned["us"]) > {"dense", "unstructured", "block 4x1", "block 1x4"}
    assert set(classify["us"]) == {"dense", "unstructured"} and classify["chosen"] == "dense"
    assert pruned["zeros"] == pytest.approx(0.9, abs=0.03) and min(pruned["us"].values()) > 0


def test_judgement():
    fast = Comparison("a", "8x8", 0.9, "unstructured", {"dense": 30.0, "unstructured": 10.0, "block 4x1": 9.5})
    slow = Comparison("b", "8x8", 0.9, "dense", {"dense": 30.0, "unstructured": 10.0})
    assert (fast.best, round(fast.loss, 3)) == ("block 4x1", 1.053) and slow.loss == 3
    assert summary([fast, slow]) == (
        "chosen within 10% of the fastest: 1 of 2 (50%); 0.040 ms as chosen, 0.019 ms in the fastest formats"
    )
    lines = report("net", [fast, slow]).splitlines()
    assert lines[4] == "| a | 8x8 | 90.0% | unstructured | block 4x1 | 5.3% | 30.0 | 10.0 | 9.5 |"
    assert lines[5].endswith("| 200.0% | 30.0 | 10.0 | - |")


def test_samples_are_taken_in_turn():
    calls: list[str] = []
    best = take_turns({name: lambda name=name: calls.append(name) for name in "ab"}, 0.0)
    assert set(best) == {"a", "b"} and max(best.values()) < 1
    assert {"a", "b"} == set(calls) and len(calls) >= 2 * (2 + 3)


@pytest.mark.parametrize("options", [("--seconds", "0"), (",",), ("--json", "/no/such/folder/x.json")])
def test_wrong_options(options, capsys):
    with pytest.raises(SystemExit):
        compare_formats.parse_arguments(list(options))
    assert "error:" in capsys.readouterr().err


def test_a_missing_model(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(compare_formats.os, "sched_setaffinity", lambda _process, _cores: None)
    assert compare_formats.main([str(tmp_path / "none.onnx")]) == 1
    assert "not measured: there is no file" in capsys.readouterr().err
