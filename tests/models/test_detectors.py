"""The shipped pruned detectors reproduce what LiteRT computed from the networks they were converted from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tvm_sparse
from scripts.detection import DETECTORS, normalise

GOLDEN = Path(__file__).resolve().parent / "data"


@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_golden_outputs(name: str, tmp_path: Path) -> None:
    detector = DETECTORS[name]
    package = tvm_sparse.compile(detector.write(tmp_path))
    with np.load(GOLDEN / f"{detector.file.removesuffix('.onnx')}.npz") as golden:
        got = package.load().run({"input_1": normalise(golden["pixels"])})
        for output in ("Identity", "Identity_1"):
            np.testing.assert_allclose(got[output], golden[output], rtol=1e-3, atol=2e-3, err_msg=output)


@pytest.mark.parametrize("name, least", [("face", 0.64), ("pose", 0.69)])
def test_plan_sees_the_zeros(name: str, least: float, tmp_path: Path) -> None:
    package = tvm_sparse.compile(DETECTORS[name].write(tmp_path))
    layers = package.metadata["plan"]["layers"]
    total = sum(layer["bytes_dense"] for layer in layers)
    zeros = sum(layer["bytes_dense"] * (1 - layer["density"]) for layer in layers)
    assert zeros / total > least
