"""Number of threads that compiled models use. TVM keeps one pool of workers per calling thread."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
import warnings
from collections.abc import Iterator

import tvm_ffi

from tvm_sparse.errors import InputError
from tvm_sparse.runtime.host import default_num_threads
from tvm_sparse.runtime.library import load_runtime

# tvm::runtime::threading::SetMaxConcurrency(int): sets the count of the calling thread without making a pool.
_SET_MAX_CONCURRENCY = "_ZN3tvm7runtime9threading17SetMaxConcurrencyEi"
_SHARE_ALL_CORES = -3

# How TVM's pools are set up, where the user's environment doesn't say otherwise.
_POOL_SETTINGS = {
    # TVM would pin the *calling* thread too, to the machine's first cores, and so override the affinity that the user
    # (taskset, a container, another library) has set.
    "TVM_BIND_THREADS": "0",
    # Times that an idle worker looks for work before it sleeps. With this many (about half a millisecond) it stays
    # awake between the layers of a model; TVM's 300000 burn a tenth of a second of a core after every run, and where
    # another process wants that core, the kernel takes the time off what the worker gets when there is work.
    "TVM_THREAD_POOL_SPIN_COUNT": "1000",
}


class _Calling(threading.local):
    current = 0
    pool = 0


_calling = _Calling()


def resolve(*requests: int | None) -> int:
    """First of the requested thread counts that is given, else the environment's, else all physical cores.

    Parameters
    ----------
    *requests : int or None
        Counts in order of priority.

    Returns
    -------
    int
        At least 1.

    Raises
    ------
    InputError
        If a count is not a positive integer.
    """
    for count in requests:
        if count is not None:
            return _positive(count, "num_threads")
    for name in ("TVM_NUM_THREADS", "OMP_NUM_THREADS"):
        # OMP_NUM_THREADS may list counts for nested levels: the first is the outermost.
        text = os.environ.get(name, "").split(",")[0].strip()
        if text:
            return _positive(text, name)
    return default_num_threads()


def _positive(value: int | str, name: str) -> int:
    try:
        count = int(value)
    except (TypeError, ValueError):
        count = 0
    if count < 1 or isinstance(value, float):
        raise InputError(f"{name} must be a positive integer, not {value!r}.")
    return count


def use(count: int) -> None:
    """Let parallel loops that the calling thread starts run on `count` threads; nearly free if unchanged."""
    if _calling.current != count:
        _configure(count)
        _calling.current = count


def _configure(count: int) -> None:
    runtime = load_runtime()
    set_max = getattr(runtime, _SET_MAX_CONCURRENCY, None)
    if count == 1 and set_max is not None:
        set_max(1)
        return
    if _calling.pool and count > _calling.pool:
        warnings.warn(
            f"This thread already runs models on {_calling.pool} threads: its pool of workers cannot grow to "
            f"{count}. Load the model with more threads first, or run it in another Python thread.",
            RuntimeWarning,
            stacklevel=4,
        )
    with _pool_settings():
        cpus = [str(cpu) for cpu in range(count)]
        tvm_ffi.get_global_func("runtime.config_threadpool")(_SHARE_ALL_CORES, count, cpus)
        if not _calling.pool:
            # Workers read their settings when they start, which they have once each of them has done something.
            runtime.TVMBackendParallelLaunch(_nothing, None, 0)
    _calling.pool = _calling.pool or count


@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
def _nothing(_task: int, _environment: object, _data: object) -> int:
    """A parallel region's task that succeeds."""
    return 0


@contextlib.contextmanager
def _pool_settings() -> Iterator[None]:
    """The environment that a pool is made in."""
    missing = {name: value for name, value in _POOL_SETTINGS.items() if name not in os.environ}
    os.environ.update(missing)
    try:
        yield
    finally:
        for name in missing:
            del os.environ[name]
