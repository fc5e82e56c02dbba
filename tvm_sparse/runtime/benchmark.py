"""Timing of a model."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tvm_sparse.errors import InputError


@dataclass(frozen=True)
class BenchmarkResult:
    """Times of repeated runs; all statistics are in milliseconds.

    Parameters
    ----------
    results : tuple of float
        One entry per repeat, in seconds: the mean of the runs of that repeat.
    """

    results: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean in ms."""
        return float(np.mean(self.results)) * 1e3

    @property
    def median(self) -> float:
        """Median in ms."""
        return float(np.median(self.results)) * 1e3

    @property
    def max(self) -> float:
        """Slowest repeat in ms."""
        return float(np.max(self.results)) * 1e3

    @property
    def min(self) -> float:
        """Fastest repeat in ms."""
        return float(np.min(self.results)) * 1e3

    @property
    def std(self) -> float:
        """Standard deviation in ms."""
        return float(np.std(self.results)) * 1e3

    def __str__(self) -> str:
        columns = ("mean", "median", "max", "min", "std")
        header = " ".join(f"{f'{name} (ms)':^12}" for name in columns)
        values = " ".join(f"{getattr(self, name):^12.4f}" for name in columns)
        return f"Execution time summary:\n{header}\n{values}"


def time_function(
    function: Callable[[], object],
    *,
    number: int = 10,
    repeat: int = 1,
    warmup: int = 1,
    min_repeat_ms: float = 0,
) -> BenchmarkResult:
    """Time a function.

    Parameters
    ----------
    function : callable
        What is timed; takes no arguments.
    number : int
        Runs per repeat; a repeat's time is their mean.
    repeat : int
        Entries of the result.
    warmup : int
        Runs before the first repeat that are not counted.
    min_repeat_ms : float
        Raise `number` until a repeat takes at least this long.

    Returns
    -------
    BenchmarkResult
        The times.
    """
    if number < 1 or repeat < 1 or warmup < 0:
        raise InputError("number and repeat must be at least 1, warmup at least 0.")
    for _ in range(warmup):
        function()
    results: list[float] = []
    while len(results) < repeat:
        seconds = _time(function, number)
        if seconds * 1e3 < min_repeat_ms:
            # A tenth more than needed, so that one step is nearly always enough.
            number = max(number + 1, int(number * min(1.1 * min_repeat_ms / max(seconds * 1e3, 1e-3), 100)))
            continue
        results.append(seconds / number)
    return BenchmarkResult(tuple(results))


def _time(function: Callable[[], object], number: int) -> float:
    start = time.perf_counter()
    for _ in range(number):
        function()
    return time.perf_counter() - start
