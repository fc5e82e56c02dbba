"""RecognizeActivations: GELU, SiLU, PReLU, hard swish and others from what exporters make of them."""

from __future__ import annotations

import math
from typing import Any

import tvm
from tvm import relax

from ..graph import constant
from ..rewrite import Rewriter, dtype_of, operator_name, rewrite_module, scalar, shape_of, tensor
from .hard_ops import HARD_SIGMOID, hard_sigmoid, hard_swish
from .polynomial import factors, is_close, polynomial


@tvm.transform.module_pass(opt_level=0, name="RecognizeActivations")
class RecognizeActivations:
    """Recognise activation functions written out in elementwise operators.

    The order of products and sums and the place of the constants do not matter: a product is taken apart into
    its factors, arguments are compared as polynomials of ``x``.
    """

    def transform_module(self, module: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Rewrite every Relax function."""
        return rewrite_module(module, _sigmoid, _hard_sigmoid, _gated, _prelu)


def _sigmoid(rewriter: Rewriter, _variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
    """``1 / (1 + exp(-x))``."""
    if operator_name(value) != "relax.divide" or scalar(value.args[0]) != 1 or not _is_float(value):
        return None
    total = rewriter.call(value.args[1], "relax.add")
    if total is None or scalar(total.args[1]) != 1:
        return None
    power = rewriter.call(total.args[0], "relax.exp")
    negated = rewriter.call(power.args[0], "relax.negative") if power is not None else None
    return relax.op.sigmoid(negated.args[0]) if negated is not None else None


def _hard_sigmoid(rewriter: Rewriter, _variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
    """``clip(x + 3, 0, 6) / 6`` and ``clip(x / 6 + 0.5, 0, 1)``."""
    scale, (inner, *rest) = factors(rewriter, value)
    clip = rewriter.call(inner, "relax.clip")
    if rest or clip is None or not _is_float(value):
        return None
    return _hard_sigmoid_of(rewriter, clip, scale)


def _hard_sigmoid_of(rewriter: Rewriter, clip: relax.Call, scale: float) -> relax.Expr | None:
    """``hard_sigmoid(x)`` if ``scale * clip`` is that."""
    low, high = scalar(clip.args[1]), scalar(clip.args[2])
    if low != 0 or high is None or not math.isclose(scale * high, 1, rel_tol=1e-5):
        return None
    x = _polynomial_base(rewriter, clip.args[0])
    if x is None:
        return None
    argument = polynomial(rewriter, clip.args[0], lambda e: rewriter.resolve(e).same_as(x))
    return hard_sigmoid(x) if is_close(argument, {1: high / 6, 0: high / 2}) else None


def _polynomial_base(rewriter: Rewriter, expression: relax.Expr) -> relax.Expr | None:
    """``x`` of ``x * a + b``."""
    addition = rewriter.call(expression, "relax.add")
    if addition is None or scalar(addition.args[1]) is None:
        return None
    product = rewriter.call(addition.args[0], "relax.multiply", "relax.divide")
    scaled = product is not None and scalar(product.args[1]) is not None
    return rewriter.resolve(product.args[0] if scaled else addition.args[0])


def _gated(rewriter: Rewriter, _variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
    """``x * gate(x)``: SiLU, hard swish, and GELU in its two forms."""
    if operator_name(value) not in ("relax.multiply", "relax.divide") or not _is_float(value):
        return None
    scale, parts = factors(rewriter, value)
    if len(parts) != 2:
        return None
    for x, gate in (parts, parts[::-1]):
        if shape_of(x) != shape_of(value):
            continue
        result = _gate(rewriter, rewriter.resolve(x), gate, scale)
        if result is not None:
            return result
    return None


def _gate(rewriter: Rewriter, x: relax.Expr, gate: relax.Expr, scale: float) -> relax.Expr | None:
    def is_x(expression: relax.Expr) -> bool:
        return rewriter.resolve(expression).same_as(x)

    inner = rewriter.call(gate, "relax.sigmoid", HARD_SIGMOID, "relax.clip")
    if inner is not None:
        name = operator_name(inner)
        if name == "relax.clip":
            hard = _hard_sigmoid_of(rewriter, inner, scale)
            return hard_swish(x) if hard is not None and is_x(hard.args[0]) else None
        if scale != 1 or not is_x(inner.args[0]):
            return None
        return relax.op.nn.silu(x) if name == "relax.sigmoid" else hard_swish(x)
    # scale * gate is (1 + f(u)) / 2 with f = erf or tanh and u a polynomial of x.
    functions: list[relax.Call] = []

    def is_function(expression: relax.Expr) -> bool:
        call = rewriter.call(expression, "relax.erf", "relax.tanh")
        if call is not None:
            functions.append(call)
        return call is not None

    outer = polynomial(rewriter, gate, is_function)
    if outer is None or len(functions) != 1:
        return None
    if not is_close({degree: scale * c for degree, c in outer.items()}, {0: 0.5, 1: 0.5}):
        return None
    argument = polynomial(rewriter, functions[0].args[0], is_x)
    if operator_name(functions[0]) == "relax.erf":
        return relax.op.nn.gelu(x) if is_close(argument, {1: math.sqrt(0.5)}) else None
    factor = math.sqrt(2 / math.pi)
    return relax.op.nn.gelu_tanh(x) if is_close(argument, {1: factor, 3: factor * 0.044715}) else None


def _prelu(rewriter: Rewriter, _variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
    """``where(x > 0, x, x * slope)`` with one slope, or one for each channel."""
    if operator_name(value) != "relax.where" or not _is_float(value):
        return None
    condition, x, negative = value.args
    test = rewriter.call(condition, "relax.greater", "relax.greater_equal")
    product = rewriter.call(negative, "relax.multiply")
    shape = shape_of(value)
    if test is None or product is None or scalar(test.args[1]) != 0 or shape is None or shape_of(x) != shape:
        return None
    x = rewriter.resolve(x)
    if not all(rewriter.resolve(call.args[0]).same_as(x) for call in (test, product)):
        return None
    slopes = constant(product.args[1])
    if slopes is None:
        return None
    if slopes.size == 1:
        return relax.op.nn.leakyrelu(x, float(slopes.reshape(-1)[0]))
    full = (1,) * (len(shape) - slopes.ndim) + slopes.shape
    if len(full) < 2 or math.prod(full) != full[1] or full[1] != shape[1]:
        return None
    return relax.op.nn.prelu(x, tensor(slopes.reshape(-1)), axis=1)


def _is_float(value: relax.Expr) -> bool:
    return dtype_of(value).startswith("float")
