"""Integer tables that drive the generic kernels: scalars and arrays in one int32 blob.

A kernel of run-time shapes takes everything that is specific to a layer from one table, since every buffer argument
costs checks in the compiled code. The blob starts with one entry per field, in the order of the kernel family's
field list: the value of a scalar, or the position of an array.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

# Vector loads of the last entries may read past the end of an array.
_PADDING = 16


def pack_table(fields: Sequence[str], values: Mapping[str, int | np.ndarray]) -> np.ndarray:
    """Write scalars and arrays into one blob.

    Parameters
    ----------
    fields : sequence of str
        Names of the kernel family's fields; the order is the contract between packer and kernel.
    values : mapping of str to int or numpy.ndarray
        A scalar or an integer array for each field.

    Returns
    -------
    numpy.ndarray
        int32 ``[entries]``.

    Raises
    ------
    ValueError
        If the names do not match the fields, or a value does not fit 32 bits.
    """
    if set(fields) != set(values):
        raise ValueError(f"table fields {sorted(fields)} do not match the values {sorted(values)}")
    header = np.zeros(len(fields), np.int64)
    arrays, position = [], len(fields)
    for index, name in enumerate(fields):
        value = np.asarray(values[name], np.int64)
        if value.ndim == 0:
            header[index] = value
        else:
            header[index] = position
            arrays.append(value.reshape(-1))
            position += value.size
    blob = np.concatenate([header, *arrays, np.zeros(_PADDING, np.int64)])
    if blob.size and (blob.max() > np.iinfo(np.int32).max or blob.min() < np.iinfo(np.int32).min):
        raise ValueError("a table entry does not fit 32 bits: the tensor is too large")
    return blob.astype(np.int32)


class TableValues:
    """Reads a blob that `pack_table` wrote.

    Parameters
    ----------
    fields : sequence of str
        The names that it was written with.
    blob : numpy.ndarray
        int32 ``[entries]``.
    """

    def __init__(self, fields: Sequence[str], blob: np.ndarray):
        self._header = dict(zip(fields, blob[: len(fields)].tolist(), strict=True))
        self._blob = blob

    def scalar(self, name: str) -> int:
        """Value of a scalar field."""
        return self._header[name]

    def array(self, name: str, size: int) -> np.ndarray:
        """First `size` entries of an array field; the blob doesn't hold its length."""
        return self._blob[self._header[name] :][:size]
