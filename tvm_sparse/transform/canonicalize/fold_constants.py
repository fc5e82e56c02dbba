"""FoldConstants: what depends on constants and static shapes only is computed while compiling."""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.ir import GenericConst

from ..graph import constant
from ..rewrite import Rewriter, dtype_of, integers, operator_name, rewrite_module, shape_of, tensor
from .evaluate import EVALUATORS

# A folded value may be larger than what it is made of (broadcasts, fills) up to this.
_MAX_GROWN_BYTES = 1 << 20


@tvm.transform.module_pass(opt_level=0, name="FoldConstants")
class FoldConstants:
    """Evaluate calls on constants with numpy, and shapes of tensors; nothing is compiled for it.

    A tensor without elements is as good as a constant: its sum is known. Values that would take much more memory
    than their operands (a mask broadcast to every head) stay.
    """

    def transform_module(self, module: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Rewrite every Relax function."""
        return rewrite_module(module, _fold)


def _fold(rewriter: Rewriter, _variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
    if isinstance(value, relax.TupleGetItem):
        made = rewriter.producer(value.tuple_value)
        return made.fields[value.index] if isinstance(made, relax.Tuple) else None
    name = operator_name(value)
    if name == "relax.shape_of":
        shape = shape_of(value.args[0])
        return relax.ShapeExpr(list(shape)) if shape is not None else None
    if name == "relax.tensor_to_shape":
        extents = constant(value.args[0])
        return relax.ShapeExpr([int(e) for e in extents]) if extents is not None else None
    evaluate = EVALUATORS.get(name)
    shape = shape_of(value) if isinstance(value, relax.Call) else None
    if evaluate is None or shape is None:
        return None
    args = [_argument(argument) for argument in value.args]
    if any(argument is None for argument in args):
        return None
    dtype = dtype_of(value)
    if _too_large(shape, dtype, args):
        return None
    try:
        with np.errstate(all="ignore"):
            result = np.asarray(evaluate(value.attrs, args))
    except (ValueError, TypeError, IndexError, ZeroDivisionError):
        return None  # ill-formed: the run reports it
    if result.shape != shape:
        return None
    return tensor(result.astype(dtype, copy=False), dtype)


def _argument(expression: relax.Expr) -> Any:
    """An argument as an array, a list of arrays or integers, or a number; None if it is not constant."""
    if isinstance(expression, GenericConst):
        return constant(expression)
    if isinstance(expression, relax.ShapeExpr):
        return integers(expression)
    if isinstance(expression, tvm.tirx.IntImm | tvm.tirx.FloatImm):
        return expression.value
    if isinstance(expression, relax.Tuple):
        fields = [_argument(field) for field in expression.fields]
        return None if any(field is None for field in fields) else fields
    return _empty(expression)


def _empty(expression: relax.Expr) -> np.ndarray | None:
    """A tensor that has no elements, else None."""
    shape = shape_of(expression)
    if shape is None or 0 not in shape:
        return None
    try:
        return np.empty(shape, dtype_of(expression))
    except TypeError:
        return None  # an element type that numpy lacks


def _too_large(shape: tuple[int, ...], dtype: str, args: list[Any]) -> bool:
    try:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    except TypeError:
        return True
    return size > _MAX_GROWN_BYTES and size > sum(a.nbytes for a in args if isinstance(a, np.ndarray))
