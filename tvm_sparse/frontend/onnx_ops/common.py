"""Helpers shared by converters."""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax


def shape_of(value: relax.Expr) -> list[int]:
    """Static shape of a tensor.

    Raises
    ------
    ValueError
        The shape is not known.
    """
    if value.ty.shape is None or not all(isinstance(size, tvm.tirx.IntImm) for size in value.ty.shape):
        raise ValueError(f"the shape {value.ty} depends on the data")
    return [int(size) for size in value.ty.shape]


def dtype_of(value: relax.Expr) -> str:
    """Element type of a tensor."""
    return str(value.ty.dtype)


def constant_value(value: relax.Expr, what: str) -> np.ndarray:
    """Value of an input that has to be known at compile time.

    Raises
    ------
    ValueError
        It is computed at run time; ``what`` names it.
    """
    if isinstance(value, tvm.ir.GenericConst):
        return value.value.numpy()
    raise ValueError(f"its {what} must be constant, not computed at run time")


def scalar_constant(value: relax.Expr | None) -> np.generic | None:
    """The one number that a constant holds; None when it is left out, computed, or more than one."""
    if isinstance(value, tvm.ir.GenericConst):
        array = value.value.numpy()
        if array.size == 1:
            return array.reshape(())[()]
    return None


def is_float(dtype: str) -> bool:
    """Whether an element type is a floating point type."""
    return dtype.startswith(("float", "bfloat"))


def tensor_constant(value: np.ndarray | np.generic) -> relax.Expr:
    """A constant of the array's own type: ``relax.const`` makes int64 int32 and float64 float32."""
    return relax.const(tvm.runtime.tensor(np.ascontiguousarray(value).reshape(np.shape(value))))
