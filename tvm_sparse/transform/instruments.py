"""Instruments that print modules around passes and time them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import tvm
from tvm.ir.instrument import pass_instrument


@pass_instrument
class PrintIR:
    """Print the module before and after chosen passes.

    Parameters
    ----------
    before, after : sequence of str
        Names of passes; ``"*"`` for all.
    """

    def __init__(self, before: Sequence[str], after: Sequence[str]):
        self.before = set(before)
        self.after = set(after)

    def run_before_pass(self, module: tvm.IRModule, info: Any) -> None:
        """Print before a pass."""
        self._print("before", self.before, module, info)

    def run_after_pass(self, module: tvm.IRModule, info: Any) -> None:
        """Print after a pass."""
        self._print("after", self.after, module, info)

    def _print(self, when: str, names: set[str], module: tvm.IRModule, info: Any) -> None:
        if names & {"*", str(info.name)}:
            print(f"# ---- {when} {info.name}\n{module.script()}", flush=True)


@pass_instrument
class PassTimes:
    """Time every pass."""

    def __init__(self) -> None:
        self._starts: list[float] = []
        self.times: list[tuple[int, str, float]] = []

    def run_before_pass(self, _module: tvm.IRModule, _info: Any) -> None:
        """Start the clock."""
        self._starts.append(time.perf_counter())

    def run_after_pass(self, _module: tvm.IRModule, info: Any) -> None:
        """Stop the clock."""
        elapsed = time.perf_counter() - self._starts.pop()
        self.times.append((len(self._starts), str(info.name), elapsed))

    def render(self) -> str:
        """A line per pass, nested ones indented."""
        return "\n".join(
            f"{'  ' * depth}{name}: {seconds * 1e3:.1f} ms" for depth, name, seconds in self.times
        )
