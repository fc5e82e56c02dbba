"""The loops that measure what a CPU reaches at best, compiled and linked once."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import tvm

from tvm_sparse.errors import TvmSparseError
from tvm_sparse.runtime.roofs import roofs_library
from tvm_sparse.schedules.cpu.isa import Isa
from tvm_sparse.schedules.cpu.roofs import Roof

from .kernel_cache import kernel_objects
from .link import link_objects


def provide_roofs_library(target: tvm.target.Target) -> Path:
    """Path of the library that :func:`tvm_sparse.runtime.roofs.measure_roofs` takes, built where the cache lacks it.

    Parameters
    ----------
    target : tvm.target.Target
        LLVM target whose vectors are used.

    Raises
    ------
    MissingPackageError
        If no C or C++ compiler is installed to link with.
    TvmSparseError
        If it cannot be linked or written.
    """
    path = roofs_library(str(target))
    if path.exists():
        return path
    kernels = [Roof(kind) for kind in ("multiply", "read", "write")]
    objects = kernel_objects(kernels, Isa.from_target(target), target)
    try:
        # Linked beside its place and renamed: other processes see it whole or not at all.
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            linked = Path(folder) / path.name
            os.replace(link_objects(objects, linked), path)
    except OSError as error:
        raise TvmSparseError(f"the loops that measure the roofs cannot be linked: {error}") from error
    return path
