"""Number of threads that compiled models use."""

from __future__ import annotations

import os

from tvm_sparse.errors import InputError
from tvm_sparse.runtime.host import default_num_threads


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
