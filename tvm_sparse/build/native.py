"""The C parts of a model's library as object files, compiled once for each compiler."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import tvm_ffi.libinfo

from tvm_sparse.errors import TvmSparseError
from tvm_sparse.runtime.cache import cache_folder

# The launcher of parallel loops, and the memory of their tasks.
SOURCES = tuple(Path(__file__).with_name(name) for name in ("launch.c", "workspace.c"))
_HEADERS = tuple(sorted(Path(__file__).parent.glob("*.h")))

# The linker may be a C++ compiler, so the language is said. No part of it depends on the CPU that kernels are for.
_OPTIONS = ("-x", "c", "-std=gnu11", "-O2", "-fPIC", "-pthread")


def native_objects(compiler: str, options: Sequence[str] = ()) -> list[Path]:
    """Object files of the C parts, compiled where the cache lacks them.

    Parameters
    ----------
    compiler : str
        C or C++ compiler for the machine that the library is for.
    options : sequence of str
        Further options of it, such as ``--sysroot``.

    Returns
    -------
    list of Path
        The object files. A library that has them runs its parallel loops with them, and has a function
        ``tvm_sparse_use_threads(count)``.

    Raises
    ------
    TvmSparseError
        If one cannot be compiled or written.
    """
    identity, folder = _identity(compiler), cache_folder("kernels")
    return [_provide(source, identity, compiler, tuple(options), folder) for source in SOURCES]


def _identity(compiler: str) -> str:
    """What differs between two compilers, or two versions of one."""
    path = Path(shutil.which(compiler) or compiler).resolve()
    try:
        stat = path.stat()
    except OSError:
        return str(path)
    return f"{path} {stat.st_size} {stat.st_mtime_ns}"


@lru_cache(maxsize=16)
def _provide(source: Path, identity: str, compiler: str, options: tuple[str, ...], directory: Path) -> Path:
    text = b"".join(path.read_bytes() for path in (source, *_HEADERS))
    key = f"{identity} {options} {_OPTIONS} {hashlib.sha256(text).hexdigest()}"
    path = directory / f"tvm_sparse_{source.stem}-{hashlib.sha256(key.encode()).hexdigest()[:32]}.o"
    if not path.exists():
        _compile(source, compiler, options, path)
    return path


def _compile(source: Path, compiler: str, options: Sequence[str], path: Path) -> None:
    includes = [f"-I{folder}" for folder in tvm_ffi.libinfo.include_paths()]
    try:
        # Written beside its place and renamed: other processes see it whole or not at all.
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            compiled = Path(folder) / path.name
            command = [compiler, *options, *_OPTIONS, *includes, "-c", str(source), "-o", str(compiled)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                raise TvmSparseError(f"{compiler} cannot compile {source.name}:\n{done.stderr.strip()}")
            os.replace(compiled, path)
    except OSError as error:
        raise TvmSparseError(f"cannot compile {source.name}: {error}") from error
