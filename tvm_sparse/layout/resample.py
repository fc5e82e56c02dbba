"""Where the pixels of a resized image come from, per axis."""

from __future__ import annotations

import numpy as np


def source_positions(size_in: int, size_out: int, mode: str, scale: float | None = None) -> np.ndarray:
    """Position in the input of every output pixel of an axis, float64 ``[size_out]``.

    Parameters
    ----------
    size_in, size_out : int
        Pixels of the axis.
    mode : str
        ``"half_pixel"``, ``"pytorch_half_pixel"``, ``"align_corners"`` or ``"asymmetric"``.
    scale : float, optional
        Input pixels per output pixel; default: the ratio of the sizes.

    Raises
    ------
    ValueError
        If the mode is unknown.
    """
    at = np.arange(size_out, dtype=np.float64)
    ratio = size_in / size_out if scale is None else scale
    if mode == "pytorch_half_pixel" and size_out == 1:
        return np.zeros(1)
    if mode in ("half_pixel", "pytorch_half_pixel"):
        return (at + 0.5) * ratio - 0.5
    if mode == "align_corners":
        return at * ((size_in - 1) / (size_out - 1) if size_out > 1 else 0.0)
    if mode == "asymmetric":
        return at * ratio
    raise ValueError(f"unknown coordinate transformation {mode!r}")


def nearest(positions: np.ndarray, size_in: int, rounding: str) -> np.ndarray:
    """Nearest input pixel of every position, int64."""
    rounded = {
        "round": np.round,
        "round_prefer_floor": lambda p: np.ceil(p - 0.5),
        "round_prefer_ceil": lambda p: np.floor(p + 0.5),
        "floor": np.floor,
        "ceil": np.ceil,
        "": lambda p: np.ceil(p - 0.5),
    }
    if rounding not in rounded:
        raise ValueError(f"unknown rounding {rounding!r}")
    return np.clip(rounded[rounding](positions), 0, size_in - 1).astype(np.int64)


def linear(positions: np.ndarray, size_in: int) -> tuple[np.ndarray, np.ndarray]:
    """Two input pixels ``[2, n]`` and their weights ``[2, n]`` for every position."""
    low = np.floor(positions)
    weight = positions - low
    pixels = np.clip(np.stack([low, low + 1]), 0, size_in - 1).astype(np.int64)
    return pixels, np.stack([1 - weight, weight])
