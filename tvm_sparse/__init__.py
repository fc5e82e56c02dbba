"""tvm-sparse: a sparsity-aware compiler backend on Apache TVM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .api import analyze, compile, write_plan
    from .runtime.module import Module
    from .runtime.package import Package

__all__ = ["Module", "Package", "analyze", "compile", "load", "write_plan"]


def load(path: Any, num_threads: int | None = None) -> Module:
    """Load a package; needs only TVM's runtime.

    Parameters
    ----------
    path : str or Path
        A package written by :func:`compile` or ``tvmc compile``.
    num_threads : int, optional
        Threads of parallel loops.

    Returns
    -------
    Module
        Call it with arrays in order, or ``run({name: array})``.
    """
    from .runtime.package import Package

    return Package.open(path).load(num_threads)


def __getattr__(name: str) -> Any:
    # The compiler is large: it loads when something of it is asked for, not with the runtime.
    if name in ("analyze", "compile", "write_plan"):
        from . import api

        return getattr(api, name)
    if name == "Module":
        from .runtime.module import Module

        return Module
    if name == "Package":
        from .runtime.package import Package

        return Package
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
