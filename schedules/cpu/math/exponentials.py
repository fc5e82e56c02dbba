"""Exponentials, logarithms, hyperbolic functions, powers."""

from __future__ import annotations

import math
import struct

import tvm
from tvm import tirx
from tvm.ir import Expr

from .scope import EXP_OVERFLOW, EXP_TERMS, EXP_UNDERFLOW, LN2_HIGH, LN2_LOW, ROUND, Scope, fma

# (2 atanh(s) / s - 2) / s^2 in s^2: for s^2 <= 0.0295 (log) and s^2 <= 1/9 (log1p of 0..1).
_LOG = (0.6666677594184875, 0.39977526664733887, 0.2987215220928192)
_LOG1P = (0.6666641235351562, 0.4002169966697693, 0.27999141812324524, 0.2802445888519287)
# 2^f for |f| <= 1/2, relative error 9e-8.
_EXP2 = (
    1.0, 0.6931469775991633, 0.24022242085375095, 0.055507337432519566, 0.009671512639649053, 0.0013264727197184703,
)  # fmt: skip


def exp(x: Expr) -> Expr:
    """exp(x), within 2 ulp; infinite above 88.72, zero below -87.34 (denormal results are flushed).

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
    y = s.exp_in_range(x)
    high = tirx.Select(x < s.f32(EXP_OVERFLOW), y, x + s.f32(math.inf))
    return s.result(tirx.Select(x < s.f32(EXP_UNDERFLOW), s.f32(0.0), high))


def exp_nonpositive(x: Expr) -> Expr:
    """exp(x) for x <= 0 (softmax): as `exp`, without the check of overflow.

    Parameters
    ----------
    x : Expr
        float32, any lanes, not above zero.

    Returns
    -------
    Expr
        float32 of the same lanes.
    """
    s = Scope(x)
    x = s.let(x)
    return s.result(tirx.Select(x < s.f32(EXP_UNDERFLOW), s.f32(0.0), s.exp_in_range(x)))


def exp2(x: Expr) -> Expr:
    """2^x, within 3 ulp for |x| < 32 and 1e-5 relative elsewhere; limits as `exp`.

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
    # Only the fraction is scaled by ln 2, so large exponents lose nothing; beyond +-256 everything saturates.
    bounded = s.let(s.at_least(s.let(s.at_most(x, 256.0)), -256.0))
    shifted = s.shifted(bounded)
    r = s.let((bounded - (shifted - s.f32(ROUND))) * s.f32(math.log(2)))
    power = fma(r * r, s.horner(r, EXP_TERMS), r) + s.f32(1.0)
    y = s.from_bits(s.bits(power) + (s.bits(shifted) << s.i32(23)))
    high = tirx.Select(x < s.f32(128.0), y, x + s.f32(math.inf))
    return s.result(tirx.Select(x < s.f32(-126.0), s.f32(0.0), high))


def exp2_nonpositive(x: Expr) -> Expr:
    """2^x for x <= 0 (softmax), within 3 ulp; 2^-126 below -126, which is nothing beside the largest, 1.

    Parameters
    ----------
    x : Expr
        float32, any lanes, not above zero.

    Returns
    -------
    Expr
        float32 of the same lanes.
    """
    s = Scope(x)
    bounded = s.let(s.at_least(s.let(x), -126.0))
    shifted = s.shifted(bounded)
    fraction = s.let(bounded - s.let(shifted - s.f32(ROUND)))
    return s.result(s.from_bits(s.bits(s.horner(fraction, _EXP2)) + (s.bits(shifted) << s.i32(23))))


def expm1(x: Expr) -> Expr:
    """exp(x) - 1 within 3 ulp, also near zero; infinite above 88.37.

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
    shifted, _, expm1_r = s.exp_parts(s.let(s.at_least(x, -80.0)))
    scale = s.let(s.from_bits((s.bits(shifted) << s.i32(23)) + s.i32(127 << 23)))
    y = fma(scale, expm1_r, scale - s.f32(1.0))
    return s.result(tirx.Select(x < s.f32(88.37), y, x + s.f32(math.inf)))


def cosh(x: Expr) -> Expr:
    """Hyperbolic cosine within 4 ulp for small arguments, 2e-6 of the value for large; infinite above 89.4.

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
    half = s.let(exp(s.let(tirx.abs(x) - s.f32(math.log(2.0)))))
    return s.result(half + s.f32(0.25) / half)


