"""numpy arrays as compiled code wants them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tvm_ffi

from tvm_sparse.errors import InputError, MissingPackageError
from tvm_sparse.runtime.spec import ALIGNMENT, TensorSpec


def numpy_dtype(name: str) -> np.dtype:
    """The numpy dtype of a package's dtype name.

    Raises
    ------
    MissingPackageError
        For bfloat16 and float8 types where ml_dtypes is not installed.
    """
    try:
        return np.dtype(name)
    except TypeError:
        try:
            import ml_dtypes
        except ImportError:
            raise MissingPackageError("ml_dtypes", f"pip install ml_dtypes (for {name} tensors)") from None
        return np.dtype(getattr(ml_dtypes, name))


def aligned_empty(shape: Sequence[int], dtype: str | np.dtype) -> np.ndarray:
    """An uninitialised array whose data starts at a multiple of 64 bytes: such an input is not copied.

    Parameters
    ----------
    shape : sequence of int
        Shape.
    dtype : str or numpy.dtype
        Element type.

    Returns
    -------
    numpy.ndarray
        C-contiguous array of `shape` and `dtype`.
    """
    dtype = numpy_dtype(dtype) if isinstance(dtype, str) else np.dtype(dtype)
    nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    raw = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + nbytes].view(dtype).reshape(shape)


def as_tensor(array: np.ndarray) -> tvm_ffi.Tensor:
    """A tensor that shares a C-contiguous array's memory.

    numpy gives arrays without elements strides of its own; compiled code expects those of a compact tensor.
    """
    if array.size == 0:
        strides = [array.itemsize] * array.ndim
        for axis in reversed(range(array.ndim - 1)):
            strides[axis] = strides[axis + 1] * array.shape[axis + 1]
        array = np.lib.stride_tricks.as_strided(array, array.shape, strides)
    return tvm_ffi.from_dlpack(array)


def fill_inputs(specs: Sequence[TensorSpec], mode: str = "random", seed: int = 0) -> dict[str, np.ndarray]:
    """Make up inputs for a model.

    Parameters
    ----------
    specs : sequence of TensorSpec
        The model's inputs.
    mode : {"random", "zeros", "ones"}
        Random floats are uniform in [0, 1), random bytes use their whole range, and other random integers
        are 0 or 1, which is valid as an index, a token and a mask alike.
    seed : int
        Seed of the random numbers.

    Returns
    -------
    dict of str to numpy.ndarray
        One 64-byte aligned array per input.
    """
    if mode not in ("random", "zeros", "ones"):
        raise InputError(f"fill mode must be one of random, zeros, ones, not '{mode}'.")
    rng = np.random.default_rng(seed)
    filled = {}
    for spec in specs:
        array = aligned_empty(spec.shape, spec.dtype)
        if mode == "random":
            array[...] = _random(rng, spec.shape, array.dtype)
        else:
            array[...] = mode == "ones"
        filled[spec.name] = array
    return filled


def _random(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    if dtype.kind in "iu":
        if dtype.itemsize == 1:
            limits = np.iinfo(dtype)
            return rng.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)
        return rng.integers(0, 2, shape).astype(dtype)
    return rng.random(shape, dtype=np.float32).astype(dtype)
