"""Sigmoid, tanh, erf, and the activations made of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from tvm import tirx
from tvm.ir import Expr

from .exponentials import exp, exp_nonpositive, expm1, log1p_unit
from .scope import ROUND, Scope, fma

# tanh(x) / x in x^2, |x| <= 9.1, relative error 7e-8.
_TANH_LIMIT = 9.1
_TANH_P = (
    0.9999999403953552,
    0.12912945449352264,
    0.00291401706635952,
    9.206170034303796e-06,
    -1.2598665222185446e-08,
    1.7797053761259285e-11,
)
_TANH_Q = (1.0, 0.46246224641799927, 0.0237355288118124, 0.00022716965759173036)
# erf(x) / x in x^2, |x| <= 3.95, relative error 2e-8.
_ERF_LIMIT = 3.95
_ERF_P = (
    1.1283791065216064,
    0.1915503889322281,
    0.05287546291947365,
    0.0038081672973930836,
    0.0002846882271114737,
    2.025911953751347e-06,
)
_ERF_Q = (
    1.0,
    0.5030897855758667,
    0.11455966532230377,
    0.015055100433528423,
    0.0011707278899848461,
    3.7831865483894944e-05,
)

# Pieces of the normal distribution's tail: as many as a register has lanes. Beyond the limit GELU is under 1e-7.
GELU_PIECES = 16
_GELU_LIMIT = 5.6


def sigmoid(x: Expr) -> Expr:
    """1 / (1 + exp(-x)), within 3 ulp; exactly 0 and 1 at the infinities.

    Parameters
    ----------
    x : Expr
        float32, any lanes.

    Returns
    -------
    Expr
        float32 of the same lanes.
    """
    s = Scope(x)
    return s.result(s.f32(1.0) / (s.f32(1.0) + s.exp_not_below(s.f32(0.0) - s.let(x))))


def silu(x: Expr) -> Expr:
    """x * sigmoid(x), within 4 ulp.

    Parameters
    ----------
    x : Expr
        float32, any lanes.

    Returns
    -------
    Expr
        float32 of the same lanes.
    """
    s = Scope(x)
    x = s.let(x)
    return s.result(x / (s.f32(1.0) + s.exp_not_below(s.f32(0.0) - x)))


def tanh(x: Expr) -> Expr:
    """Hyperbolic tangent, within 6 ulp, also near zero; never outside [-1, 1].

    Parameters
    ----------
    x : Expr
        float32, any lanes.

    Returns
    -------
    Expr
        float32 of the same lanes.
    """
    s = Scope(x)
    return s.result(_odd_rational(s, x, _TANH_LIMIT, _TANH_P, _TANH_Q))


def erf(x: Expr) -> Expr:
    """Error function, within 6 ulp, also near zero; never outside [-1, 1].

    Parameters
    ----------
    x : Expr
        float32, any lanes.

    Returns
    -------
    Expr
        float32 of the same lanes.
    """
    s = Scope(x)
    return s.result(_odd_rational(s, x, _ERF_LIMIT, _ERF_P, _ERF_Q))


def gelu(x: Expr) -> Expr:
    """x * Phi(x), Phi the normal distribution, by `erf`; absolute error at most 1e-6 for any x.

    Parameters
    ----------
    x : Expr
        float32, any lanes.

    Returns
    -------
    Expr
        float32 of the same lanes.
    """
    s = Scope(x)
    # Below -5.6 the result is under 1e-7; bounding x there keeps the rounding of 1 + erf from being scaled up.
    x = s.let(s.at_least(s.let(x), -5.6))
    half = s.let(x * s.f32(0.5))
    phi = _odd_rational(s, x * s.f32(math.sqrt(0.5)), _ERF_LIMIT, _ERF_P, _ERF_Q)
    return s.result(fma(half, phi, half))


def gelu_by_pieces(x: Expr) -> Expr:
    """As `gelu`, for vectors of 16 lanes with AVX-512: no division, which alone takes as long; half the time.

    GELU is max(x, 0) - t Q(t), t = |x|, Q(t) = 1 - Phi(t). Each lane takes the coefficients of its piece of Q from
    registers, by a permute.

    Parameters
    ----------
    x : Expr
        float32x16.

    Returns
    -------
    Expr
        float32x16.
    """
    s = Scope(x)
    x = s.let(x)
    t = s.let(s.at_most(s.let(tirx.abs(x)), _GELU_LIMIT))
    step = _GELU_LIMIT / (GELU_PIECES - 1)
    number = s.let(fma(t, s.f32(1 / step), s.f32(ROUND)))
    r = s.let(fma(s.let(number - s.f32(ROUND)), s.f32(-step), t))
    tail: Expr | None = None
    for column in _normal_tail_pieces(step).T[::-1]:
        table = tirx.Shuffle([tirx.const(float(c), "float32") for c in column], list(range(GELU_PIECES)))
        # The permute looks at the lowest four bits, which hold the piece.
        c = s.let(tirx.call_llvm_pure_intrin(s.dtype, "llvm.x86.avx512.permvar.sf.512", table, s.bits(number)))
        tail = c if tail is None else s.let(fma(tail, r, c))
    return s.result(fma(s.f32(0.0) - t, tail, s.at_least(x, 0.0)))


def _normal_tail_pieces(step: float) -> np.ndarray:
    """Polynomials ``[pieces, 5]`` of 1 - Phi around the multiples of a step, by interpolation at Chebyshev's nodes."""
    nodes = step / 2 * np.cos(np.pi * (np.arange(5) + 0.5) / 5)
    centers = step * np.arange(GELU_PIECES)
    values = [[math.erfc((center + node) / math.sqrt(2)) / 2 for node in nodes] for center in centers]
    return np.linalg.solve(np.vander(nodes, increasing=True), np.array(values).T).T