def sinh(x: Expr) -> Expr:
    """Hyperbolic sine within 6 ulp, also near zero; infinite above 88.37.

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
    e = s.let(expm1(s.let(tirx.abs(x))))
    y = s.let(s.f32(0.5) * (e + tirx.Select(e < s.f32(1e30), e / (e + s.f32(1.0)), s.f32(1.0))))
    return s.result(tirx.Select(x < s.f32(0.0), s.f32(0.0) - y, y))


def log(x: Expr) -> Expr:
    """Natural logarithm, within 2 ulp, also of denormals; -inf at zero, NaN below.

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
    # Not bound: TVM cannot bind a vector of booleans (LLVM computes it once).
    tiny = x < s.f32(2.0**-126)
    normal = s.let(tirx.Select(tiny, x * s.f32(2.0**24), x))
    bias = tirx.Select(tiny, s.f32(-24.0), s.f32(0.0))
    # Cut at sqrt(1/2), so that the mantissa lies in [0.707, 1.414).
    cut = struct.unpack("<i", struct.pack("<f", math.sqrt(0.5)))[0]
    offset = s.let(s.bits(normal) - s.i32(cut))
    exponent = s.let(tirx.Cast(tvm.ir.PrimType(s.dtype), offset >> s.i32(23)) + bias)
    mantissa = s.from_bits((offset & s.i32(0x7FFFFF)) + s.i32(cut))
    f = s.let(mantissa - s.f32(1.0))
    t = s.let(f / (f + s.f32(2.0)))
    z = s.let(t * t)
    half_square = s.let(f * f * s.f32(0.5))
    # log(1 + f) = f - f^2/2 + t * (f^2/2 + z * L(z)): the large terms are exact.
    low = fma(t, fma(z, s.horner(z, _LOG), half_square), exponent * s.f32(LN2_LOW))
    y = s.let(fma(exponent, s.f32(LN2_HIGH), f - (half_square - low)))
    finite = tirx.Select(x < s.f32(math.inf), y, x)
    negative = tirx.Select(x < s.f32(0.0), s.f32(math.nan), finite)
    return s.result(tirx.Select(x.equal(s.f32(0.0)), s.f32(-math.inf), negative))


def log1p_unit(u: Expr) -> Expr:
    """log(1 + u) for 0 <= u <= 1, within 2 ulp, also near zero.

    Parameters
    ----------
    u : Expr
        float32, any lanes, in [0, 1].

    Returns
    -------
    Expr
        float32 of the same lanes.
    """
    s = Scope(u)
    u = s.let(u)
    t = s.let(u / (u + s.f32(2.0)))
    z = s.let(t * t)
    return s.result(t * fma(z, s.horner(z, _LOG1P), s.f32(2.0)))


def power(x: Expr, exponent: float) -> Expr | None:
    """x raised to a constant power by multiplications and square roots.

    Parameters
    ----------
    x : Expr
        float32, any lanes.
    exponent : float
        The power.

    Returns
    -------
    Expr or None
        float32 of the same lanes; None if the power is not a multiple of 1/2 within [-16, 16].
    """
    s = Scope(x)
    doubled = 2 * exponent
    if not (math.isfinite(doubled) and doubled == int(doubled) and abs(exponent) <= 16):
        return None
    x = s.let(x)
    whole, half = divmod(abs(int(doubled)), 2)
    factor: Expr | None = tirx.sqrt(x) if half else None
    square = x
    while whole:
        if whole & 1:
            factor = square if factor is None else factor * square
        whole >>= 1
        if whole:
            square = s.let(square * square)
    value = s.f32(1.0) if factor is None else factor
    return s.result(value if exponent >= 0 else s.f32(1.0) / value)
