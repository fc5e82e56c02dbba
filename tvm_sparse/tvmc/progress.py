"""Progress of long work: a bar on a terminal, plain lines elsewhere; always on stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO


class Progress:
    """Shows the phase that work is in; an instance is the `progress` argument of the API's functions.

    Calling ``progress(phase)`` says that a phase has begun. Off a terminal each phase is a line with the time
    since the start.

    Parameters
    ----------
    stream : text file, optional
        Where to; default: stderr.
    """

    def __init__(self, stream: TextIO | None = None):
        self._stream = stream or sys.stderr
        self._phase: str | None = None
        self._start = time.perf_counter()
        self._bar = _TerminalBar() if self._stream.isatty() else None

    def __call__(self, phase: str) -> None:
        if self._bar is not None:
            self._bar.show(phase)
        elif phase != self._phase:
            elapsed = time.perf_counter() - self._start
            print(f"[{elapsed:6.1f} s] {phase}", file=self._stream, flush=True)
        self._phase = phase

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()


class _TerminalBar:
    """One line that is redrawn: spinner, phase, time."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import Progress as RichProgress
        from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        self._rich = RichProgress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._rich.add_task("", total=None)
        self._rich.start()

    def show(self, phase: str) -> None:
        self._rich.update(self._task, description=phase)

    def close(self) -> None:
        self._rich.stop()
