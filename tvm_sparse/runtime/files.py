"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from tvm_sparse.errors import TvmSparseError


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def writable_target(path: str | os.PathLike) -> Path:
    """Resolve the path of an output file and refuse what cannot be one.

    Parameters
    ----------
    path : str or os.PathLike
        Where a file is to be written; a symbolic link is followed.

    Returns
    -------
    Path
        The resolved path, whose folder exists.

    Raises
    ------
    TvmSparseError
        If the folder is missing, or the path is a folder, a device or a pipe.
    """
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise TvmSparseError(f"Cannot write '{path}': the folder '{target.parent}' doesn't exist.")
    # Replacing a device node (say /dev/null, as root) by a regular file would harm the whole machine.
    if target.exists() and not target.is_file():
        raise TvmSparseError(f"Cannot write '{path}': it is a directory or not a regular file.")
    return target


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[IO[bytes]]:
    """Open a binary file for writing that replaces `path` only when the block ends without an error.

    Parameters
    ----------
    path : str or os.PathLike
        Where the file is to be written.

    Yields
    ------
    binary file
        A temporary file in the same folder.

    Raises
    ------
    TvmSparseError
        If the file cannot be written (permissions, full disk, ...); `path` is then as it was before.
    """
    target = writable_target(path)
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        with os.fdopen(handle, "wb") as file:
            yield file
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
        temporary = None
    except OSError as error:
        raise TvmSparseError(f"Cannot write '{path}': {error.strerror or error}.") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a UTF-8 text file whole or not at all; errors as `atomic_write`."""
    with atomic_write(path) as file:
        file.write(text.encode())
