"""Decoding of the detectors' outputs, by ONNX Runtime on the golden photo and on made-up rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from scripts.detection import (
    DATA,
    DETECTORS,
    Detection,
    decode,
    draw,
    intersection_over_union,
    prepare,
    to_picture,
)


def outputs_of(name: str, pixels: np.ndarray, folder: Path) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(
        str(DETECTORS[name].write(folder)), providers=["CPUExecutionProvider"]
    )
    return session.run(["Identity", "Identity_1"], {"input_1": pixels})


def test_anchors_are_one_a_row() -> None:
    face, pose = DETECTORS["face"].anchors(), DETECTORS["pose"].anchors()
    assert face.shape == (2304, 2) and pose.shape == (2254, 2)
    # Row-major, 48 a row, 4 pixels each.
    np.testing.assert_allclose(face[549], [(21 + 0.5) * 4, (11 + 0.5) * 4])
    np.testing.assert_allclose(pose[1], pose[0])  # two per cell
    np.testing.assert_allclose(pose[-1], [208, 208])


def test_the_face_is_found_where_it_is(tmp_path: Path) -> None:
    photo = Image.open(DATA / "astronaut.jpg").convert("RGB")
    pixels, scale, offset = prepare(photo, 192)
    found = decode(DETECTORS["face"], *outputs_of("face", pixels, tmp_path))
    assert len(found) == 1
    face = to_picture(found[0], scale, offset)
    assert face.score > 0.8
    left, top, right, bottom = face.box
    # The face in the photo (read off by hand): eyes, nose and mouth lie inside.
    assert 150 < left < 200 and 40 < top < 110 and 240 < right < 300 and 150 < bottom < 200
    eyes, mouth = face.points[:2, 1], face.points[3, 1]
    assert (eyes < mouth).all()


def test_the_person_is_found_once(tmp_path: Path) -> None:
    pixels, _, _ = prepare(Image.open(DATA / "astronaut.jpg").convert("RGB"), 224)
    found = decode(DETECTORS["pose"], *outputs_of("pose", pixels, tmp_path))
    assert len(found) == 1 and found[0].score > 0.7


def test_letterbox_and_back() -> None:
    photo = Image.new("RGB", (400, 200), (255, 0, 0))
    pixels, scale, offset = prepare(photo, 192)
    assert pixels.shape == (1, 192, 192, 3) and offset == (0, 48) and scale == pytest.approx(0.48)
    assert (pixels[0, :48] == -1).all() and (pixels[0, 48:144, :, 0] == 1).all()
    corner = Detection(1.0, np.array([0, 48, 192, 144], "float32"), np.array([[96, 96]], "float32"))
    back = to_picture(corner, scale, offset)
    np.testing.assert_allclose(back.box, [0, 0, 400, 200], atol=1e-3)
    np.testing.assert_allclose(back.points, [[200, 100]], atol=1e-3)


def test_overlapping_boxes_are_merged_and_weak_ones_dropped() -> None:
    detector = DETECTORS["face"]
    rows, scores = np.zeros((1, 2304, 16), "float32"), np.full((1, 2304, 1), -200, "float32")
    rows[0, :, 2:4] = 40
    scores[0, [100, 101, 2000, 2001], 0] = [2, 3, 1, -1]
    found = decode(detector, rows, scores)
    assert [round(d.score, 3) for d in found] == [0.953, 0.731]
    np.testing.assert_allclose(found[0].box[:2] + 20, detector.anchors()[101])


@pytest.mark.parametrize(
    "other, overlap", [((0, 0, 2, 2), 1.0), ((1, 0, 3, 2), 1 / 3), ((2, 2, 4, 4), 0.0), ((5, 5, 6, 6), 0.0)]
)
def test_intersection_over_union(other: tuple, overlap: float) -> None:
    assert intersection_over_union(np.array([0, 0, 2, 2]), np.array(other)) == pytest.approx(overlap)


def test_drawing_leaves_the_photo_alone() -> None:
    photo = Image.new("RGB", (64, 64))
    box = Detection(0.9, np.array([8, 8, 40, 40], "float32"), np.array([[24, 24]], "float32"))
    picture = draw(photo, [box])
    assert np.asarray(photo).max() == 0
    drawn = np.asarray(picture)
    assert drawn[40, 24].tolist() == [0, 230, 118] and drawn[24, 24].tolist() == [255, 82, 82]
