"""A convolution of groups at one pixel, written out."""

from __future__ import annotations

from collections.abc import Callable

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


def check_product(fmt, packed: dict, weight: np.ndarray, multiply: Callable[..., np.ndarray]) -> None:
    """Compare ``multiply(fmt, packed, buffer, bias)`` with the dense product; elements between the taps are NaN."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((fmt.groups * weight.shape[1], len(fmt.taps)))
    bias = rng.standard_normal(len(weight))
    stored = np.full((len(x), fmt.channel_stride), np.nan)
    stored[:, fmt.taps] = x
    got = multiply(fmt, packed, stored.reshape(-1), bias)
    np.testing.assert_allclose(got, convolve(weight, x, fmt.groups) + bias, rtol=1e-6, atol=1e-6)
