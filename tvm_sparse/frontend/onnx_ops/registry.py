"""Registry of our own ONNX converters; one here takes precedence over TVM's."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Sequence
from typing import Any

from tvm import relax

Converter = Callable[[relax.BlockBuilder, Sequence[relax.Expr | None], dict[str, Any], int], relax.Expr]
"""``(builder, inputs, attributes, opset) -> result``; a tuple result gives one tensor to each output.

``inputs`` answers None for optional inputs that are left out, also past its end.
"""

_CONVERTERS: dict[str, Converter] = {}


def register(*op_types: str) -> Callable[[Converter], Converter]:
    """Register a converter for ONNX operators.

    Raises
    ------
    ValueError
        An operator has a converter already.
    """

    def decorate(converter: Converter) -> Converter:
        for op_type in op_types:
            if op_type in _CONVERTERS:
                raise ValueError(f"two converters for ONNX operator {op_type}")
            _CONVERTERS[op_type] = converter
        return converter

    return decorate


@functools.cache
def converters() -> dict[str, Converter]:
    """All registered converters by operator."""
    package = importlib.import_module("tvm_sparse.frontend.onnx_ops")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return _CONVERTERS
