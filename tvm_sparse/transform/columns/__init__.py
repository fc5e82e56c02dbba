"""Lowering to columns: layers become kernel calls, and activations stay in columns between them."""

from . import attention, channels, elementwise, layers, norms, pooling, resampling
from .to_columns import HANDLERS, ToColumns

__all__ = ["HANDLERS", "ToColumns", "attention", "channels", "elementwise", "layers", "norms", "pooling", "resampling"]
