"""The two pruned detectors in ``scripts/data``: their files, what goes in, and what the outputs mean."""

from __future__ import annotations

import lzma
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

DATA = Path(__file__).resolve().parent / "data"


@dataclass(frozen=True)
class Detector:
    """A single-shot detector.

    Parameters
    ----------
    file : str
        Name of the ONNX file in ``scripts/data``, which is stored with ``.xz`` after it.
    size : int
        Height and width of the input.
    grids : tuple of (int, int)
        Anchors in the order of the rows: side of a square grid, anchors per cell.
    keypoints : int
        Points that come with each box.
    """

    file: str
    size: int
    grids: tuple[tuple[int, int], ...]
    keypoints: int

    def write(self, folder: Path) -> Path:
        """Unpack the ONNX file into a folder; returns its path."""
        path = folder / self.file
        path.write_bytes(lzma.decompress((DATA / f"{self.file}.xz").read_bytes()))
        return path

    def anchors(self) -> np.ndarray:
        """Centres of the anchors in input pixels, ``[rows, 2]`` float32, x before y."""
        centres = []
        for side, count in self.grids:
            y, x = np.mgrid[0:side, 0:side]
            cell = (np.stack([x, y], -1).reshape(-1, 2) + 0.5) * (self.size / side)
            centres.append(np.repeat(cell, count, axis=0))
        return np.concatenate(centres).astype("float32")


DETECTORS = {
    "face": Detector("face_detection_sparse70.onnx", 192, ((48, 1),), 6),
    "pose": Detector("pose_detection_sparse75.onnx", 224, ((28, 2), (14, 2), (7, 6)), 4),
}


@dataclass(frozen=True)
class Detection:
    """One object found.

    Parameters
    ----------
    score : float
        Probability, 0 to 1.
    box : numpy.ndarray
        Left, top, right, bottom, ``[4]``.
    points : numpy.ndarray
        Key points, ``[keypoints, 2]``, x before y.
    """

    score: float
    box: np.ndarray
    points: np.ndarray


def prepare(image: Image, size: int) -> tuple[np.ndarray, float, tuple[int, int]]:
    """Fit a picture into the network's square input, with black bars where its shape differs.

    Parameters
    ----------
    image : PIL.Image.Image
        RGB picture.
    size : int
        Side of the input.

    Returns
    -------
    input : numpy.ndarray
        ``[1, size, size, 3]`` float32 in [-1, 1].
    scale : float
        Input pixels per pixel of the picture.
    offset : tuple of int
        Left and upper bar in input pixels.
    """
    from PIL import Image as pillow

    scale = size / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    left, top = (size - width) // 2, (size - height) // 2
    square = pillow.new("RGB", (size, size))
    square.paste(image.resize((width, height), pillow.Resampling.BILINEAR), (left, top))
    return normalise(np.asarray(square)[None]), scale, (left, top)


def normalise(pixels: np.ndarray) -> np.ndarray:
    """uint8 pixels to the float32 range [-1, 1] that the networks were trained on."""
    return pixels.astype("float32") / np.float32(127.5) - np.float32(1)


def decode(
    detector: Detector, rows: np.ndarray, scores: np.ndarray, threshold: float = 0.5, overlap: float = 0.3
) -> list[Detection]:
    """Turn raw outputs into detections, best first.

    Parameters
    ----------
    detector : Detector
        Whose outputs these are.
    rows : numpy.ndarray
        ``[1, anchors, 4 + 2 * keypoints]`` float32.
    scores : numpy.ndarray
        ``[1, anchors, 1]`` float32, before the sigmoid.
    threshold : float
        Least probability.
    overlap : float
        A box that covers a better one by more than this (intersection over union) is dropped.

    Returns
    -------
    list of Detection
        Coordinates in input pixels.
    """
    with np.errstate(over="ignore"):
        probability = 1 / (1 + np.exp(-scores.reshape(-1).astype("float64")))
    kept: list[Detection] = []
    anchors = detector.anchors()
    for index in np.argsort(-probability, kind="stable"):
        if probability[index] < threshold:
            break
        centre = rows[0, index, :2] + anchors[index]
        half = rows[0, index, 2:4] / 2
        box = np.concatenate([centre - half, centre + half])
        if all(intersection_over_union(box, better.box) <= overlap for better in kept):
            points = rows[0, index, 4:].reshape(detector.keypoints, 2) + anchors[index]
            kept.append(Detection(float(probability[index]), box, points))
    return kept


def intersection_over_union(a: np.ndarray, b: np.ndarray) -> float:
    """Overlap of two boxes ``[left, top, right, bottom]``, 0 to 1."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    if (sides <= 0).any():
        return 0.0
    common = float(np.prod(sides))
    return common / (float(np.prod(a[2:] - a[:2])) + float(np.prod(b[2:] - b[:2])) - common)


def to_picture(detection: Detection, scale: float, offset: tuple[int, int]) -> Detection:
    """Move a detection from input pixels to the pixels of the picture that :func:`prepare` was given."""
    shift = np.array(offset, "float32")
    box = (detection.box.reshape(2, 2) - shift) / scale
    return Detection(detection.score, box.reshape(4), (detection.points - shift) / scale)


def draw(image: Image, detections: list[Detection]) -> Image:
    """A copy of a picture with boxes, scores and key points drawn on it."""
    from PIL import ImageDraw

    picture = image.copy()
    pen = ImageDraw.Draw(picture)
    line = max(2, max(image.size) // 200)
    for detection in detections:
        left, top, right, bottom = (float(v) for v in detection.box)
        pen.rectangle((left, top, right, bottom), outline=(0, 230, 118), width=line)
        label = f" {detection.score:.0%} "
        pen.rectangle(pen.textbbox((left, top), label), fill=(0, 230, 118))
        pen.text((left, top), label, fill=(0, 0, 0))
        for x, y in detection.points:
            pen.ellipse((x - line, y - line, x + line, y + line), fill=(255, 82, 82))
    return picture
