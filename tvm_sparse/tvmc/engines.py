"""Engines that `tvmc benchmark` compares, each in a process of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import tvm_sparse
from tvm_sparse.errors import TvmSparseError
from tvm_sparse.tvmc import worker

ENGINE_NAMES = tuple(worker.ENGINES)


class EngineSkipped(Exception):
    """An engine that cannot take part, with the reason."""


@dataclass
class EngineResult:
    """What was measured of one engine.

    Parameters
    ----------
    engine, version : str
        Name and version.
    load_seconds : float
        From the start of loading to the end of the first run.
    times : list of float
        Seconds of each run.
    peak_bytes : int
        Most memory that the engine's process held.
    outputs : list of numpy.ndarray
        Outputs in the model's order.
    """

    engine: str
    version: str
    load_seconds: float
    times: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    outputs: list[np.ndarray] = field(default_factory=list)


class EngineProcess:
    """A running engine.

    Parameters
    ----------
    engine : str
        One of `ENGINE_NAMES`.
    model : str or Path
        ONNX model, or for ``"tvm"`` a package.
    inputs : Path
        ``.npz`` file of inputs by name.
    cores : sequence of int
        CPUs that the process is confined to; one thread each.
    python : str
        Interpreter.

    Raises
    ------
    EngineSkipped
        If the engine is not installed, or cannot load the model.
    """

    def __init__(
        self, engine: str, model: str | Path, inputs: Path, cores: Sequence[int], python: str = sys.executable
    ):
        self.engine = engine
        command = [python, worker.__file__, engine, str(model), str(inputs), ",".join(map(str, cores))]
        self._errors = tempfile.TemporaryFile()
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                env=_environment(engine, len(cores)),
            )
        except OSError as error:
            raise EngineSkipped(f"'{python}' cannot be started: {error.strerror}") from error
        try:
            hello = self._answer()
            if "missing" in hello:
                raise EngineSkipped(f'package "{hello["missing"]}" is not installed ({hello["why"]})')
            if "error" in hello:
                raise EngineSkipped(f"cannot run this model: {hello['error']}")
        except EngineSkipped:
            self.close()
            raise
        self.result = EngineResult(engine, hello["version"], hello["load_seconds"])

    def run(self, seconds: float, counted: bool = True) -> None:
        """Let the engine run for some time, and keep the times unless they are a warm-up."""
        answer = self._ask({"seconds": seconds})
        if counted:
            self.result.times += answer["times"]
        self.result.peak_bytes = answer["peak_bytes"]

    def fetch_outputs(self) -> None:
        """Get the outputs of the first run."""
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "outputs.npz")
            count = len(self._ask({"outputs": path})["names"])
            with np.load(path) as file:
                self.result.outputs = [file[str(index)] for index in range(count)]

    def close(self) -> None:
        """End the process."""
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()
        self._errors.close()

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # The answer says why.
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        code = self._process.wait()
        self._errors.seek(0)
        words = self._errors.read().decode(errors="replace").strip().splitlines() or ["no message"]
        # Crashes end with pages of addresses: the line that says something stands before them.
        telling = [line for line in words if re.search("error|exception|assert|fatal", line, re.IGNORECASE)]
        raise EngineSkipped(f"its process ended with code {code}: {(telling or words[-1:])[0]}")


def _environment(engine: str, threads: int) -> dict[str, str]:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    environment.pop("TVM_NUM_THREADS", None)
    if engine == "tvm":
        # Also when this package was found through the current folder.
        folder = str(Path(tvm_sparse.__file__).parent.parent)
        paths = [folder, *filter(None, [environment.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
    return environment


def parse_engines(text: str) -> tuple[str, ...]:
    """Engine names separated by commas.

    Raises
    ------
    TvmSparseError
        For an unknown name or none.
    """
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    unknown = [name for name in names if name not in ENGINE_NAMES]
    if unknown or not names:
        raise TvmSparseError(
            f"Unknown engine '{', '.join(unknown)}'. Known engines: {', '.join(ENGINE_NAMES)}."
        )
    return names


def max_relative_error(outputs: Sequence[np.ndarray], reference: Sequence[np.ndarray]) -> float | None:
    """Largest difference of any output to the reference, over that reference output's largest magnitude.

    None if the outputs differ in number or shape.
    """
    if [array.shape for array in outputs] != [array.shape for array in reference]:
        return None
    errors = [0.0]
    for array, expected in zip(outputs, reference, strict=True):
        if expected.size:
            scale = float(np.max(np.abs(expected.astype(np.float64)))) or 1.0
            errors.append(
                float(np.max(np.abs(array.astype(np.float64) - expected.astype(np.float64)))) / scale
            )
    return max(errors)