def gelu_tanh(x: Expr) -> Expr:
    """GELU with the tanh approximation, x * sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3)), relative error 2e-5.

    Parameters
    ----------
    x : Expr
        float32, any lanes.

    Returns
    -------
    Expr
        float32 of the same lanes.
    """
    s = Scope(x)
    x = s.let(x)
    scale = -2 * math.sqrt(2 / math.pi)
    inner = s.let(x * fma(x * x, s.f32(scale * 0.044715), s.f32(scale)))
    return s.result(x / (s.f32(1.0) + s.exp_not_below(inner)))


def softplus(x: Expr) -> Expr:
    """log(1 + exp(x)), within 4 ulp, also for very negative x.

    Parameters
    ----------
    x : Expr
        float32, any lanes.

    Returns
    -------
    Expr
        float32 of the same lanes.
    """
    s = Scope(x)
    x = s.let(x)
    positive = s.at_least(x, 0.0)
    magnitude = s.let(s.f32(0.0) - tirx.abs(x))
    return s.result(positive + log1p_unit(exp_nonpositive(magnitude)))


def mish(x: Expr) -> Expr:
    """x * tanh(softplus(x)), within 5 ulp, by the identity tanh(log(1 + e)) = e (e + 2) / (e (e + 2) + 2).

    Parameters
    ----------
    x : Expr
        float32, any lanes.

    Returns
    -------
    Expr
        float32 of the same lanes.
    """
    s = Scope(x)
    x = s.let(x)
    # From 20 on the quotient is 1 in float32; the bound keeps e^2 finite.
    e = s.let(exp(s.let(s.at_most(x, 20.0))))
    n = s.let(e * (e + s.f32(2.0)))
    return s.result(x * (n / (n + s.f32(2.0))))


def elu(x: Expr, alpha: float = 1.0) -> Expr:
    """x above zero, alpha * (exp(x) - 1) below.

    Parameters
    ----------
    x : Expr
        float32, any lanes.
    alpha : float
        Scale of the negative part.

    Returns
    -------
    Expr
        float32 of the same lanes.
    """
    s = Scope(x)
    x = s.let(x)
    negative = s.let(s.at_most(x, 0.0))
    return s.result(tirx.Select(s.f32(0.0) < x, x, s.f32(alpha) * expm1(negative)))


def hard_sigmoid(x: Expr, alpha: float = 1 / 6, beta: float = 0.5) -> Expr:
    """max(0, min(1, alpha x + beta)).

    Parameters
    ----------
    x : Expr
        float32, any lanes.
    alpha, beta : float
        Slope and offset. ONNX's HardSigmoid has 0.2 and 0.5, PyTorch's 1/6 and 0.5.

    Returns
    -------
    Expr
        float32 of the same lanes.
    """
    s = Scope(x)
    y = s.let(fma(s.let(x), s.f32(alpha), s.f32(beta)))
    return s.result(s.at_least(s.let(s.at_most(y, 1.0)), 0.0))


def hard_swish(x: Expr) -> Expr:
    """x * max(0, min(1, x / 6 + 1/2)).

    Parameters
    ----------
    x : Expr
        float32, any lanes.

    Returns
    -------
    Expr
        float32 of the same lanes.
    """
    s = Scope(x)
    x = s.let(x)
    return s.result(x * hard_sigmoid(x))


def _odd_rational(
    s: Scope, x: Expr, limit: float, numerator: Sequence[float], denominator: Sequence[float]
) -> Expr:
    """x P(x^2) / Q(x^2) with x bounded to +-limit, where the function is +-1, and the result to [-1, 1]."""
    x = s.let(x)
    x = s.let(s.at_least(s.let(s.at_most(x, limit)), -limit))
    z = s.let(x * x)
    y = s.let(x * s.horner(z, numerator) / s.horner(z, denominator))
    return s.at_least(s.let(s.at_most(y, 1.0)), -1.0)
