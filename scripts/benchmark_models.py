"""Models of the benchmark: names, and how each becomes an ONNX file."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from scripts import zoo
from scripts.detection import DETECTORS

REPOSITORY = Path(__file__).resolve().parent.parent
DETECTOR_NAMES = {"face_detection": "face", "pose_detection": "pose"}


@dataclass(frozen=True)
class Shipped:
    """A model file that a package on PyPI holds.

    Parameters
    ----------
    module : str
        Python module whose folder holds the file.
    package : str
        What to install.
    path : str
        Path of the file in the module's folder.
    shapes : dict
        Shapes of its inputs.
    """

    module: str
    package: str
    path: str
    shapes: dict[str, tuple[int, ...]]


RAPID = "rapidocr_onnxruntime", "rapidocr-onnxruntime==1.4.4"
SHIPPED = {
    "ocr_det": Shipped(*RAPID, "models/ch_PP-OCRv4_det_infer.onnx", {"x": (1, 3, 320, 480)}),
    "ocr_rec": Shipped(*RAPID, "models/ch_PP-OCRv4_rec_infer.onnx", {"x": (1, 3, 48, 320)}),
    "ocr_cls": Shipped(*RAPID, "models/ch_ppocr_mobile_v2.0_cls_infer.onnx", {"x": (1, 3, 48, 192)}),
    "magika": Shipped("magika", "magika==1.0.3", "models/standard_v3_3/model.onnx", {"bytes": (1, 2048)}),
}
GROUPS: dict[str, tuple[str, ...]] = {
    "dense": zoo.DENSE,
    "sparse": zoo.SPARSE + tuple(DETECTOR_NAMES),
    "real": tuple(DETECTOR_NAMES) + tuple(SHIPPED),
}
GROUPS["all"] = tuple(dict.fromkeys(name for group in ("dense", "sparse", "real") for name in GROUPS[group]))


class ModelUnavailable(Exception):
    """A model that cannot be made here; the message says why and what helps."""


@dataclass(frozen=True)
class Model:
    """A model to measure.

    Parameters
    ----------
    name : str
        Row of the table.
    path : Path
        ONNX file.
    shapes : dict
        Shapes of inputs that the file leaves open.
    """

    name: str
    path: Path
    shapes: dict[str, tuple[int, ...]]


def expand(text: str) -> list[str]:
    """Names from a comma-separated list of groups, names and ONNX files, without doubles.

    Raises
    ------
    ValueError
        For a name that is neither a group, a model of :data:`GROUPS`, a zoo name, nor a file.
    """
    names: list[str] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        if part not in GROUPS and part not in GROUPS["all"] and not part.endswith(".onnx"):
            zoo.parse_name(part)
        names += GROUPS.get(part, (part,))
    if not names:
        raise ValueError("no model is named")
    return list(dict.fromkeys(names))


def provide(name: str, folder: Path, zoo_python: str) -> Model:
    """Find or make one model's file.

    Parameters
    ----------
    name : str
        As :func:`expand` returns it.
    folder : Path
        Where made files stay for the next time.
    zoo_python : str
        Interpreter with torch and onnx, for models of the zoo.

    Returns
    -------
    Model
        The model.

    Raises
    ------
    ModelUnavailable
        If a package or torch is missing, or a file does not exist.
    """
    if name.endswith(".onnx"):
        path = Path(name)
        if not path.is_file():
            raise ModelUnavailable(f"there is no file {name}")
        return Model(path.stem, path, {})
    if name in SHIPPED:
        shipped = SHIPPED[name]
        return Model(name, _find(shipped), shipped.shapes)
    folder.mkdir(parents=True, exist_ok=True)
    if name in DETECTOR_NAMES:
        return Model(name, DETECTORS[DETECTOR_NAMES[name]].write(folder), {})
    path = folder / f"{name}.onnx"
    if not path.is_file():
        _make(name, folder, zoo_python)
    return Model(name, path, {})


def _find(shipped: Shipped) -> Path:
    spec = importlib.util.find_spec(shipped.module)
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (Path(place) / shipped.path).is_file():
            return Path(place) / shipped.path
    raise ModelUnavailable(f"it is in a package: pip install {shipped.package}")


def _make(name: str, folder: Path, python: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [python, "-W", "ignore", "-m", "scripts.zoo", str(folder.resolve()), name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=REPOSITORY)
    except OSError as error:
        raise ModelUnavailable(f"'{python}' cannot be started: {error.strerror}") from error
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        hint = ""
        if "No module named" in reason:
            hint = "; run scripts/setup-peers, or give --zoo-python an interpreter with torch and onnx"
        raise ModelUnavailable(f"the zoo's maker failed: {reason}{hint}")


def default_zoo_python() -> str:
    """This interpreter if it has torch, else the one that ``scripts/setup-peers`` made, else this one."""
    peers = REPOSITORY / ".peers" / "engines" / "bin" / "python"
    if importlib.util.find_spec("torch") is None and peers.exists():
        return str(peers)
    return sys.executable
