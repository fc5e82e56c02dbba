"""Lowering to columns: layers become kernel calls, and activations stay in columns between them."""

from . import channels, elementwise, layers, pooling
from .to_columns import HANDLERS, ToColumns

__all__ = ["HANDLERS", "ToColumns", "channels", "elementwise", "layers", "pooling"]
