"""Pictures of text, drawn without a font library, as inputs for text recognition models."""

from __future__ import annotations

import numpy as np
import scipy.ndimage

_GLYPHS = {
    "S": ["01111", "10000", "10000", "01110", "00001", "00001", "11110"],
    "P": ["11110", "10001", "10001", "11110", "10000", "10000", "10000"],
    "A": ["01110", "10001", "10001", "11111", "10001", "10001", "10001"],
    "R": ["11110", "10001", "10001", "11110", "10100", "10010", "10001"],
    "E": ["11111", "10000", "10000", "11110", "10000", "10000", "11111"],
    "T": ["11111", "00100", "00100", "00100", "00100", "00100", "00100"],
    "X": ["10001", "10001", "01010", "00100", "01010", "10001", "10001"],
    " ": ["00000"] * 7,
}


def text_picture(text: str, height: int, width: int, stroke: int, dark: bool = True) -> np.ndarray:
    """Text in the middle of a plain picture, smoothed a little, with the grain of a camera.

    Parameters
    ----------
    text : str
        Letters of `_GLYPHS`.
    height, width : int
        Size of the picture.
    stroke : int
        Pixels of a stroke; a letter is 5 strokes wide and 7 high.
    dark : bool
        Dark on light, or light on dark.

    Returns
    -------
    numpy.ndarray
        float32 ``[1, 3, height, width]`` in [-1, 1].
    """
    rows = ["0".join(_GLYPHS[letter][row] for letter in text) for row in range(7)]
    bits = np.array([[int(bit) for bit in row] for row in rows], dtype="float32")
    drawn = bits.repeat(stroke, axis=0).repeat(stroke, axis=1)
    top, left = (height - drawn.shape[0]) // 2, (width - drawn.shape[1]) // 2
    ink = np.zeros((height, width), dtype="float32")
    ink[top : top + drawn.shape[0], left : left + drawn.shape[1]] = drawn
    ink = scipy.ndimage.gaussian_filter(ink, stroke / 4)
    plane = 0.8 * (1 - 2 * ink if dark else 2 * ink - 1)
    grain = 0.05 * np.random.default_rng(0).standard_normal((1, 3, height, width))
    return np.clip(plane + grain, -1, 1).astype("float32")
