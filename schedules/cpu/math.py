"""Transcendental functions of float32 as polynomials: straight-line vector code, never a call of libm.

Every function takes a ``float32`` expression of any number of lanes and returns one of the same type, made of
multiply-adds, integer shifts, selects and at most one division, so it compiles to vector code on every target.
Intermediate values are bound with ``tirx.Let``: without that the expression would grow exponentially.

All coefficients are minimax fits (Lawson's iteration, weighted for relative error) of the functions named beside
them. A NaN operand gives NaN: clamps are written ``max(c, x)``, compiled to ``c > x ? c : x``, which keeps it and is
one instruction. They are no selects: TVM's simplifier assumes each select's condition with all bound values inlined,
which takes time exponential in the length of a chain of them.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

import tvm
from tvm import tirx
from tvm.ir import Expr

_LOG2_E = 1 / math.log(2)
# ln 2 in two parts; the first has so few bits that its product with an exponent is exact.
_LN2_HIGH = 0.693359375
_LN2_LOW = math.log(2) - _LN2_HIGH
# Adding 1.5 * 2^23 rounds a small float to an integer and leaves that integer in the low bits.
_ROUND = 12582912.0
_EXP_OVERFLOW = 88.7228317  # largest x with a finite exp(x)
_EXP_UNDERFLOW = -87.3365402  # below it exp(x) is denormal and is flushed to zero

# (exp(r) - 1 - r) / r^2 on [-ln2/2, ln2/2], relative error of exp 3e-9.
_EXP = (0.4999999403953552, 0.1666652113199234, 0.04166838899254799, 0.008368716575205326, 0.001381459878757596)
# (2 atanh(s) / s - 2) / s^2 in s^2: for s^2 <= 0.0295 (log) and s^2 <= 1/9 (log1p of 0..1).
_LOG = (0.6666677594184875, 0.39977526664733887, 0.2987215220928192)
_LOG1P = (0.6666641235351562, 0.4002169966697693, 0.27999141812324524, 0.2802445888519287)
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


class _Scope:
    """Let bindings around one result, for operands of one type."""

    def __init__(self, x: Expr) -> None:
        dtype = str(x.ty)
        if dtype != "float32" and not dtype.startswith("float32x"):
            raise TypeError(f"expected a float32 expression, got {dtype}")
        self.dtype = dtype
        self.int_dtype = dtype.replace("float32", "int32")
        self._bindings: list[tuple[tirx.Var, Expr]] = []

    def let(self, value: Expr) -> Expr:
        """Bind a value to a fresh variable, so that it is computed once."""
        if isinstance(value, tirx.Var):
            return value
        var = tirx.Var(f"t{len(self._bindings)}", str(value.ty))
        self._bindings.append((var, value))
        return var

    def result(self, value: Expr) -> Expr:
        """Wrap the bindings made so far around the result."""
        for var, bound in reversed(self._bindings):
            value = tirx.Let(var, bound, value)
        return value

    def f32(self, value: float) -> Expr:
        """A float32 constant of the operand's lanes."""
        return tirx.const(value, self.dtype)

    def i32(self, value: int) -> Expr:
        """An int32 constant of the operand's lanes."""
        return tirx.const(value, self.int_dtype)

    def bits(self, x: Expr) -> Expr:
        """The bits of a float32 as int32."""
        return tirx.reinterpret(self.int_dtype, x)

    def from_bits(self, x: Expr) -> Expr:
        """The float32 with the given bits."""
        return tirx.reinterpret(self.dtype, x)

    def horner(self, x: Expr, coefficients: Sequence[float]) -> Expr:
        """A polynomial, coefficients from the constant upwards."""
        value: Expr = self.f32(coefficients[-1])
        for c in reversed(coefficients[:-1]):
            value = fma(value, x, self.f32(c))
        return value

    def at_most(self, x: Expr, limit: float) -> Expr:
        """min(x, limit) that keeps NaN; ``x`` should be bound."""
        return tirx.Min(self.f32(limit), x)

    def at_least(self, x: Expr, limit: float) -> Expr:
        """max(x, limit) that keeps NaN; ``x`` should be bound."""
        return tirx.Max(self.f32(limit), x)

    def exp_parts(self, x: Expr) -> tuple[Expr, Expr, Expr]:
        """Split x = n ln2 + r; return n (in the low bits of a float), r, and exp(r) - 1 as bound values."""
        shifted = self.let(fma(x, self.f32(_LOG2_E), self.f32(_ROUND)))
        n = self.let(shifted - self.f32(_ROUND))
        r = self.let(fma(n, self.f32(-_LN2_LOW), fma(n, self.f32(-_LN2_HIGH), x)))
        expm1_r = self.let(fma(r * r, self.horner(r, _EXP), r))
        return shifted, r, expm1_r

    def exp_in_range(self, x: Expr) -> Expr:
        """exp(x) for x in [_EXP_UNDERFLOW, _EXP_OVERFLOW], unspecified outside.

        The exponent is added to the bits of exp(r), not multiplied: that reaches 2^128 without an overflow.
        """
        shifted, _, expm1_r = self.exp_parts(x)
        return self.from_bits(self.bits(expm1_r + self.f32(1.0)) + (self.bits(shifted) << self.i32(23)))

    def exp_not_below(self, x: Expr) -> Expr:
        """exp(max(x, _EXP_UNDERFLOW)), infinite on overflow: for denominators 1 + exp(x)."""
        x = self.let(x)
        y = self.exp_in_range(self.let(self.at_least(x, _EXP_UNDERFLOW)))
        return self.let(tirx.Select(x < self.f32(_EXP_OVERFLOW), y, x + self.f32(math.inf)))


