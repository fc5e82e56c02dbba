"""Kernels as object files: compiled once, cached on disk across compilations."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import tvm

import tvm_sparse
from tvm_sparse.schedules.cpu.isa import Isa
from tvm_sparse.transform.context import Kernel


def cache_directory() -> Path:
    """Where compiled kernels are kept: ``TVM_SPARSE_CACHE``, else the user's cache directory."""
    configured = os.environ.get("TVM_SPARSE_CACHE")
    if configured:
        return Path(configured)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tvm-sparse"


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
        One object file per kernel.
    """
    directory = cache_directory() / "kernels"
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:
        directory = Path(tempfile.gettempdir()) / f"tvm-sparse-kernels-{os.getuid()}"
        directory.mkdir(parents=True, exist_ok=True)

    def provide(kernel: Kernel) -> Path:
        symbol = kernel.symbol(isa)
        key = f"{symbol} {target} {tvm.__version__} {_sources()}"
        path = directory / f"{symbol}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.o"
        if not path.exists():
            if progress:
                progress(symbol)
            _compile(kernel, isa, target, path)
        return path

    # LLVM compiles outside of the interpreter's lock, so kernels compile side by side.
    with ThreadPoolExecutor(max_workers=max(1, os.cpu_count() or 1)) as pool:
        return list(pool.map(provide, kernels))


def _compile(kernel: Kernel, isa: Isa, target: tvm.target.Target, path: Path) -> None:
    executable = tvm.compile(kernel.build(isa), target=target)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".o")
    os.close(handle)
    try:
        executable.mod.write_to_file(temporary)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@lru_cache(maxsize=1)
def _sources() -> str:
    """Hash of the kernels' sources, so that a changed kernel is compiled anew."""
    import tvm_sparse.schedules.cpu as cpu

    digest = hashlib.sha256(tvm_sparse.__version__.encode())
    for path in sorted(Path(cpu.__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
