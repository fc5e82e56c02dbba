"""A loaded model that runs on numpy arrays."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tvm_ffi

from tvm_sparse.errors import InputError
from tvm_sparse.runtime import threads
from tvm_sparse.runtime.arrays import aligned_empty, as_tensor, fill_inputs, numpy_dtype
from tvm_sparse.runtime.benchmark import BenchmarkResult, time_function
from tvm_sparse.runtime.profile import ProfileResult, profile_vm
from tvm_sparse.runtime.shared_library import open_library
from tvm_sparse.runtime.spec import ALIGNMENT, TensorSpec
from tvm_sparse.runtime.weights import Weights

# Below this size a copy costs less than finding out whether it is needed.
_SMALL_BYTES = 16384

_array_item = tvm_ffi.get_global_func("ffi.ArrayGetItem")


class Module:
    """A model in memory, ready to run.

    One run at a time: a lock makes concurrent callers wait. For parallel requests load the package once per
    thread; weights that are kept beside the library are shared.

    Parameters
    ----------
    library : Path
        Shared library of the model.
    metadata : mapping
        Content of the package's ``mod.json``.
    weights : Weights, optional
        Weights that are not inside the library: the model's last argument.
    num_threads : int, optional
        Threads of parallel loops. Default: what the package says, else ``TVM_NUM_THREADS`` or
        ``OMP_NUM_THREADS``, else all physical cores that the process may use.

    Raises
    ------
    PackageError
        If the library cannot be loaded.
    """

    def __init__(
        self,
        library: Path,
        metadata: Mapping[str, Any],
        num_threads: int | None = None,
        weights: Weights | None = None,
    ):
        self.metadata = dict(metadata)
        self.inputs = read_specs(metadata["inputs"])
        self.outputs = read_specs(metadata["outputs"])
        self.num_threads = threads.resolve(num_threads, metadata.get("num_threads"))
        self._library = open_library(library)
        self._weights = weights
        self._extra = () if weights is None else (weights.array,)
        self._main = self._library.new_vm()["main"]
        self._slots = [_InputSlot(spec) for spec in self.inputs]
        self._input_names = [spec.name for spec in self.inputs]
        self._output_names = [spec.name for spec in self.outputs]
        self._own = [spec.own for spec in self.outputs]
        self._lock = threading.Lock()

    def run(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Run the model.

        Parameters
        ----------
        inputs : mapping of str to array
            One array per input, with exactly the shape and dtype that the model asks for. An array is used
            in place if it is C-contiguous, writeable and as aligned as :attr:`inputs` says (to an element for images
            of layers, to 64 bytes else; `tvm_sparse.runtime.arrays.aligned_empty` makes such), else copied.

        Returns
        -------
        dict of str to numpy.ndarray
            The outputs by name; nobody else uses their memory, not even a later run.

        Raises
        ------
        InputError
            For a missing or unknown name, a wrong shape or a wrong dtype; nothing is cast silently.
        """
        return dict(zip(self._output_names, self._invoke(self._ordered(inputs)), strict=True))

    def __call__(self, *args: Any, **kwargs: Any) -> np.ndarray | tuple[np.ndarray, ...]:
        """Run the model on inputs in the model's order, or by name.

        Returns
        -------
        numpy.ndarray or tuple of numpy.ndarray
            The only output, or all in the model's order. Errors as `run`.
        """
        if len(args) > len(self.inputs):
            raise InputError(f"The model takes {len(self.inputs)} inputs, {len(args)} were given.")
        if kwargs or len(args) != len(self.inputs):
            named = dict(zip(self._input_names, args, strict=False))
            twice = sorted(named.keys() & kwargs.keys())
            if twice:
                raise InputError(f"the input tensor '{twice[0]}' was given twice.")
            args = tuple(self._ordered({**named, **kwargs}))
        results = self._invoke(args)
        return results[0] if len(results) == 1 else tuple(results)

    def benchmark(
        self,
        inputs: Mapping[str, Any] | None = None,
        *,
        number: int = 10,
        repeat: int = 1,
        warmup: int = 1,
        min_repeat_ms: float = 0,
        end_to_end: bool = False,
    ) -> BenchmarkResult:
        """Time the model.

        Parameters
        ----------
        inputs : mapping of str to array, optional
            As in `run`; random if not given.
        number, repeat, warmup : int
            Runs per repeat, repeats, and uncounted runs before.
        min_repeat_ms : float
            Raise `number` until a repeat takes at least this long.
        end_to_end : bool
            Count also what `run` does around the model: checks and copies of inputs and outputs.

        Returns
        -------
        BenchmarkResult
            The times.
        """
        arrays = self._ordered(fill_inputs(self.inputs) if inputs is None else inputs)
        function = (lambda: self._invoke(arrays)) if end_to_end else self._bound(self._main, arrays)
        if end_to_end:
            return time_function(
                function, number=number, repeat=repeat, warmup=warmup, min_repeat_ms=min_repeat_ms
            )
        with self._lock:
            self._library.use_threads(self.num_threads)
            return time_function(
                function, number=number, repeat=repeat, warmup=warmup, min_repeat_ms=min_repeat_ms
            )

    def profile(self, inputs: Mapping[str, Any] | None = None, *, repeat: int = 10) -> ProfileResult:
        """Time each call inside the model.

        Parameters
        ----------
        inputs : mapping of str to array, optional
            As in `run`; random if not given.
        repeat : int
            Runs to average over.

        Returns
        -------
        ProfileResult
            The calls in order of execution and summed by function.
        """
        if repeat < 1:
            raise InputError("repeat must be at least 1.")
        arrays = self._ordered(fill_inputs(self.inputs) if inputs is None else inputs)
        # A virtual machine of its own: instrumentation would slow down later runs.
        vm = self._library.new_vm()
        with self._lock:
            self._library.use_threads(self.num_threads)
            return profile_vm(vm, self._bound(vm["main"], arrays), repeat)

    def _ordered(self, inputs: Mapping[str, Any]) -> list[Any]:
        for name in inputs:
            if name not in self._input_names:
                raise InputError(
                    f"the input tensor '{name}' is not in the graph. Expected inputs: '{self._input_names}'"
                )
        missing = [name for name in self._input_names if name not in inputs]
        if missing:
            raise InputError(
                f"the input tensor '{missing[0]}' is missing. Expected inputs: '{self._input_names}'"
            )
        return [inputs[name] for name in self._input_names]

    def _invoke(self, arrays: Sequence[Any]) -> list[np.ndarray]:
        with self._lock:
            self._library.use_threads(self.num_threads)
            args = [slot.bind(array) for slot, array in zip(self._slots, arrays, strict=True)]
            tensors = flatten(self._main(*args, *self._extra))
            arrays = [np.from_dlpack(tensor) for tensor in tensors]
            # Copies: an output may be the model's constant, an input, or the same tensor as another output. And numpy
            # before 2.1 lets nobody write into what it is handed.
            return [
                array if own and array.flags.writeable else array.copy()
                for own, array in zip(self._own, arrays, strict=True)
            ]

    def _bound(self, main: Callable[..., Any], arrays: Sequence[Any]) -> Callable[[], object]:
        """The model with inputs that are checked and converted once."""
        args = [_InputSlot(spec).bind(array) for spec, array in zip(self.inputs, arrays, strict=True)]
        args += self._extra
        return lambda: main(*args)


