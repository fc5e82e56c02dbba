"""Finds and loads TVM's runtime library without importing ``tvm``, which would load the compiler."""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import importlib.util
import os
import re
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tvm_ffi

from tvm_sparse.errors import MissingPackageError, PackageError

_HINT = "pip install apache-tvm"
_FILE_NAME = "libtvm_runtime.so"


def _tvm_folder() -> Path | None:
    # find_spec of a top-level package reads no code of it.
    spec = importlib.util.find_spec("tvm")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def find_runtime() -> Path:
    """Path of ``libtvm_runtime.so``: below ``TVM_LIBRARY_PATH`` if set, else in the apache-tvm wheel.

    Raises
    ------
    MissingPackageError
        If there is none.
    """
    folders = []
    if os.environ.get("TVM_LIBRARY_PATH"):
        folders.append(Path(os.environ["TVM_LIBRARY_PATH"]))
    package = _tvm_folder()
    if package is not None:
        folders += [package / "lib", package]
    for folder in folders:
        if (folder / _FILE_NAME).is_file():
            return folder / _FILE_NAME
    hint = f"{_HINT} (or set TVM_LIBRARY_PATH to the folder of {_FILE_NAME})."
    raise MissingPackageError("apache-tvm", hint)


@functools.lru_cache(maxsize=1)
def load_runtime() -> ctypes.CDLL:
    """Load the runtime library once; its symbols are global, as compiled models expect."""
    path = find_runtime()
    try:
        return ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise MissingPackageError("apache-tvm", f"{_HINT}: '{path}' cannot be loaded: {error}") from error


@functools.lru_cache(maxsize=1)
def runtime_version() -> str | None:
    """Version of the installed TVM, read without importing it; None if it cannot be told."""
    try:
        return importlib.metadata.version("apache-tvm")
    except importlib.metadata.PackageNotFoundError:
        pass
    package = _tvm_folder()
    if package is not None and (package / "_version.py").is_file():
        text = (package / "_version.py").read_text()
        found = re.search(r"^__version__.*=\s*['\"]([^'\"]+)['\"]", text, re.M)
        if found:
            return found.group(1)
    return None


def threads_setter(module: Any) -> Callable[[int], object]:
    """The function that sets how many threads a library's parallel loops use when the calling thread starts them.

    Parameters
    ----------
    module : tvm_ffi.Module
        A loaded shared library. One that was not linked with this project's launcher of loops runs them on TVM's own
        threads, whose number cannot be changed; the function then does nothing.
    """
    if not module.implements_function("tvm_sparse_use_threads", True):
        return lambda _count: None
    return module.get_function("tvm_sparse_use_threads", True)


class Library:
    """A loaded shared library of a model, from which virtual machines are made.

    Parameters
    ----------
    path : Path
        The shared library.

    Raises
    ------
    PackageError
        If it cannot be loaded or holds no Relax executable.
    """

    def __init__(self, path: Path):
        load_runtime()
        try:
            self._module = tvm_ffi.load_module(str(path), keep_module_alive=False)
        except (RuntimeError, OSError, ValueError) as error:
            raise PackageError(f"'{path}' cannot be loaded: {_first_line(error)}") from error
        if not self._module.implements_function("vm_load_executable", True):
            raise PackageError(f"'{path}' holds no compiled model (no Relax executable).")
        self._use_threads = threads_setter(self._module)

    def use_threads(self, count: int) -> None:
        """Let parallel loops that the calling thread starts in this library run on `count` threads; nearly free."""
        self._use_threads(count)

    def new_vm(self) -> Any:
        """A Relax virtual machine on the CPU with pooled memory; its functions are items by name."""
        vm = self._module.get_function("vm_load_executable", True)()
        device_type, device_index, pooled_allocator = 1, 0, 2
        vm["vm_initialization"](device_type, device_index, pooled_allocator)
        return vm


_loaded: weakref.WeakValueDictionary[tuple, Library] = weakref.WeakValueDictionary()
_loading = threading.Lock()


def open_library(path: Path) -> Library:
    """Load a model's shared library, or return the one that is loaded already.

    A shared library keeps one pointer to its owner. Two owners of one file would leave it dangling
    when the first dies, so all users of a file share one `Library`.
    """
    stat = path.stat()
    key = (stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_size)
    with _loading:
        library = _loaded.get(key)
        if library is None:
            library = Library(path)
            _loaded[key] = library
        return library


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
