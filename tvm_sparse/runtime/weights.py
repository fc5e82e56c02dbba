"""Weights of a model that are kept beside its code, in one block of memory.

A large constant inside a shared library takes four times its size while it is loaded, and seconds of
compiling and linking; weights kept apart are read once, straight to where they stay.
"""

from __future__ import annotations

import hashlib
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
import tvm_ffi

from tvm_sparse.errors import PackageError
from tvm_sparse.runtime.arrays import aligned_empty, as_tensor, numpy_dtype
from tvm_sparse.runtime.spec import ALIGNMENT

_CHUNK = 1 << 24


def describe_weights(arrays: Sequence[np.ndarray]) -> list[dict[str, Any]]:
    """Where each array stands in the block: dtype, shape, and an offset that is a multiple of 64 bytes."""
    entries, offset = [], 0
    for array in arrays:
        entries.append({"dtype": array.dtype.name, "shape": list(array.shape), "offset": offset})
        offset += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
    return entries


class WeightsReader:
    """The block as a file that is read once, so that it never stands in memory a second time.

    Parameters
    ----------
    arrays : sequence of numpy.ndarray
        The weights, in the order of `describe_weights`.
    """

    def __init__(self, arrays: Sequence[np.ndarray]):
        self._chunks = self._all_chunks(arrays)
        self._rest = memoryview(b"")

    @staticmethod
    def _all_chunks(arrays: Sequence[np.ndarray]) -> Iterator[memoryview]:
        for array in arrays:
            yield np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
            yield memoryview(bytes(-array.nbytes % ALIGNMENT))

    def read(self, size: int = _CHUNK, /) -> bytes:
        """The next `size` bytes, fewer only at the end."""
        pieces, missing = [], size
        while missing:
            if not self._rest:
                chunk = next(self._chunks, None)
                if chunk is None:
                    break
                self._rest = chunk
            pieces.append(self._rest[:missing])
            self._rest = self._rest[missing:]
            missing -= len(pieces[-1])
        return b"".join(pieces)


class Weights:
    """Weights in memory.

    Parameters
    ----------
    source : binary file
        The block; read to its end.
    nbytes : int
        Its size.
    digest : str
        Its SHA-256.
    entries : sequence of mapping
        What `describe_weights` returned.
    where : str
        Name of the package for messages.

    Raises
    ------
    PackageError
        If the block is shorter or has another hash, or an entry points outside of it.
    """

    def __init__(
        self, source: BinaryIO, nbytes: int, digest: str, entries: Sequence[Mapping[str, Any]], where: str
    ):
        # One large array: numpy asks for huge pages, which streaming through weights profits from.
        block = aligned_empty((nbytes,), "uint8")
        if _read_into(source, block) != nbytes:
            raise PackageError(f"'{where}' is truncated: its weights end early.")
        if hashlib.sha256(block.data).hexdigest() != digest:
            raise PackageError(f"'{where}' is damaged: its weights don't match its metadata.")
        tensors = []
        for entry in entries:
            dtype, shape, offset = numpy_dtype(entry["dtype"]), tuple(entry["shape"]), int(entry["offset"])
            size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            if offset % ALIGNMENT or offset < 0 or offset + size > nbytes or min(shape, default=0) < 0:
                raise PackageError(f"'{where}' is damaged: a weight lies outside of its block.")
            tensors.append(as_tensor(block[offset : offset + size].view(dtype).reshape(shape)))
        # Converted once: the virtual machine takes it as it is, call by call.
        self.array = tvm_ffi.convert(tensors)
        self.nbytes = nbytes


def _read_into(source: BinaryIO, block: np.ndarray) -> int:
    view, done = block.data, 0
    while done < len(view):
        count = source.readinto(view[done : done + _CHUNK])  # type: ignore[attr-defined]
        if not count:
            break
        done += count
    return done


_loaded: weakref.WeakValueDictionary[str, Weights] = weakref.WeakValueDictionary()
_loading = threading.Lock()


def shared_weights(digest: str, read: Callable[[], Weights]) -> Weights:
    """The weights with this hash: those in memory if a model holds them, else what `read()` returns."""
    with _loading:
        weights = _loaded.get(digest)
        if weights is None:
            weights = _loaded[digest] = read()
        return weights
