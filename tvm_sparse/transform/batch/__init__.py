"""Batches: the network runs on groups of items whose activations stay in the cache, not layer by layer on all."""

from .copy_views import CopyViews
from .split_batch import SplitBatch

__all__ = ["CopyViews", "SplitBatch"]
