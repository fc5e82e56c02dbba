"""Building an expression step by step: bound values, constants of the operand's type, the core of exp."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tvm import tirx
from tvm.ir import Expr

LOG2_E = 1 / math.log(2)
# ln 2 in two parts; the first has so few bits that its product with an exponent is exact.
LN2_HIGH = 0.693359375
LN2_LOW = math.log(2) - LN2_HIGH
# Adding 1.5 * 2^23 rounds a small float to an integer and leaves that integer in the low bits.
ROUND = 12582912.0
EXP_OVERFLOW = 88.7228317  # largest x with a finite exp(x)
EXP_UNDERFLOW = -87.3365402  # below it exp(x) is denormal and is flushed to zero

# (exp(r) - 1 - r) / r^2 on [-ln2/2, ln2/2], relative error of exp 3e-9.
EXP_TERMS = (0.4999999403953552, 0.1666652113199234, 0.04166838899254799, 0.008368716575205326, 0.001381459878757596)


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


class Scope:
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

    def shifted(self, x: Expr) -> Expr:
        """``x + ROUND``, bound; a multiply-add, since TVM would cancel ``(x + ROUND) - ROUND``."""
        return self.let(fma(x, self.f32(1.0), self.f32(ROUND)))

    def exp_parts(self, x: Expr) -> tuple[Expr, Expr, Expr]:
        """Split x = n ln2 + r; return n (in the low bits of a float), r, and exp(r) - 1 as bound values."""
        shifted = self.let(fma(x, self.f32(LOG2_E), self.f32(ROUND)))
        n = self.let(shifted - self.f32(ROUND))
        r = self.let(fma(n, self.f32(-LN2_LOW), fma(n, self.f32(-LN2_HIGH), x)))
        expm1_r = self.let(fma(r * r, self.horner(r, EXP_TERMS), r))
        return shifted, r, expm1_r

    def exp_in_range(self, x: Expr) -> Expr:
        """exp(x) for x in [EXP_UNDERFLOW, EXP_OVERFLOW], unspecified outside.

        The exponent is added to the bits of exp(r), not multiplied: that reaches 2^128 without an overflow.
        """
        shifted, _, expm1_r = self.exp_parts(x)
        return self.from_bits(self.bits(expm1_r + self.f32(1.0)) + (self.bits(shifted) << self.i32(23)))

    def exp_not_below(self, x: Expr) -> Expr:
        """exp(max(x, EXP_UNDERFLOW)), infinite on overflow: for denominators 1 + exp(x)."""
        x = self.let(x)
        y = self.exp_in_range(self.let(self.at_least(x, EXP_UNDERFLOW)))
        return self.let(tirx.Select(x < self.f32(EXP_OVERFLOW), y, x + self.f32(math.inf)))
