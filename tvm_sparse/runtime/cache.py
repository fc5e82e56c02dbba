"""The caches' folders, and unpacked shared libraries, kept under the hash of their content."""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path
from typing import IO, Any

from tvm_sparse.errors import PackageError, TvmSparseError
from tvm_sparse.runtime.files import atomic_write

_CHUNK = 1 << 20
_MAX_BYTES = 4 << 30
# Another process may be about to load what it has just found.
_MIN_AGE_SECONDS = 3600


def cache_root() -> Path:
    """Folder of all caches: ``TVM_SPARSE_CACHE_DIR``, else ``tvm-sparse`` in the user's cache folder."""
    if os.environ.get("TVM_SPARSE_CACHE_DIR"):
        return Path(os.environ["TVM_SPARSE_CACHE_DIR"])
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "tvm-sparse"


def sha256(file: Any) -> tuple[str, int]:
    """Hash and size of the rest of a file."""
    digest, size = hashlib.sha256(), 0
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
        size += len(chunk)
    return digest.hexdigest(), size


def unpacked(digest: str, source: IO[bytes], where: str) -> Path:
    """Path of a library with this content, unpacked now unless an earlier run left it intact.

    Parameters
    ----------
    digest : str
        SHA-256 of the library in hexadecimal.
    source : binary file
        The library in the package; read only if the cache lacks it.
    where : str
        Name of the package for messages.

    Returns
    -------
    Path
        A file whose content has the hash.

    Raises
    ------
    PackageError
        If the source's content has another hash, or cannot be unpacked.
    """
    folder = cache_folder("packages")
    target = folder / f"{digest}.so"
    if _intact(target, digest):
        # The time of last use decides what is dropped first.
        with contextlib.suppress(OSError):
            os.utime(target)
        return target
    try:
        with atomic_write(target) as file:
            found = _copy(source, file)
            if found != digest:
                raise PackageError(f"'{where}' is damaged: its library's content doesn't match its metadata.")
    except PackageError:
        raise
    except TvmSparseError as error:
        raise PackageError(f"'{where}' cannot be unpacked: {error}") from error
    _prune(folder, keep=target)
    return target


def _intact(path: Path, digest: str) -> bool:
    try:
        with open(path, "rb") as file:
            return sha256(file)[0] == digest
    except OSError:
        return False


def _copy(source: IO[bytes], target: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := source.read(_CHUNK):
        digest.update(chunk)
        target.write(chunk)
    return digest.hexdigest()


def cache_folder(name: str) -> Path:
    """A folder below `cache_root` for files that are executed, made if need be.

    Parameters
    ----------
    name : str
        Name of the cache.

    Returns
    -------
    Path
        A folder that nobody else can write to; one that lives as long as this process where the cache cannot be
        written, or others can write to it.
    """
    folder = cache_root() / name
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if _is_private(folder) and os.access(folder, os.W_OK | os.X_OK):
            return folder
    except OSError:
        pass
    return _process_folder(name)


def _is_private(folder: Path) -> bool:
    """Whether nobody else can exchange a library between its check and its use."""
    info = folder.stat()
    return info.st_uid == os.geteuid() and not info.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


@functools.cache
def _process_folder(name: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=f"tvm-sparse-{name}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _prune(folder: Path, keep: Path) -> None:
    """Drop the libraries that were not used for longest until the cache is small enough."""
    with contextlib.suppress(OSError):
        # Several times faster than Path.glob, in a folder of thousands.
        with os.scandir(folder) as found:
            entries = [(entry.path, entry.stat()) for entry in found if entry.name.endswith(".so")]
        total = sum(info.st_size for _, info in entries)
        if total <= _MAX_BYTES:
            return
        for path, info in sorted(entries, key=lambda entry: entry[1].st_mtime):
            if total <= _MAX_BYTES:
                return
            if path != str(keep) and time.time() - info.st_mtime >= _MIN_AGE_SECONDS:
                Path(path).unlink(missing_ok=True)
                total -= info.st_size
