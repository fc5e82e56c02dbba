"""Kernels as object files: compiled once, cached on disk across compilations."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import tvm

from tvm_sparse.errors import TvmSparseError
from tvm_sparse.runtime.cache import cache_folder
from tvm_sparse.schedules.cpu.isa import Isa
from tvm_sparse.transform.context import Kernel

from .announce_loops import announce_loops

# Kernels allocate just what they use. Finding that out takes three quarters of the time of a compilation, and the
# object files come out the same without it, byte for byte.
_NEEDLESS_PASSES = ["s_tir.CompactBufferAllocation"]


def kernel_objects(
    kernels: Iterable[Kernel],
    isa: Isa,
    target: tvm.target.Target,
    progress: Callable[[str], None] | None = None,
) -> list[Path]:
    """Object files of kernels, compiled where the cache lacks them.

    Parameters
    ----------
    kernels : iterable of Kernel
        Kernels to provide.
    isa : Isa
        Vector instruction set.
    target : tvm.target.Target
        LLVM target.
    progress : callable, optional
        Called with the symbol of each kernel that is compiled.

    Returns
    -------
    list of Path
        One object file per kernel, to be linked with :func:`tvm_sparse.build.link.link_objects`.
    """
    directory = cache_folder("kernels")

    def provide(kernel: Kernel) -> Path:
        symbol = kernel.symbol(isa)
        key = f"{symbol} {target} {tvm.__version__} {_sources()}"
        stem = f"{symbol}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
        cached = _find(directory, stem)
        if cached is None:
            if progress:
                progress(symbol)
            cached = _compile(kernel, isa, target, directory, stem)
        return cached

    # LLVM compiles outside of the interpreter's lock, so kernels compile side by side.
    with ThreadPoolExecutor(max_workers=max(1, os.cpu_count() or 1)) as pool:
        return list(pool.map(provide, kernels))


def _find(directory: Path, stem: str) -> Path | None:
    """An intact object file; damaged ones are dropped.

    The file's name ends with the hash of its content, so that what a crash or a full disk left is not linked, and
    processes that compile one kernel at once leave files of their own where their code differs.
    """
    for path in directory.glob(f"{stem}-*.o"):
        with contextlib.suppress(OSError):
            if path.name == _name(stem, path.read_bytes()):
                return path
            path.unlink()
    return None


def _name(stem: str, content: bytes) -> str:
    return f"{stem}-{hashlib.sha256(content).hexdigest()[:32]}.o"


def _compile(kernel: Kernel, isa: Isa, target: tvm.target.Target, directory: Path, stem: str) -> Path:
    with tvm.transform.PassContext(opt_level=3, disabled_pass=_NEEDLESS_PASSES):
        executable = tvm.compile(announce_loops(kernel.build(isa)), target=target)
    temporary = None
    try:
        # Written beside the cached ones and renamed: other processes see it whole or not at all.
        handle, temporary = tempfile.mkstemp(dir=directory, suffix=".o")
        os.close(handle)
        executable.mod.write_to_file(temporary)
        path = directory / _name(stem, Path(temporary).read_bytes())
        os.replace(temporary, path)
        return path
    except OSError as error:
        raise TvmSparseError(f"cannot write a kernel to '{directory}': {error.strerror or error}") from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


@lru_cache(maxsize=1)
def _sources() -> str:
    """Hash of all that decides on a kernel's code, so that a change compiles anew."""
    import tvm_sparse.layout
    import tvm_sparse.schedules.cpu
    import tvm_sparse.sparsity.formats

    digest = hashlib.sha256(tvm_sparse.__version__.encode())
    for package in (tvm_sparse.schedules.cpu, tvm_sparse.layout, tvm_sparse.sparsity.formats):
        for path in sorted(Path(package.__path__[0]).rglob("*.py")):
            digest.update(path.read_bytes())
    digest.update(Path(announce_loops.__code__.co_filename).read_bytes())
    return digest.hexdigest()
