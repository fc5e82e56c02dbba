"""The roofline script on a small model: tables, JSON, plot, and what it refuses."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from scripts import roofline
from tvm_sparse.runtime import roofs


@pytest.fixture()
def model(tmp_path):
    """Two pruned 1x1 convolutions."""
    rng = np.random.default_rng(0)
    weights = []
    for name in ("w1", "w2"):
        weight = rng.standard_normal((32, 32, 1, 1)).astype("float32")
        weight[rng.random(weight.shape) < 0.9] = 0
        weights.append(numpy_helper.from_array(weight, name))
    nodes = [helper.make_node("Conv", ["x", "w1"], ["h"]), helper.make_node("Relu", ["h"], ["r"])]
    nodes.append(helper.make_node("Conv", ["r", "w2"], ["y"]))
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, (1, 32, 8, 8)) for n in ("x", "y")]
    graph = helper.make_graph(nodes, "net", values[:1], values[1:], weights)
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """No large buffers, and this process keeps its cores."""
    monkeypatch.setattr(roofs, "_DRAM_BYTES", (1 << 20, 1 << 20))
    monkeypatch.setattr(roofs, "_L3_BYTES", 1 << 20)
    monkeypatch.setattr(roofline.os, "sched_setaffinity", lambda _process, _cores: None)


def test_a_small_model(model, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    paths = {name: tmp_path / f"out.{name}" for name in ("json", "md", "svg")}
    options = ("--json", paths["json"], "--markdown", paths["md"], "--plot", paths["svg"], "--below", "9")
    assert roofline.main([str(model), "--rounds", "2", "--repeat", "2", *map(str, options)]) == 0
    out = capsys.readouterr().out
    assert paths["md"].read_text() in out + "\n" and "## net" in out
    assert "2 of 2 layers are under 900% of their roof" in out
    written = json.loads(paths["json"].read_text())["models"]["net"]
    assert len(written["layers"]) == 2 and written["roofs"]["num_threads"] == 1
    assert all(layer["share_of_roof"] > 0 and layer["bound"] in layer["limits_ms"] for layer in written["layers"])
    picture = paths["svg"].read_text()
    assert picture.lstrip().startswith("<?xml") and len(picture) > 10_000


def test_a_missing_model(tmp_path, capsys):
    assert roofline.main([str(tmp_path / "none.onnx")]) == 1
    assert "not measured: there is no file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options", [("--rounds", "0"), ("--plot", "a.txt"), ("No Such",), ("--cores", "10000"), ("--json", "none/x")]
)
def test_refused(options, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as leaving:
        roofline.main(list(options))
    assert leaving.value.code == 2