def fma(a: Expr, b: Expr, c: Expr) -> Expr:
    """``a * b + c``, fused where the target can.

    Parameters
    ----------
    a, b, c : Expr
        float32 expressions of the same lanes.

    Returns
    -------
    Expr
        The sum, float32 of the same lanes. Targets without fused multiply-adds round twice instead of calling libm.
    """
    return tirx.call_llvm_pure_intrin(str(a.ty), "llvm.fmuladd", a, b, c)


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
    s = _Scope(x)
    x = s.let(x)
    y = s.exp_in_range(x)
    high = tirx.Select(x < s.f32(_EXP_OVERFLOW), y, x + s.f32(math.inf))
    return s.result(tirx.Select(x < s.f32(_EXP_UNDERFLOW), s.f32(0.0), high))


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
    s = _Scope(x)
    x = s.let(x)
    return s.result(tirx.Select(x < s.f32(_EXP_UNDERFLOW), s.f32(0.0), s.exp_in_range(x)))


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
    s = _Scope(x)
    x = s.let(x)
    # Only the fraction is scaled by ln 2, so large exponents lose nothing; beyond +-256 everything saturates.
    bounded = s.let(s.at_least(s.let(s.at_most(x, 256.0)), -256.0))
    shifted = s.let(bounded + s.f32(_ROUND))
    r = s.let((bounded - (shifted - s.f32(_ROUND))) * s.f32(math.log(2)))
    power = fma(r * r, s.horner(r, _EXP), r) + s.f32(1.0)
    y = s.from_bits(s.bits(power) + (s.bits(shifted) << s.i32(23)))
    high = tirx.Select(x < s.f32(128.0), y, x + s.f32(math.inf))
    return s.result(tirx.Select(x < s.f32(-126.0), s.f32(0.0), high))


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
    s = _Scope(x)
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
    s = _Scope(x)
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
    s = _Scope(x)
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
    s = _Scope(x)
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
    low = fma(t, fma(z, s.horner(z, _LOG), half_square), exponent * s.f32(_LN2_LOW))
    y = s.let(fma(exponent, s.f32(_LN2_HIGH), f - (half_square - low)))
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
    s = _Scope(u)
    u = s.let(u)
    t = s.let(u / (u + s.f32(2.0)))
    z = s.let(t * t)
    return s.result(t * fma(z, s.horner(z, _LOG1P), s.f32(2.0)))


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
    s = _Scope(x)
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
    s = _Scope(x)
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
    s = _Scope(x)
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
    s = _Scope(x)
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
    s = _Scope(x)
    # Below -5.6 the result is under 1e-7; bounding x there keeps the rounding of 1 + erf from being scaled up.
    x = s.let(s.at_least(s.let(x), -5.6))
    half = s.let(x * s.f32(0.5))
    phi = _odd_rational(s, x * s.f32(math.sqrt(0.5)), _ERF_LIMIT, _ERF_P, _ERF_Q)
    return s.result(fma(half, phi, half))


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
    s = _Scope(x)
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
    s = _Scope(x)
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
    s = _Scope(x)
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
    s = _Scope(x)
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
    s = _Scope(x)
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
    s = _Scope(x)
    x = s.let(x)
    return s.result(x * hard_sigmoid(x))


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
    s = _Scope(x)
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


def _odd_rational(
    s: _Scope, x: Expr, limit: float, numerator: Sequence[float], denominator: Sequence[float]
) -> Expr:
    """x P(x^2) / Q(x^2) with x bounded to +-limit, where the function is +-1, and the result to [-1, 1]."""
    x = s.let(x)
    x = s.let(s.at_least(s.let(s.at_most(x, limit)), -limit))
    z = s.let(x * x)
    y = s.let(x * s.horner(z, numerator) / s.horner(z, denominator))
    return s.at_least(s.let(s.at_most(y, 1.0)), -1.0)
