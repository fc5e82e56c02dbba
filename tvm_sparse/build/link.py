"""Building a lowered module and linking it with its kernels into one shared library."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tvm
from tvm import relax
from tvm.support import cc

from tvm_sparse.errors import MissingPackageError, TvmSparseError
from tvm_sparse.transform.context import CompileContext
from tvm_sparse.transform.pipeline import AlreadyLowered

from .announce_loops import AnnounceLoops
from .kernel_cache import kernel_objects
from .native import native_objects


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
        If no C or C++ compiler is installed to link with.
    TvmSparseError
        If linking fails.
    """
    compiler = _installed(cross_compiler or find_compiler())
    if progress:
        progress("kernels")
    objects = kernel_objects(context.kernels.values(), context.isa, context.target, progress)
    if progress:
        progress("build")
    executable = relax.build(AnnounceLoops()(module), target=context.target, relax_pipeline=AlreadyLowered())
    if progress:
        progress("link")
    with _explained(compiler):
        executable.export_library(
            str(path),
            fcompile=linker(compiler, context.target, cross_compiler_options),
            addons=[str(o) for o in objects],
        )
    return executable


def link_objects(objects: Iterable[Path], path: Path) -> Path:
    """Link kernels into a shared library for this machine.

    Parameters
    ----------
    objects : iterable of Path
        What :func:`tvm_sparse.build.kernel_cache.kernel_objects` returned.
    path : Path
        Shared library to write.

    Returns
    -------
    Path
        The library, whose functions TVM's ``load_module`` finds.

    Raises
    ------
    MissingPackageError
        If no C or C++ compiler is installed to link with.
    TvmSparseError
        If linking fails.
    """
    compiler = _installed(find_compiler())
    with _explained(compiler):
        _link(path, [str(each) for each in objects], (), compiler)
    return path


@contextmanager
def _explained(compiler: str) -> Iterator[None]:
    """Turn a failed link into an error that names the compiler."""
    try:
        yield
    except RuntimeError as error:
        raise TvmSparseError(f"linking failed with {compiler}:\n{error}") from error


def _installed(compiler: str | None) -> str:
    if compiler is None or shutil.which(compiler) is None:
        raise MissingPackageError(compiler or "gcc", "a C compiler links the library: apt install gcc")
    return compiler


def find_compiler() -> str | None:
    """Compiler to link with: ``CXX``, else an installed one."""
    if os.environ.get("CXX"):
        return os.environ["CXX"]
    # C compilers first: there is no C++ in a library, and they find that out in half the time.
    return next(filter(None, map(shutil.which, ("gcc", "clang", "cc", "g++", "clang++", "c++"))), None)


def linker(compiler: str, target: tvm.target.Target, cross_options: Sequence[str] = ()) -> Callable[..., None]:
    """The function that TVM's ``export_library`` links with; libraries get the launcher of parallel loops
    and its memory.

    Parameters
    ----------
    compiler : str
        C or C++ compiler.
    target : tvm.target.Target
        Target of the library, which ``export_library`` asks for where no function was compiled.
    cross_options : sequence of str
        Options for the compiler.

    Returns
    -------
    callable
        The argument ``fcompile``.
    """

    def link(output: str, files: Sequence[str], **given: Any) -> None:
        # TVM gives include paths where no function was compiled: then its part of the library is C.
        _link(output, files, [*cross_options, *given.get("options", ())], compiler, cross_options)

    def triple() -> str:
        given = target.attrs.get("mtriple")
        return str(given or tvm.get_global_func("tvm.codegen.llvm.GetDefaultTargetTriple")())

    link.get_target_triple = triple  # type: ignore[attr-defined]
    return link


def _link(
    output: Path | str,
    files: Sequence[str],
    options: Sequence[str],
    compiler: str,
    native_options: Sequence[str] = (),
) -> None:
    native = [str(path) for path in native_objects(compiler, native_options)]
    # Compiled loops call mathematical functions. Named after the files, it is needed only if one of them does.
    cc.create_shared(str(output), [*files, *native, "-lm"], [*options, "-pthread"], compiler)


def host_architecture() -> str:
    """Machine that this process runs on, such as ``"x86_64"``."""
    return platform.machine()
