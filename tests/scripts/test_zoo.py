"""Names of the zoo, and, where torch is installed, what its maker writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from scripts import zoo


@pytest.mark.parametrize(
    "name, spec",
    [
        ("resnet50", zoo.Spec("resnet50", None, 0.0, 1)),
        ("mobilenet_v3_s85", zoo.Spec("mobilenet_v3", None, 0.85, 1)),
        ("unet_r225x161_s85_b2", zoo.Spec("unet", (225, 161), 0.85, 2)),
        ("mlp_s90_b64", zoo.Spec("mlp", None, 0.9, 64)),
    ],
)
def test_names(name: str, spec: zoo.Spec) -> None:
    assert zoo.parse_name(name) == spec


@pytest.mark.parametrize("name", ["", "Resnet50", "resnet50-s90", "mlp_s100", "mlp_b0"])
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="zoo name|% zeros"):
        zoo.parse_name(name)


def test_listed_names_are_networks() -> None:
    pytest.importorskip("torch")
    known = zoo.networks()
    assert {zoo.parse_name(name).net for name in zoo.DENSE + zoo.SPARSE} <= known.keys()
    assert len(set(zoo.DENSE + zoo.SPARSE)) == len(zoo.DENSE) + len(zoo.SPARSE)


def test_written_model_is_pruned_where_it_should_be(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    path = zoo.make("mobilenet_r32x48_s80_b2", tmp_path)
    model = onnx.load(path)
    assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [2, 3, 32, 48]
    zeros = {}
    for node in model.graph.node:
        if node.op_type == "Conv":
            weight = next(t for t in model.graph.initializer if t.name == node.input[1])
            array = numpy_helper.to_array(weight)
            zeros.setdefault(array.shape[1:], []).append(float(np.mean(array == 0)))
    stem, depthwise = zeros.pop((3, 3, 3)), zeros.pop((1, 3, 3))
    assert max(stem + depthwise) == 0
    assert len(zeros) == 6 and all(abs(z - 0.8) < 0.01 for group in zeros.values() for z in group)
    assert list(tmp_path.iterdir()) == [path]
