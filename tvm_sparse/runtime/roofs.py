"""What the machine reaches at best, measured, and what a layer's work would take there."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tvm_ffi

from tvm_sparse import __version__
from tvm_sparse.runtime.arrays import aligned_empty, as_tensor
from tvm_sparse.runtime.cache import cache_folder
from tvm_sparse.runtime.host import cache_bytes
from tvm_sparse.runtime.shared_library import load_runtime, runtime_version, threads_setter

# Revision of the library's sources: schedules/cpu/roofs.py and the launcher of its parallel loops.
_REVISION = 2
# Vectors of one step of its loops.
_ACCUMULATORS = 12
_CALL_SECONDS = 1e-3
_L3_BYTES = 16 << 20
_DRAM_BYTES = 64 << 20, 256 << 20


@dataclass(frozen=True)
class Roofs:
    """Rates that `num_threads` threads reach together.

    Parameters
    ----------
    num_threads : int
        Threads that ran.
    lanes : int
        float32 elements of a vector.
    flops : float
        float32 operations a second, two for each multiply-add on registers.
    read, write : dict of str to float
        Bytes a second by level of memory: ``"L1"``, ``"L2"``, ``"L3"``, ``"DRAM"``. A vector read feeds a multiply-add.
    sizes : dict of str to int
        Bytes of the caches ``"L1"``, ``"L2"`` (of one core) and ``"L3"``.
    """

    num_threads: int
    lanes: int
    flops: float
    read: Mapping[str, float]
    write: Mapping[str, float]
    sizes: Mapping[str, int]

    def limits(self, work: Mapping[str, Any], memory: str) -> dict[str, float]:
        """Least seconds that a layer's work takes, by roof.

        Parameters
        ----------
        work : mapping
            ``"work"`` of the plan's layer.
        memory : str
            Level beyond the second-level cache that holds the model: ``"L3"`` or ``"DRAM"``.
        """
        return {
            "FMA": 2 * work["lane_macs"] / self.flops,
            "L1": work["loaded"] / self.read["L1"],
            "L2": work["l2_read"] / self.read["L2"] + work["l2_written"] / self.write["L2"],
            memory: work["memory_read"] / self.read[memory] + work["memory_written"] / self.write[memory],
        }

    def memory_of(self, num_bytes: int) -> str:
        """Level that holds a model which touches so many bytes in a run."""
        return "L3" if num_bytes <= self.sizes["L3"] else "DRAM"

    def to_json(self) -> dict[str, Any]:
        """The roofs as JSON values."""
        return {
            "num_threads": self.num_threads,
            "lanes": self.lanes,
            "flops": self.flops,
            "read": dict(self.read),
            "write": dict(self.write),
            "sizes": dict(self.sizes),
        }


def roofs_library(target: str) -> Path:
    """Where the compiled loops for a target are cached; the compiler writes them (`tvm_sparse.build.roofs`)."""
    key = f"{target} {__version__} {runtime_version()} {_REVISION}"
    return cache_folder("roofs") / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.so"


class RoofMeter:
    """Measures the roofs on the cores that this process may use.

    Other programs on the machine disturb one moment or another, so every roof is measured many times, in turn, for a
    millisecond each, and the fastest counts.

    Parameters
    ----------
    library : Path
        The compiled loops.
    isa : str
        Vector instruction set that they are compiled for.
    lanes : int
        float32 elements of its vectors.
    num_threads : int
        Threads that share the work.
    """

    def __init__(self, library: Path, isa: str, lanes: int, num_threads: int):
        load_runtime()
        self._module = tvm_ffi.load_module(str(library))
        self._use_threads = threads_setter(self._module)
        self._isa, self._lanes, self._threads = isa, lanes, num_threads
        self._caches = {level: cache_bytes(level) for level in ("L1", "L2", "L3")}
        self._step = _ACCUMULATORS * lanes * 4
        # Steps of each level's buffer, a power of two.
        self._sizes = {
            level: 1 << (size // self._step).bit_length() - 1
            for level, size in buffer_bytes(self._caches, num_threads).items()
        }
        data = aligned_empty((max(self._sizes.values()) * self._step // 4 * num_threads,), "float32")
        data.fill(0)
        numbers = aligned_empty((2 * lanes,), "float32")
        numbers[:lanes], numbers[lanes:] = 1 - 2**-12, 2**-12
        sums = aligned_empty((num_threads * self._step // 4,), "float32")
        sums.fill(1)
        self._tensors = as_tensor(numbers), as_tensor(data), as_tensor(sums)
        self._loops = {("multiply", ""): self._loop("multiply", "L1", _ACCUMULATORS * lanes * 2)}
        for kind in ("read", "write"):
            self._loops |= {(kind, level): self._loop(kind, level, self._step) for level in self._sizes}

    def run(self, seconds: float) -> None:
        """Measure for about so many seconds, every roof at least once, the one that had the least time first."""
        self._use_threads(self._threads)
        end = time.perf_counter() + seconds
        loops = self._loops.values()
        while time.perf_counter() < end or any(not loop.best for loop in loops):
            min(loops, key=lambda loop: loop.spent).run()

    def roofs(self) -> Roofs:
        """The best of all measurements."""
        best = {key: loop.best for key, loop in self._loops.items()}
        read = {level: best["read", level] for level in self._sizes}
        write = {level: best["write", level] for level in self._sizes}
        return Roofs(self._threads, self._lanes, best["multiply", ""], read, write, self._caches)

    def _loop(self, kind: str, level: str, amount: int) -> _Loop:
        function = self._module.get_function(f"tvm_sparse_roof_{kind}_{self._isa}")
        return _Loop(function, self._tensors, self._threads, self._sizes[level], amount)


class _Loop:
    """One loop on a buffer of one size."""

    def __init__(self, function: Any, tensors: tuple[Any, Any, Any], tasks: int, size: int, amount: int):
        self._function, self._tensors, self._tasks = function, tensors, tasks
        self._counts = aligned_empty((3,), "int32")
        self._counts[:] = tasks, size, size
        self._counts_tensor = as_tensor(self._counts)
        self._size, self._amount = size, amount * tasks
        self.best = self.spent = 0.0

    def run(self) -> None:
        """Time one call, of about a millisecond or one round of the buffer."""
        steps = int(self._counts[2])
        numbers, data, sums = self._tensors
        start = time.perf_counter()
        self._function(numbers, self._counts_tensor, data, sums)
        seconds = time.perf_counter() - start
        self.best = max(self.best, steps * self._amount / seconds)
        self.spent += seconds
        rounds = int(_CALL_SECONDS / seconds * steps / self._size)
        self._counts[2] = self._size * min(max(1, rounds), 1 << 16)


def buffer_bytes(caches: Mapping[str, int], num_threads: int) -> dict[str, int]:
    """Bytes of each thread's buffer that a level of memory serves.

    Half a cache, since other data is in it too; of L3, which the threads and other programs share, a moderate part,
    still several times what L2 holds.
    """
    l3 = min(caches["L3"] // 2, _L3_BYTES)
    return {
        "L1": caches["L1"] // 2,
        "L2": max(caches["L2"] // 2, 2 * caches["L1"]),
        "L3": max(l3 // num_threads, 4 * caches["L2"]),
        "DRAM": min(max(2 * caches["L3"], _DRAM_BYTES[0]), _DRAM_BYTES[1]) // num_threads,
    }
