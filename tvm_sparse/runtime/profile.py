"""Time of every call that a model's virtual machine makes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tvm_ffi

from tvm_sparse.errors import TvmSparseError


@dataclass(frozen=True)
class CallTime:
    """Time of one call, or of all calls of one function.

    Parameters
    ----------
    name : str
        Function that was called; names that start with ``vm.builtin.`` are the virtual machine's own.
    calls : int
        Calls per run of the model.
    ms : float
        Time per run of the model in milliseconds, the median over the runs.
    best_ms : float
        The same of each call's fastest run.
    """

    name: str
    calls: int
    ms: float
    best_ms: float


@dataclass(frozen=True)
class ProfileResult:
    """Times of the calls of a model in order of execution.

    A measured call includes about a microsecond for the measuring itself.

    Parameters
    ----------
    calls : tuple of CallTime
        Each call.
    run_ms : float
        Median time of a run whose calls are not measured.
    """

    calls: tuple[CallTime, ...]
    run_ms: float = 0.0

    @property
    def kernels(self) -> tuple[CallTime, ...]:
        """The calls of compiled functions, without the virtual machine's own, in order of execution."""
        return tuple(call for call in self.calls if not call.name.startswith("vm.builtin."))

    def by_name(self) -> tuple[CallTime, ...]:
        """Calls of one function added up, the slowest first."""
        total: dict[str, CallTime] = {}
        for call in self.calls:
            before = total.get(call.name, CallTime(call.name, 0, 0.0, 0.0))
            total[call.name] = CallTime(
                call.name, before.calls + call.calls, before.ms + call.ms, before.best_ms + call.best_ms
            )
        return tuple(sorted(total.values(), key=lambda call: call.ms, reverse=True))

    def table(self, top: int | None = None) -> str:
        """A printable table of the slowest functions, at most `top` rows."""
        rows = self.by_name()
        total = sum(row.ms for row in rows) or 1.0
        shown = rows if top is None else rows[:top]
        width = max([len(row.name) for row in shown] + [8])
        lines = [f"{'function':<{width}}  {'calls':>5}  {'time (ms)':>10}  {'share':>6}"]
        lines += [
            f"{row.name:<{width}}  {row.calls:>5}  {row.ms:>10.4f}  {row.ms / total:>6.1%}" for row in shown
        ]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.table()


class _Recorder:
    """Receives the virtual machine's notice before and after each call."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.seconds: list[float] = []
        self._starts: list[float] = []

    def __call__(self, _function: Any, name: str, before: bool, _result: Any, *_args: Any) -> int:
        now = time.perf_counter()
        if before:
            # Calls nest (a function of the model that calls another), so starts are a stack.
            self._starts.append(time.perf_counter())
        else:
            self.names.append(str(name))
            self.seconds.append(now - self._starts.pop())
        return 0


def profile_vm(vm: Any, run: Callable[[], object], repeat: int) -> ProfileResult:
    """Run a model several times and time each call.

    Parameters
    ----------
    vm : tvm_ffi.Module
        Virtual machine that `run` uses; it stays instrumented, so it should be made for this purpose.
    run : callable
        Runs the model once on `vm`.
    repeat : int
        Runs with measured calls and as many without, after one that is not counted.

    Raises
    ------
    TvmSparseError
        If the model makes no calls that can be observed.
    """
    run()
    whole = [_seconds(run) for _ in range(repeat)]
    recorder = _Recorder()
    vm["set_instrument"](tvm_ffi.convert(recorder))
    runs: list[tuple[list[str], list[float]]] = []
    for _ in range(repeat + 1):
        recorder.names, recorder.seconds = [], []
        run()
        runs.append((recorder.names, recorder.seconds))
    counted = runs[1:]
    names = counted[0][0]
    if not names:
        raise TvmSparseError("This model was compiled as one function: its calls cannot be profiled.")
    if any(other != names for other, _ in counted):
        raise TvmSparseError("This model's calls differ from run to run: they cannot be averaged.")
    columns = zip(*(seconds for _, seconds in counted), strict=True)
    calls = [
        CallTime(name, 1, statistics.median(column) * 1e3, min(column) * 1e3)
        for name, column in zip(names, columns, strict=True)
    ]
    return ProfileResult(tuple(calls), statistics.median(whole) * 1e3)


def merge_profiles(results: Sequence[ProfileResult]) -> ProfileResult:
    """Several profiles of one model as one: the median of medians, the best of all."""
    calls = [
        CallTime(same[0].name, 1, statistics.median(call.ms for call in same), min(call.best_ms for call in same))
        for same in zip(*(result.calls for result in results), strict=True)
    ]
    return ProfileResult(tuple(calls), statistics.median(result.run_ms for result in results))


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
