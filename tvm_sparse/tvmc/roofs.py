"""Measuring what this machine reaches, for profiles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tvm_sparse.errors import TvmSparseError
from tvm_sparse.runtime.roofs import RoofMeter, Roofs, roofs_library

_SECONDS = 0.3


def measure_roofs(metadata: Mapping[str, Any], num_threads: int) -> tuple[Roofs | None, str]:
    """Measure the roofs with the vectors that a package uses.

    Parameters
    ----------
    metadata : mapping
        ``mod.json`` of the package.
    num_threads : int
        Threads that the package runs with.

    Returns
    -------
    roofs : Roofs or None
        None where the loops are neither in the cache nor can be compiled.
    why : str
        Why not.
    """
    try:
        meter = roof_meter(metadata, num_threads)
        meter.run(_SECONDS)
    except (ImportError, OSError, RuntimeError, TvmSparseError) as error:
        return None, str(error).strip().splitlines()[-1]
    return meter.roofs(), ""


def roof_meter(metadata: Mapping[str, Any], num_threads: int) -> RoofMeter:
    """What measures the roofs, with loops for the package's target, from the cache or compiled now.

    Raises
    ------
    ImportError, OSError, RuntimeError or TvmSparseError
        If the loops are not in the cache, and there is no compiler.
    """
    if "lanes" not in metadata:
        raise TvmSparseError("the package doesn't tell the width of its vectors")
    library = roofs_library(metadata["target"])
    if not library.exists():
        from tvm_sparse.build.roofs import provide_roofs_library
        from tvm_sparse.build.target import make_target

        library = provide_roofs_library(make_target(metadata["target"]))
    return RoofMeter(library, metadata["isa"], metadata["lanes"], num_threads)
