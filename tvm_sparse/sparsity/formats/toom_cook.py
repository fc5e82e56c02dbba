"""Fast convolutions along one axis after Toom and Cook, as Winograd used them for networks.

Several neighbouring outputs are computed from products of combined inputs with combined weights; they need fewer
products than outputs times taps. With a stride, the taps fall into phases that read every so many pixels, and many taps
are cut into segments; each is such a convolution. All use the same points, so products at one point add up before
outputs are combined.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016); Blahut, "Fast Algorithms for Signal
Processing" (2010), chapter 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import numpy as np

# Points in the order of their use, beside the one at infinity. Small ones keep rounding errors small.
_POINTS = (Fraction(0), Fraction(1), Fraction(-1), Fraction(2), Fraction(-2), Fraction(1, 2))


@dataclass(frozen=True, eq=False)
class AxisAlgorithm:
    """How to compute some outputs of a convolution along one axis.

    With inputs `x` and taps `w`, output ``i`` is ``sum_k w[k] * x[stride * i + k]``, and that equals
    ``combine @ sums``, where ``sums[point]`` is the sum of ``(weights @ w) * (read @ x)`` over the point's products.

    Parameters
    ----------
    outputs, taps, stride : int
        Outputs computed together, taps and stride of the convolution.
    read : numpy.ndarray
        float64 ``[products, window]``.
    weights : numpy.ndarray
        float64 ``[products, taps]``.
    point : tuple of int
        Point of each product, ascending.
    combine : numpy.ndarray
        float64 ``[outputs, points]``.
    """

    outputs: int
    taps: int
    stride: int
    read: np.ndarray
    weights: np.ndarray
    point: tuple[int, ...]
    combine: np.ndarray

    @property
    def window(self) -> int:
        """Inputs that the outputs read."""
        return self.read.shape[1]

    @property
    def products(self) -> int:
        """Products of the outputs."""
        return len(self.point)

    @property
    def points(self) -> int:
        """Points."""
        return self.combine.shape[1]


def can_compute(outputs: int, taps: int, stride: int) -> bool:
    """Whether there are enough points, and no stride leaves out inputs."""
    return taps >= stride and outputs <= len(_POINTS) + 1


@cache
def axis_algorithm(outputs: int, taps: int, stride: int) -> AxisAlgorithm:
    """Find the algorithm for some outputs; a single output is computed tap by tap.

    Raises
    ------
    ValueError
        If the outputs need more points than there are, or the stride exceeds the taps.
    """
    if not can_compute(outputs, taps, stride):
        raise ValueError(f"no algorithm for {outputs} outputs of {taps} taps with a stride of {stride}")
    if outputs == 1:
        taps_alone = np.eye(taps)
        return AxisAlgorithm(1, taps, stride, taps_alone, taps_alone, (0,) * taps, np.ones((1, 1)))
    segments = [s for phase in range(stride) for s in _segments(range(phase, taps, stride), len(_POINTS) + 2 - outputs)]
    most = outputs + max(map(len, segments)) - 1
    window = (outputs - 1) * stride + taps
    products = []
    for own in segments:
        count = outputs + len(own) - 1
        finite = _POINTS[: count - 1]
        for number in range(count):
            at_infinity = number == count - 1
            read, weights = np.zeros(window), np.zeros(taps)
            others = [p for i, p in enumerate(finite) if i != number]
            polynomial = _product_of_roots(others)
            read[own.start : own.start + stride * len(polynomial) : stride] = [float(c) for c in polynomial]
            if at_infinity:
                weights[own[-1]] = 1.0
            else:
                scale = Fraction(1)
                for other in others:
                    scale *= finite[number] - other
                weights[list(own)] = [float(finite[number] ** k / scale) for k in range(len(own))]
            products.append((most - 1 if at_infinity else number, read, weights))
    products.sort(key=lambda product: product[0])
    combine = [[float(p**i) for p in _POINTS[: most - 1]] + [float(i == outputs - 1)] for i in range(outputs)]
    return AxisAlgorithm(
        outputs,
        taps,
        stride,
        np.array([read for _, read, _ in products]),
        np.array([weights for _, _, weights in products]),
        tuple(point for point, _, _ in products),
        np.array(combine),
    )


def _segments(taps: range, most: int) -> list[range]:
    """Cut taps into segments of about one length."""
    count = -(-len(taps) // most)
    bounds = [len(taps) * i // count for i in range(count + 1)]
    return [taps[a:b] for a, b in zip(bounds[:-1], bounds[1:], strict=True)]


def _product_of_roots(roots: list[Fraction]) -> list[Fraction]:
    """Coefficients of the polynomial with these roots, lowest first."""
    out = [Fraction(1)]
    for root in roots:
        lower = [Fraction(0), *out]
        out = [a - root * b for a, b in zip(lower, [*out, Fraction(0)], strict=True)]
    return out
