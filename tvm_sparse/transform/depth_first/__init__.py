"""Depth-first execution: regions of layers run strip by strip of the image."""

from .run_depth_first import RunDepthFirst

__all__ = ["RunDepthFirst"]
