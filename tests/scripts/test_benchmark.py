"""The benchmark: names of models, its table, and one run of it on a small model."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from scripts.benchmark import choose_cores, group_of, split_python
from scripts.benchmark_models import GROUPS, REPOSITORY, ModelUnavailable, expand, provide
from scripts.benchmark_report import Row, geometric_mean, means, to_json, to_markdown
from tests.models.networks import make


def rows() -> list[Row]:
    return [
        Row("a", "sparse", {"tvm": 1.0, "onnxruntime": 4.0}, {"tvm": 5_000_000}, 1e-6, 2.0, 1_500_000),
        Row("b", "sparse", {"tvm": 2.0, "onnxruntime": 2.0, "openvino": 6.0}),
        Row("c", "dense", {"onnxruntime": 2.0}, notes={"tvm": "compile: no"}),
    ]


def test_geometric_means_leave_out_what_was_not_measured() -> None:
    assert geometric_mean([]) is None
    engines = ["tvm", "onnxruntime", "openvino"]
    ratios = {"onnxruntime": pytest.approx(2), "openvino": pytest.approx(3)}
    assert means(rows(), engines) == {"sparse": ratios}
    report = to_json(rows(), engines, {"cpu": "x"})
    assert report["models"][0]["ratios"] == {"onnxruntime": 4.0} and report["models"][2]["ratios"] == {}
    assert json.loads(json.dumps(report)) == report


def test_table() -> None:
    lines = to_markdown(rows(), ["tvm", "onnxruntime", "openvino"]).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["c", "a", "b", "**geometric mean, sparse**"]
    assert len({line.count("|") for line in lines}) == 1
    cells = [cell.strip() for cell in lines[3].split("|")[1:-1]]
    assert cells == ["a", "1.00", "4.00", "-", "4.00x", "-", "1.0e-06", "5.0 MB / -", "2.0", "1.5 MB"]
    assert "**2.00x**" in lines[-1] and "**3.00x**" in lines[-1]


def test_groups_and_names_expand_without_doubles() -> None:
    assert expand("mlp,dense") == ["mlp", *(name for name in GROUPS["dense"] if name != "mlp")]
    assert expand("all") == list(GROUPS["all"])
    assert expand("some/file.onnx,unet_r65x33_s80") == ["some/file.onnx", "unet_r65x33_s80"]
    for bad in ("", "Nothing", "mlp_s100"):
        with pytest.raises(ValueError):
            expand(bad)


def test_models_come_from_files_data_and_the_zoo_or_say_why_not(tmp_path: Path) -> None:
    face = provide("face_detection", tmp_path / "made", sys.executable)
    assert onnx.load(face.path).graph.input[0].name == "input_1"
    with pytest.raises(ModelUnavailable, match="no file"):
        provide(str(tmp_path / "none.onnx"), tmp_path, sys.executable)
    with pytest.raises(ModelUnavailable, match="cannot be started"):
        provide("mlp", tmp_path, str(tmp_path / "no-python"))
    (tmp_path / "mlp_s90.onnx").write_bytes(b"made before")
    assert provide("mlp_s90", tmp_path, str(tmp_path / "no-python")).path == tmp_path / "mlp_s90.onnx"


def test_options() -> None:
    assert split_python("openvino=/x/python") == ("openvino", "/x/python")
    for bad in ("openvino", "other=/x", "openvino="):
        with pytest.raises(ValueError, match="ENGINE=PATH"):
            split_python(bad)
    assert len(choose_cores(1)) == 1
    with pytest.raises(ValueError, match="--cores 0"):
        choose_cores(0)


@pytest.mark.parametrize("sparsity, group", [(0.0, "dense"), (0.2, "dense"), (0.6, "sparse")])
def test_group_goes_by_the_zeros_in_the_file(sparsity: float, group: str, tmp_path: Path) -> None:
    onnx.save(make("prime_channels", sparsity), tmp_path / "m.onnx")
    assert group_of(tmp_path / "m.onnx") == group


def test_one_run(tmp_path: Path) -> None:
    model, report = tmp_path / "small.onnx", tmp_path / "report.json"
    onnx.save(make("bottleneck_batch3", 0.9), model)
    command = [sys.executable, "-m", "scripts.benchmark", "--models", str(model), "--json", str(report)]
    command += ["--engines", "tvm,onnxruntime", "--rounds", "2", "--seconds", "0.05"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| small |" in done.stdout and "geometric mean, sparse" in done.stdout
    (entry,) = json.loads(report.read_text())["models"]
    assert entry["milliseconds"].keys() == {"tvm", "onnxruntime"}
    assert entry["error"] <= 1e-4 and entry["package_bytes"] > 0
    ratio = entry["milliseconds"]["onnxruntime"] / entry["milliseconds"]["tvm"]
    assert math.isclose(entry["ratios"]["onnxruntime"], ratio)
