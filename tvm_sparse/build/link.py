"""Building a lowered module and linking it with its kernels into one shared library."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path

import tvm
from tvm import relax

from tvm_sparse.errors import MissingPackageError, TvmSparseError
from tvm_sparse.transform.context import CompileContext
from tvm_sparse.transform.pipeline import AlreadyLowered

from .kernel_cache import kernel_objects


def build_library(
    module: tvm.IRModule,
    context: CompileContext,
    path: Path,
    *,
    cross_compiler: str | None = None,
    cross_compiler_options: tuple[str, ...] = (),
    progress: Callable[[str], None] | None = None,
) -> relax.VMExecutable:
    """Compile a lowered module and link it with its kernels.

    Parameters
    ----------
    module : tvm.IRModule
        What :func:`tvm_sparse.transform.pipeline.run_phases` returned.
    context : CompileContext
        Target and kernels.
    path : Path
        Shared library to write.
    cross_compiler : str, optional
        Compiler that links for another machine, such as ``aarch64-linux-gnu-g++``.
    cross_compiler_options : tuple of str
        Options for it.
    progress : callable, optional
        Called with the name of each step.

    Returns
    -------
    relax.VMExecutable
        The executable, before linking.

    Raises
    ------
    MissingPackageError
        If no C++ compiler is installed to link with.
    TvmSparseError
        If linking fails.
    """
    compiler = cross_compiler or os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None or shutil.which(compiler) is None:
        raise MissingPackageError(compiler or "g++", "a C++ compiler links the library: apt install g++")
    if progress:
        progress("kernels")
    objects = kernel_objects(context.kernels.values(), context.isa, context.target, progress)
    if progress:
        progress("build")
    executable = relax.build(module, target=context.target, relax_pipeline=AlreadyLowered())
    if progress:
        progress("link")
    try:
        executable.export_library(
            str(path),
            cc=compiler,
            addons=[str(o) for o in objects],
            options=list(cross_compiler_options),
        )
    except RuntimeError as error:
        raise TvmSparseError(f"linking failed with {compiler}:\n{error}") from error
    return executable


def host_architecture() -> str:
    """Machine that this process runs on, such as ``"x86_64"``."""
    return platform.machine()
