"""Inputs and outputs of a run as ``.npz`` files."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from tvm_sparse.errors import InputError
from tvm_sparse.runtime.files import atomic_write


def read_inputs(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read arrays by name.

    Raises
    ------
    InputError
        If the file is missing or not a ``.npz`` file of plain arrays (pickled objects are not read).
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise ValueError("it holds one array without a name")
        with loaded as file:
            return {name: file[name] for name in file.files}
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(
            f"Input file '{path}' doesn't exist, is a broken symbolic link, or a directory."
        ) from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"Input file '{path}' is not a .npz file of arrays: {error}.") from error


def write_outputs(path: str | os.PathLike, outputs: Mapping[str, np.ndarray]) -> None:
    """Write arrays as ``output_0``, ``output_1``, ... in the model's order, whole or not at all."""
    arrays: dict[str, Any] = {f"output_{i}": array for i, array in enumerate(outputs.values())}
    with atomic_write(path) as file:
        np.savez(file, **arrays)
