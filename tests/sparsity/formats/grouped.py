"""A convolution of groups at one pixel, written out."""

from __future__ import annotations

import numpy as np


def convolve(weight: np.ndarray, x: np.ndarray, groups: int) -> np.ndarray:
    """``y[M]`` of a weight ``[M, C / groups, taps]`` and taps of the inputs ``x [C, taps]``."""
    rows, per_group = weight.shape[0] // groups, weight.shape[1]
    return np.array(
        [
            (weight[row].astype("float64") * x[row // rows * per_group :][:per_group]).sum()
            for row in range(weight.shape[0])
        ]
    )
