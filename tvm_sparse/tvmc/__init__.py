"""The command line, and functions shaped like those of the former ``tvm.driver.tvmc`` module."""

from __future__ import annotations

from typing import Any

__all__ = ["TVMCException", "TVMCModel", "TVMCPackage", "TVMCResult", "compile", "load", "run"]


def __getattr__(name: str) -> Any:
    # Loaded on demand: the command line doesn't need them.
    if name in __all__:
        from tvm_sparse.tvmc import compat

        return getattr(compat, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
