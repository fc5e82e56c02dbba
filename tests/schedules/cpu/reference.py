"""What the kernels should compute, in float64 and without any trick."""

from __future__ import annotations

import numpy as np
from scipy.special import erf, expit

from tvm_sparse.layout.halo import Window

EPS = float(np.finfo("float32").eps)


def windows(x: np.ndarray, window: Window, fill: float) -> np.ndarray:
    """What every window reads: ``[N, C, kh, kw, H, W]`` from ``[N, C, h, w]``, `fill` outside of the image."""
    top, left, bottom, right = window.padding
    padded = np.pad(x.astype("float64"), ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)
    height, width = window.output_size(*x.shape[2:])
    out = np.empty((*x.shape[:2], *window.kernel, height, width))
    for ky in range(window.kernel[0]):
        for kx in range(window.kernel[1]):
            y, x_at = ky * window.dilation[0], kx * window.dilation[1]
            rows = slice(y, y + (height - 1) * window.stride[0] + 1, window.stride[0])
            columns = slice(x_at, x_at + (width - 1) * window.stride[1] + 1, window.stride[1])
            out[:, :, ky, kx] = padded[:, :, rows, columns]
    return out


def convolve(x: np.ndarray, weight: np.ndarray, window: Window, groups: int = 1) -> np.ndarray:
    """Convolution of ``[N, C, h, w]`` with ``[M, C / groups, kh, kw]``, float64."""
    seen = windows(x, window, 0.0)
    batch, channels = seen.shape[:2]
    grouped = seen.reshape(batch, groups, channels // groups, *seen.shape[2:])
    split = weight.astype("float64").reshape(groups, -1, *weight.shape[1:])
    out = np.einsum("bgcijhw,gmcij->bgmhw", grouped, split, optimize=True)
    return out.reshape(batch, len(weight), *out.shape[3:])


def convolution_bound(x: np.ndarray, weight: np.ndarray, window: Window, groups: int = 1) -> np.ndarray:
    """How far rounding may take float32 sums: some ulps of the sum of absolute values."""
    return 8 * EPS * (convolve(abs(x), abs(weight), window, groups) + 1)


def activate(kind: str, x: np.ndarray, parameters: tuple[float, ...], slopes: np.ndarray | None = None) -> np.ndarray:
    """An activation; slopes broadcast against `x`."""
    x = x.astype("float64")
    if kind == "clip":
        return np.clip(x, *parameters)
    if kind == "leaky_relu":
        return np.where(x > 0, x, parameters[0] * x)
    if kind == "prelu":
        return np.where(x > 0, x, slopes * x)
    return {
        "gelu": lambda: x * 0.5 * (1 + erf(x / np.sqrt(2))),
        "gelu_tanh": lambda: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
        "silu": lambda: x * expit(x),
        "sigmoid": lambda: expit(x),
        "tanh": lambda: np.tanh(x),
        "hard_swish": lambda: x * np.clip(x / 6 + 0.5, 0, 1),
        "hard_sigmoid": lambda: np.clip(x / 6 + 0.5, 0, 1),
    }[kind]()


def assert_within(got: np.ndarray, want: np.ndarray, bound: np.ndarray | float) -> None:
    """Check values against an absolute bound per element; NaN in the result is an error."""
    assert got.shape == want.shape and got.dtype == np.float32
    excess = np.abs(got.astype("float64") - want) - bound
    worst = np.unravel_index(np.argmax(np.where(np.isnan(excess), np.inf, excess)), got.shape)
    assert (excess <= 0).all(), f"at {worst}: {got[worst]} instead of {want[worst]}"
