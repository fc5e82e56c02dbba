"""Expressions as polynomials of one variable: a formula is recognised in whatever order it is written."""

from __future__ import annotations

import math
from collections.abc import Callable

from tvm import relax

from ..graph import constant
from ..rewrite import Rewriter, dtype_of, operator_name, scalar, shape_of

Polynomial = dict[int, float]
"""Coefficients by degree; absent ones are zero."""

_MAX_DEGREE = 3


def polynomial(
    rewriter: Rewriter, expression: relax.Expr, is_base: Callable[[relax.Expr], bool]
) -> Polynomial | None:
    """Coefficients of an expression as a polynomial of a base.

    Parameters
    ----------
    rewriter : Rewriter
        Knows what makes each variable.
    expression : relax.Expr
        Sums, products, quotients and powers with constants of one element, nested in any way.
    is_base : callable
        Tells the variable (or call) that the polynomial is of.

    Returns
    -------
    dict of int to float, or None
        Coefficients by degree, up to degree 3; None if the expression is anything else.
    """
    if is_base(expression):
        return {1: 1.0}
    number = scalar(expression)
    if number is not None:
        return {0: number}
    value = rewriter.producer(expression)
    name = operator_name(value)
    if name == "relax.negative":
        inner = polynomial(rewriter, value.args[0], is_base)
        return None if inner is None else {degree: -c for degree, c in inner.items()}
    if name == "relax.square":
        inner = polynomial(rewriter, value.args[0], is_base)
        return None if inner is None else _product(inner, inner)
    if name not in ("relax.add", "relax.subtract", "relax.multiply", "relax.divide", "relax.power"):
        return None
    a = polynomial(rewriter, value.args[0], is_base)
    b = polynomial(rewriter, value.args[1], is_base) if a is not None else None
    if a is None or b is None:
        return None
    if name == "relax.add":
        return {degree: a.get(degree, 0) + b.get(degree, 0) for degree in {*a, *b}}
    if name == "relax.subtract":
        return {degree: a.get(degree, 0) - b.get(degree, 0) for degree in {*a, *b}}
    if name == "relax.multiply":
        return _product(a, b)
    if set(b) != {0}:
        return None
    if name == "relax.divide":
        return {degree: c / b[0] for degree, c in a.items()} if b[0] else None
    if b[0] not in (1, 2, 3):
        return None
    result: Polynomial | None = {0: 1.0}
    for _ in range(int(b[0])):
        result = _product(result, a) if result is not None else None
    return result


def _product(a: Polynomial, b: Polynomial) -> Polynomial | None:
    result: Polynomial = {}
    for i, x in a.items():
        for j, y in b.items():
            if i + j > _MAX_DEGREE:
                return None
            result[i + j] = result.get(i + j, 0) + x * y
    return result


def is_close(found: Polynomial | None, wanted: Polynomial) -> bool:
    """Whether two polynomials have the same coefficients to float32 precision of written constants."""
    if found is None:
        return False
    return all(
        math.isclose(found.get(degree, 0), wanted.get(degree, 0), rel_tol=2e-4, abs_tol=1e-9)
        for degree in {*found, *wanted}
    )


def factors(rewriter: Rewriter, value: relax.Expr) -> tuple[float, list[relax.Expr]]:
    """A product as a number and the tensors of the same shape that it multiplies.

    Products are followed through variables; sums and everything else are factors.
    """
    shape = shape_of(value)

    def split(expression: relax.Expr, depth: int) -> tuple[float, list[relax.Expr]]:
        call = expression if isinstance(expression, relax.Call) else rewriter.producer(expression)
        name = operator_name(call)
        if depth < 4 and name in ("relax.multiply", "relax.divide") and shape_of(call) == shape:
            a, b = call.args
            number = scalar(b)
            if number is not None and (name == "relax.multiply" or number):
                scale, rest = split(a, depth + 1)
                return scale * number if name == "relax.multiply" else scale / number, rest
            if name == "relax.multiply" and constant(b) is None and dtype_of(a) == dtype_of(b):
                (x, first), (y, second) = split(a, depth + 1), split(b, depth + 1)
                return x * y, first + second
        return 1.0, [expression]

    return split(value, 0)