class _InputSlot:
    """Checks arrays for one input and hands them to TVM; copies only those that it cannot take as is."""

    def __init__(self, spec: TensorSpec):
        self._spec = spec
        self._dtype = numpy_dtype(spec.dtype)
        self._shape = spec.shape
        self._staging: np.ndarray | None = None
        self._staging_tensor: Any = None

    def bind(self, value: Any) -> Any:
        array = value if isinstance(value, np.ndarray) else np.asarray(value)
        if array.dtype != self._dtype or array.shape != self._shape:
            self._refuse(array)
        if array.nbytes > _SMALL_BYTES:
            flags = array.flags
            if flags.c_contiguous and flags.writeable:
                tensor = tvm_ffi.from_dlpack(array)
                if tensor.data_ptr() % self._spec.alignment == 0:
                    return tensor
        if self._staging is None:
            self._staging = aligned_empty(self._shape, self._dtype)
            self._staging_tensor = as_tensor(self._staging)
        np.copyto(self._staging, array)
        return self._staging_tensor

    def _refuse(self, array: np.ndarray) -> None:
        name = self._spec.name
        if array.dtype != self._dtype:
            raise InputError(
                f"the input tensor '{name}' has dtype {array.dtype}, expected {self._dtype}. "
                f'Nothing is cast silently: convert it with .astype("{self._dtype}").'
            )
        raise InputError(f"the input tensor '{name}' has shape {array.shape}, expected {self._shape}.")


def read_specs(entries: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    """Tensor descriptions of a package's ``mod.json``."""
    return tuple(
        TensorSpec(
            entry["name"],
            tuple(int(extent) for extent in entry["shape"]),
            entry["dtype"],
            int(entry.get("alignment", ALIGNMENT)),
            bool(entry.get("own", False)),
        )
        for entry in entries
    )


def flatten(result: Any) -> list[Any]:
    """The tensors of a possibly nested tuple, in order."""
    if isinstance(result, tvm_ffi.Tensor):
        return [result]
    # Several times faster than iterating over the array in Python.
    fields = [_array_item(result, index) for index in range(len(result))]
    if all(isinstance(field, tvm_ffi.Tensor) for field in fields):
        return fields
    return [tensor for field in fields for tensor in flatten(field)]
