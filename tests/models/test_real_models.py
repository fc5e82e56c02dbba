"""Real models agree with ONNX Runtime, and do what they are for."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import tvm_sparse
from tests.models import real
from tvm_sparse.errors import TvmSparseError

# Largest error relative to the largest value.
TOLERANCE = 1e-4


def _run(model, feeds: real.Feeds) -> real.Feeds:
    shapes = {name: value.shape for name, value in feeds.items()}
    return tvm_sparse.compile(model, input_shapes=shapes).load().run(feeds)


def _check(model: onnx.ModelProto, feeds: real.Feeds) -> list[np.ndarray]:
    """Outputs, once they agree with ONNX Runtime's."""
    onnxruntime = pytest.importorskip("onnxruntime")
    onnxruntime.set_default_logger_severity(3)
    names = [value.name for value in model.graph.output]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    got = _run(model, feeds)
    for name, want in zip(names, session.run(names, feeds), strict=True):
        assert got[name].shape == want.shape
        assert np.abs(got[name] - want).max() <= TOLERANCE * np.abs(want).max(), name
    return [got[name] for name in names]


def test_ocr_detector_finds_the_text():
    model, feeds = real.ocr_detector()
    (probability,) = _check(model, feeds)
    found = np.argwhere(probability[0, 0] > 0.3)
    ink = np.argwhere(feeds["x"][0, 0] < 0)
    # The detector marks the inner part of the text: within its box, over most of its width.
    assert (found.min(axis=0) >= ink.min(axis=0) - 8).all()
    assert (found.max(axis=0) <= ink.max(axis=0) + 8).all()
    assert np.ptp(found[:, 1]) > 0.8 * np.ptp(ink[:, 1])


def test_ocr_recogniser_reads_the_text():
    model, feeds = real.ocr_recogniser()
    (scores,) = _check(model, feeds)
    assert real.recognised_text(model, scores) == "SPARSE TREES"


def test_ocr_classifier_knows_what_is_upside_down():
    model, feeds = real.ocr_classifier()
    (upright,) = _check(model, feeds)
    (turned,) = _check(model, {"x": feeds["x"][:, :, ::-1, ::-1].copy()})
    assert upright.argmax() == 0 and turned.argmax() == 1


def test_magika():
    model, feeds = real.magika()
    (scores,) = _check(model, feeds)
    assert scores.max() > 0.9


def test_minilm():
    _check(*real.minilm())


def test_minilm_int8():
    _check(*real.minilm_int8())


def test_minilm_int8_is_near_fp32():
    """Two independent ways to the same sentence vector: graph from the checkpoint, and exporter's int8."""
    vectors = []
    for model, feeds in (real.minilm(), real.minilm_int8()):
        mask = feeds["attention_mask"][..., None]
        vectors.append((_run(model, feeds)["last_hidden_state"] * mask).sum(axis=(0, 1)))
    a, b = vectors
    assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.98


def test_efficientnet_lite0_from_torch_knows_what_photos_show():
    program, network = real.efficientnet_lite0()
    module = tvm_sparse.compile(program).load()
    # Photos of scikit-image with the ImageNet classes that they show.
    for photo, classes in {"coffee": {967}, "chelsea": set(range(281, 286)), "rocket": {657}}.items():
        x = real.photo(photo)
        (got,) = module.run({"inputs": x}).values()
        expected = network(x)
        assert np.abs(got - expected).max() <= TOLERANCE * np.abs(expected).max()
        assert int(got.argmax()) in classes, photo


def test_silero_vad_is_refused_by_name_of_operator():
    model = real.silero_vad()
    for shapes in ({}, {"input": [1, 512], "state": [2, 1, 128]}):
        with pytest.raises(TvmSparseError) as caught:
            tvm_sparse.compile(model, input_shapes=shapes)
        assert str(caught.value).startswith("Operators that are not supported: LSTM\n")
        assert "in then_branch of If" in str(caught.value)
