"""``tvmc analyze``."""

import json
from dataclasses import dataclass, field

import pytest

import tvm_sparse


@dataclass(frozen=True)
class Layer:
    """Has the fields of `tvm_sparse.api.LayerAnalysis`."""

    name: str
    kind: str = "linear"
    shape: str = "8x8"
    zeros: float = 0.5
    structure: str = "unstructured"
    bytes_dense: int = 256
    speedup: dict = field(default_factory=lambda: {"as is": 1.5})
    bytes_by_format: dict = field(default_factory=lambda: {"dense": 256, "unstructured": 200})


@pytest.fixture()
def analyzed(monkeypatch):
    """Replaces the analysis by one that records its arguments."""
    calls = []
    layers = [Layer("fc1"), Layer("fc2", zeros=1.0, bytes_dense=768, speedup={"as is": 9.0, "95%": 5.0})]

    def analyze(model, target=None, **options):
        calls.append({"model": model, "target": target, **options})
        return layers

    monkeypatch.setitem(vars(tvm_sparse), "analyze", analyze)
    return calls, layers


def test_table(tvmc, analyzed, model):
    code, out, err = tvmc(
        "analyze", model, "--input-shapes", "x:[1,8]", "--target", "llvm", "--what-if", "0.7", "0.95"
    )
    assert code == 0, err
    ((call,), _) = analyzed
    assert call == {
        "model": str(model),
        "target": {"kind": "llvm"},
        "input_shapes": {"x": (1, 8)},
        "model_format": None,
        "what_if": (0.7, 0.95),
    }
    rows = [line.split() for line in out.splitlines()]
    assert rows[2] == ["fc1", "linear", "8x8", "50.0%", "unstructured", "256", "B", "200", "B", "1.50x", "-"]
    assert rows[3][-2:] == ["9.00x", "5.00x"]
    # Weighted by size: (0.5 * 256 + 1.0 * 768) / 1024.
    assert out.splitlines()[-1] == "2 layers, 1.0 kB of weights, 87.5% zeros"


def test_json(tvmc, analyzed, model, tmp_path):
    assert tvmc("analyze", model, "-x", "out.json")[0] == 0
    written = json.loads((tmp_path / "out.json").read_text())
    assert [layer["name"] for layer in written] == ["fc1", "fc2"]
    assert written[1]["speedup"] == {"as is": 9.0, "95%": 5.0}


def test_model_without_layers(tvmc, analyzed, model):
    analyzed[1].clear()
    code, out, _ = tvmc("analyze", model)
    assert code == 0 and "no convolution or linear layer" in out


def test_unwritable_export_is_found_first(tvmc, analyzed, model):
    assert tvmc("analyze", model, "-x", "none/out.json")[0] == 4 and not analyzed[0]


def test_fields_are_those_of_the_api():
    from dataclasses import fields

    from tvm_sparse.api import LayerAnalysis

    assert [f.name for f in fields(Layer)] == [f.name for f in fields(LayerAnalysis)]
