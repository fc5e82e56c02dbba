"""Relax operators evaluated on arrays: what constant folding needs, without compiling anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..rewrite import integers

Evaluator = Callable[[Any, list[Any]], np.ndarray]
"""From the attributes of a call and its arguments (arrays, lists of integers, numbers) to the result."""


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Division as Relax has it: integers truncate toward zero."""
    if np.issubdtype(np.result_type(a, b), np.integer):
        quotient = np.abs(a) // np.abs(b)
        return (np.sign(a) * np.sign(b) * quotient).astype(a.dtype)
    return a / b


def _axes(attrs: Any, rank: int) -> tuple[int, ...]:
    axes = integers(attrs.axis) if attrs.axis is not None else list(range(rank))
    assert axes is not None
    return tuple(axis % rank for axis in axes)


def _reduction(function: Callable[..., np.ndarray]) -> Evaluator:
    def evaluate(attrs: Any, args: list[Any]) -> np.ndarray:
        (x,) = args
        result = function(x, axis=_axes(attrs, x.ndim), keepdims=bool(attrs.keepdims))
        return np.asarray(result, dtype=x.dtype)

    return evaluate


def _permute(attrs: Any, args: list[Any]) -> np.ndarray:
    return np.transpose(args[0], integers(attrs.axes) if attrs.axes is not None else None)


def _expand_dims(attrs: Any, args: list[Any]) -> np.ndarray:
    return np.expand_dims(args[0], tuple(integers(attrs.axis) or ()))


def _squeeze(attrs: Any, args: list[Any]) -> np.ndarray:
    return np.squeeze(args[0], tuple(integers(attrs.axis) or ()) if attrs.axis is not None else None)


def _concat(attrs: Any, args: list[Any]) -> np.ndarray:
    if attrs.axis is None:
        return np.concatenate([np.reshape(field, -1) for field in args[0]])
    return np.concatenate(args[0], axis=int(attrs.axis))


def _take(attrs: Any, args: list[Any]) -> np.ndarray:
    x, indices = args
    axis = None if attrs.axis is None else int(attrs.axis)
    extent = x.size if axis is None else x.shape[axis]
    lowest = 0 if str(attrs.mode) == "clip" else -extent
    if indices.size and (indices.min() < lowest or indices.max() >= extent):
        raise ValueError("index out of range")  # the result depends on the mode: leave it to the run
    return np.take(x, indices, axis=axis)


def _strided_slice(attrs: Any, args: list[Any]) -> np.ndarray:
    x, axes, begin, end, *rest = args
    strides = rest[0] if rest and rest[0] else [1] * len(axes)
    index = [slice(None)] * x.ndim
    for axis, first, last, stride in zip(axes, begin, end, strides, strict=True):
        if stride < 0:
            raise ValueError("negative stride")
        index[axis] = slice(first, last, stride)
    return x[tuple(index)]


def _arange(attrs: Any, args: list[Any]) -> np.ndarray:
    return np.arange(*args, dtype=str(attrs.dtype))


def _full(attrs: Any, args: list[Any]) -> np.ndarray:
    shape, value = args
    return np.full(shape, value, dtype=str(attrs.dtype) if attrs.dtype is not None else value.dtype)


_UNARY: dict[str, Callable[..., np.ndarray]] = {
    "negative": np.negative,
    "abs": np.abs,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: (1 / np.sqrt(x)).astype(x.dtype),
    "exp": np.exp,
    "log": np.log,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.round,
    "sin": np.sin,
    "cos": np.cos,
    "tanh": np.tanh,
    "square": np.square,
    "sign": np.sign,
    "isnan": np.isnan,
    "isinf": np.isinf,
    "isfinite": np.isfinite,
    "logical_not": np.logical_not,
    "nn.relu": lambda x: np.maximum(x, np.zeros((), x.dtype)),
}

_BINARY: dict[str, Callable[..., np.ndarray]] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": _divide,
    "floor_divide": np.floor_divide,
    "power": np.power,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "equal": np.equal,
    "not_equal": np.not_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "logical_xor": np.logical_xor,
}

EVALUATORS: dict[str, Evaluator] = {
    **{f"relax.{n}": lambda _attrs, args, f=f: f(args[0]) for n, f in _UNARY.items()},
    **{f"relax.{n}": lambda _attrs, args, f=f: f(args[0], args[1]) for n, f in _BINARY.items()},
    "relax.where": lambda _attrs, args: np.where(*args),
    "relax.astype": lambda attrs, args: args[0].astype(str(attrs.dtype)),
    "relax.permute_dims": _permute,
    "relax.reshape": lambda _attrs, args: np.reshape(args[0], args[1]),
    "relax.flatten": lambda _attrs, args: np.reshape(args[0], -1),
    "relax.expand_dims": _expand_dims,
    "relax.squeeze": _squeeze,
    "relax.broadcast_to": lambda _attrs, args: np.broadcast_to(args[0], args[1]),
    "relax.concat": _concat,
    "relax.stack": lambda attrs, args: np.stack(args[0], axis=int(attrs.axis or 0)),
    "relax.take": _take,
    "relax.strided_slice": _strided_slice,
    "relax.arange": _arange,
    "relax.full": _full,
    "relax.zeros": lambda attrs, args: np.zeros(args[0], str(attrs.dtype)),
    "relax.ones": lambda attrs, args: np.ones(args[0], str(attrs.dtype)),
    "relax.zeros_like": lambda _attrs, args: np.zeros_like(args[0]),
    "relax.ones_like": lambda _attrs, args: np.ones_like(args[0]),
    "relax.shape_to_tensor": lambda _attrs, args: np.asarray(args[0], "int64"),
    "relax.sum": _reduction(np.sum),
    "relax.prod": _reduction(np.prod),
    "relax.mean": _reduction(np.mean),
    "relax.max": _reduction(np.max),
    "relax.min": _reduction(np.min),
}
"""Evaluators by operator name."""
