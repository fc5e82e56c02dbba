"""The launcher of parallel loops (``launch.c``) as an object file, compiled once for each compiler."""

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

SOURCE = Path(__file__).with_name("launch.c")

# The linker may be a C++ compiler, so the language is said. No part of it depends on the CPU that kernels are for.
_OPTIONS = ("-x", "c", "-std=gnu11", "-O2", "-fPIC", "-pthread")


def launcher_object(compiler: str, options: Sequence[str] = ()) -> Path:
    """Object file of the launcher, compiled where the cache lacks it.

    Parameters
    ----------
    compiler : str
        C or C++ compiler for the machine that the library is for.
    options : sequence of str
        Further options of it, such as ``--sysroot``.

    Returns
    -------
    Path
        The object file. A library that has it runs its parallel loops with it, and has a function
        ``tvm_sparse_use_threads(count)``.

    Raises
    ------
    TvmSparseError
        If it cannot be compiled or written.
    """
    return _provide(_identity(compiler), compiler, tuple(options), cache_folder("kernels"))


def _identity(compiler: str) -> str:
    """What differs between two compilers, or two versions of one."""
    path = Path(shutil.which(compiler) or compiler).resolve()
    try:
        stat = path.stat()
    except OSError:
        return str(path)
    return f"{path} {stat.st_size} {stat.st_mtime_ns}"


@lru_cache(maxsize=16)
def _provide(identity: str, compiler: str, options: tuple[str, ...], directory: Path) -> Path:
    key = f"{identity} {options} {_OPTIONS} {hashlib.sha256(SOURCE.read_bytes()).hexdigest()}"
    path = directory / f"tvm_sparse_launcher-{hashlib.sha256(key.encode()).hexdigest()[:32]}.o"
    if not path.exists():
        _compile(compiler, options, path)
    return path


def _compile(compiler: str, options: Sequence[str], path: Path) -> None:
    includes = [f"-I{folder}" for folder in tvm_ffi.libinfo.include_paths()]
    try:
        # Written beside its place and renamed: other processes see it whole or not at all.
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            compiled = Path(folder) / path.name
            command = [compiler, *options, *_OPTIONS, *includes, "-c", str(SOURCE), "-o", str(compiled)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                raise TvmSparseError(f"{compiler} cannot compile the launcher of loops:\n{done.stderr.strip()}")
            os.replace(compiled, path)
    except OSError as error:
        raise TvmSparseError(f"cannot compile the launcher of loops: {error}") from error
