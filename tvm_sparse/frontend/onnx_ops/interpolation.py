"""Interpolation along one axis as ONNX Resize defines it, as sparse rows of weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class AxisResize:
    """How one axis is resized.

    Parameters
    ----------
    size_in, size_out : int
        Sizes before and after.
    scale : float
        The scale of the coordinate transformation; as given, not rounded to whole sizes.
    mode : {"nearest", "linear", "cubic"}
        Interpolation.
    coordinates : str
        ONNX ``coordinate_transformation_mode``.
    rounding : str
        ONNX ``nearest_mode``.
    cubic_a : float
        Coefficient of the cubic kernel.
    exclude_outside, antialias : bool
        As the ONNX attributes.
    roi : tuple of float
        Start and end of the region, for ``tf_crop_and_resize``.
    """

    size_in: int
    size_out: int
    scale: float
    mode: str
    coordinates: str = "half_pixel"
    rounding: str = "round_prefer_floor"
    cubic_a: float = -0.75
    exclude_outside: bool = False
    antialias: bool = False
    roi: tuple[float, float] = (0.0, 1.0)

    def source(self) -> np.ndarray:
        """Positions in the input, float64 ``[size_out]``, by the coordinate transformation."""
        x = np.arange(self.size_out, dtype="float64")
        exact = self.scale * self.size_in
        if self.coordinates == "align_corners":
            return x * (self.size_in - 1) / (exact - 1) if exact != 1 else np.zeros_like(x)
        if self.coordinates == "asymmetric":
            return x / self.scale
        if self.coordinates == "pytorch_half_pixel" and self.size_out == 1:
            return np.full_like(x, -0.5)
        if self.coordinates in ("half_pixel", "pytorch_half_pixel"):
            return (x + 0.5) / self.scale - 0.5
        if self.coordinates == "half_pixel_symmetric":
            offset = self.size_in / 2 * (1 - self.size_out / exact)
            return offset + (x + 0.5) / self.scale - 0.5
        if self.coordinates == "tf_crop_and_resize":
            start, end = self.roi
            if self.size_out == 1:
                return np.full_like(x, (start + end) / 2 * (self.size_in - 1))
            return start * (self.size_in - 1) + x * (end - start) * (self.size_in - 1) / (self.size_out - 1)
        raise ValueError(f"unknown coordinate_transformation_mode {self.coordinates}")

    def taps(self) -> tuple[np.ndarray, np.ndarray]:
        """Indices, int64, and weights, float64, both ``[size_out, taps]``.

        ``output[i] = sum_t weights[i, t] * input[indices[i, t]]``; nearest is one tap of weight 1.
        """
        x = self.source()
        if self.mode == "nearest":
            return np.clip(self._round(x), 0, self.size_in - 1)[:, None], np.ones((self.size_out, 1))
        # Antialiasing stretches the kernel where the axis shrinks.
        stretch = min(self.scale, 1.0) if self.antialias else 1.0
        support = (1 if self.mode == "linear" else 2) / stretch
        first = np.floor(x - support).astype("int64") + 1
        count = int(np.ceil(2 * support)) + (1 if stretch < 1 else 0)
        indices = first[:, None] + np.arange(count)
        kernel = _linear if self.mode == "linear" else _cubic(self.cubic_a)
        weights = kernel(np.abs(indices - x[:, None]) * stretch)
        if self.exclude_outside:
            weights = np.where((indices >= 0) & (indices < self.size_in), weights, 0.0)
        weights = weights / weights.sum(axis=1, keepdims=True)
        return np.clip(indices, 0, self.size_in - 1), weights

    def inside(self) -> np.ndarray:
        """Bool ``[size_out]``: whether the position lies in the input."""
        x = self.source()
        return (x >= 0) & (x <= self.size_in - 1)

    def _round(self, x: np.ndarray) -> np.ndarray:
        rules = {
            "round_prefer_floor": lambda v: np.ceil(v - 0.5),
            "round_prefer_ceil": lambda v: np.floor(v + 0.5),
            "floor": np.floor,
            "ceil": np.ceil,
        }
        return rules[self.rounding](x).astype("int64")


def _linear(distance: np.ndarray) -> np.ndarray:
    return np.clip(1 - distance, 0, None)


def _cubic(a: float):
    """Keys' kernel with coefficient ``a``."""

    def kernel(d: np.ndarray) -> np.ndarray:
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        return np.where(d <= 1, near, np.where(d < 2, far, 0.0))

    return kernel
