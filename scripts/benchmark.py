"""Times compiled models and other engines in turn, on the same inputs and pinned cores.

In each round every engine runs for a moment, in a process of its own; its best round's median counts, since
what disturbs a shared machine only ever adds time. An engine that is not installed is skipped with its name.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

import tvm_sparse
from scripts.benchmark_models import (
    GROUPS,
    REPOSITORY,
    Model,
    ModelUnavailable,
    default_zoo_python,
    expand,
    provide,
)
from scripts.benchmark_report import OURS, REFERENCE, Row, to_json, to_markdown
from tvm_sparse.errors import TvmSparseError
from tvm_sparse.runtime.arrays import fill_inputs
from tvm_sparse.runtime.files import write_text
from tvm_sparse.tvmc.cmd_benchmark import onnx_inputs
from tvm_sparse.tvmc.engines import (
    ENGINE_NAMES,
    EngineProcess,
    EngineSkipped,
    max_relative_error,
    parse_engines,
)


def parse_arguments() -> argparse.Namespace:
    """Read and check the command line."""
    groups = "; ".join(f"{name}: {', '.join(models)}" for name, models in GROUPS.items() if name != "all")
    parser = argparse.ArgumentParser(
        prog="scripts/benchmark",
        description=__doc__,
        epilog=f"Groups of models: {groups}. Zoo models are written by scripts/zoo.py, which needs torch.",
    )
    add = parser.add_argument
    add("--models", default="all", help="groups, names or ONNX files, separated by commas (all)")
    add("--engines", default=",".join(ENGINE_NAMES), help=f"of {', '.join(ENGINE_NAMES)} (all)")
    add("--cores", type=int, default=1, help="cores that each engine is pinned to (1)")
    add("--rounds", type=int, default=5, help="turns (5)")
    add("--seconds", type=float, default=1.0, help="time of each engine in a round (1)")
    add("--python", action="append", default=[], metavar="ENGINE=PATH", help="interpreter of an engine")
    add("--zoo-python", metavar="PATH", help="interpreter with torch, for zoo models")
    add("--folder", type=Path, default=REPOSITORY / ".peers" / "models", help="where made models are kept")
    add("--json", type=Path, metavar="PATH", help="write all measurements here")
    add("--markdown", type=Path, metavar="PATH", help="write the table here too")
    arguments = parser.parse_args()
    try:
        arguments.models = expand(arguments.models)
        arguments.engines = list(dict.fromkeys((OURS, *parse_engines(arguments.engines))))
        arguments.cores = choose_cores(arguments.cores)
        arguments.python = {**default_pythons(), **dict(split_python(text) for text in arguments.python)}
    except (ValueError, TvmSparseError) as error:
        parser.error(str(error))
    if arguments.rounds < 1 or arguments.seconds <= 0:
        parser.error("--rounds must be at least 1 and --seconds positive")
    return arguments


def choose_cores(count: int) -> list[int]:
    """The last `count` cores that this process may use: interrupts mostly keep to the first."""
    allowed = sorted(os.sched_getaffinity(0))
    if not 1 <= count <= len(allowed):
        raise ValueError(f"--cores {count}: from 1 to {len(allowed)} cores can be used here")
    return allowed[-count:]


def split_python(text: str) -> tuple[str, str]:
    """Engine and path of ``ENGINE=PATH``."""
    engine, separator, path = text.partition("=")
    if not separator or engine not in ENGINE_NAMES or not path:
        known = ", ".join(ENGINE_NAMES)
        raise ValueError(f"--python {text}: ENGINE=PATH is expected, with an engine of {known}")
    return engine, path


def default_pythons() -> dict[str, str]:
    """Interpreters that ``scripts/setup-peers`` made, by engine."""
    places = {"openvino": "engines", "deepsparse": "deepsparse"}
    paths = {engine: REPOSITORY / ".peers" / place / "bin" / "python" for engine, place in places.items()}
    return {engine: str(path) for engine, path in paths.items() if path.exists()}


def measure(model: Model, arguments: argparse.Namespace) -> Row:
    """Compile a model and time all engines on it."""
    row = Row(model.name, group_of(model.path))
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        inputs, package = folder / "inputs.npz", folder / "model.tar"
        specs = onnx_inputs(str(model.path), model.shapes or None, None)
        feeds: dict[str, Any] = fill_inputs(specs)
        np.savez(inputs, **feeds)
        start = time.perf_counter()
        try:
            tvm_sparse.compile(model.path, input_shapes=model.shapes or None, output=package)
        except TvmSparseError as error:
            row.notes[OURS] = f"compile: {error}"
        else:
            row.compile_seconds = time.perf_counter() - start
            row.package_bytes = package.stat().st_size
        running = start_engines(model, package, inputs, arguments, row, stack)
        take_turns(running, arguments.rounds, arguments.seconds, row)
    outputs = {process.engine: process.result.outputs for process in running}
    if outputs.get(OURS) and outputs.get(REFERENCE):
        row.error = max_relative_error(outputs[OURS], outputs[REFERENCE])
        if row.error is None:
            row.notes[OURS] = "its outputs differ from ONNX Runtime's in number or shape"
    return row


def start_engines(
    model: Model,
    package: Path,
    inputs: Path,
    arguments: argparse.Namespace,
    row: Row,
    stack: contextlib.ExitStack,
) -> list[EngineProcess]:
    """Start a process for each engine that can take part; reasons of the others go to the row's notes."""
    running = []
    for engine in arguments.engines:
        if engine in row.notes:
            continue
        path = package if engine == OURS else model.path
        python = arguments.python.get(engine, sys.executable)
        try:
            process = EngineProcess(engine, path, inputs, arguments.cores, python)
        except EngineSkipped as why:
            row.notes[engine] = str(why)
            continue
        stack.callback(process.close)
        running.append(process)
    return running


def take_turns(running: list[EngineProcess], rounds: int, seconds: float, row: Row) -> None:
    """Let the engines run in turn and keep each one's best median."""
    for turn in range(rounds + 1):
        for process in list(running):
            done = len(process.result.times)
            try:
                process.run(seconds, counted=turn > 0)
                if turn == 0:  # warm-up
                    process.fetch_outputs()
                    continue
            except EngineSkipped as why:
                row.notes[process.engine] = str(why)
                running.remove(process)
                continue
            median = float(np.median(process.result.times[done:])) * 1e3
            best = row.milliseconds.get(process.engine, median)
            row.milliseconds[process.engine] = min(best, median)
            row.peak_bytes[process.engine] = process.result.peak_bytes


def group_of(path: Path) -> str:
    """``"sparse"`` if more than a third of the values in a model's weights are zero, else ``"dense"``.

    Embeddings and depth-wise layers, which nobody prunes, count as well: hence not a half.
    """
    graph = onnx.load(path).graph
    tensors = list(graph.initializer)
    constants = [node for node in graph.node if node.op_type == "Constant"]
    tensors += [a.t for node in constants for a in node.attribute if a.HasField("t")]
    weights = [numpy_helper.to_array(tensor) for tensor in tensors if len(tensor.dims) > 1]
    total = sum(weight.size for weight in weights)
    zeros = sum(weight.size - np.count_nonzero(weight) for weight in weights)
    return "sparse" if total and zeros / total > 1 / 3 else "dense"


def describe_machine(cores: list[int]) -> dict[str, Any]:
    """CPU, cores used and versions, for the record."""
    name = platform.processor()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    versions = {"tvm_sparse": tvm_sparse.__version__, "python": platform.python_version()}
    return {"cpu": name, "arch": platform.machine(), "cores": cores, "versions": versions}


def main() -> int:
    """Entry point of ``scripts/benchmark``; 1 if one of our models failed or is wrong, else 0."""
    arguments = parse_arguments()
    machine = describe_machine(arguments.cores)
    print(f"{machine['cpu']}, cores {arguments.cores}, {arguments.rounds} rounds of {arguments.seconds} s")
    rows: list[Row] = []
    said: set[tuple[str, str]] = set()
    for name in arguments.models:
        try:
            model = provide(name, arguments.folder, arguments.zoo_python or default_zoo_python())
        except ModelUnavailable as why:
            print(f"{name:<26} not measured: {why}", flush=True)
            continue
        row = measure(model, arguments)
        rows.append(row)
        times = "  ".join(f"{engine} {ms:.2f} ms" for engine, ms in row.milliseconds.items())
        # An engine that is not installed is so for every model: say it once.
        news = [(engine, why) for engine, why in row.notes.items() if (engine, why) not in said]
        said.update(news)
        notes = "".join(f"  [{engine}: {why}]" for engine, why in news)
        error = "" if row.error is None else f"  error {row.error:.1e}"
        print(f"{model.name:<26} {times}{error}{notes}", flush=True)
    # Columns of engines that ran nothing would be empty.
    engines = [e for e in arguments.engines if e == OURS or any(e in row.milliseconds for row in rows)]
    table = to_markdown(rows, engines)
    print(f"\n{table}")
    if arguments.json:
        write_text(str(arguments.json), json.dumps(to_json(rows, engines, machine), indent=1) + "\n")
    if arguments.markdown:
        write_text(str(arguments.markdown), table + "\n")
    failed = [row for row in rows if OURS in row.notes or (row.error is not None and not row.error <= 1e-3)]
    return 1 if failed or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
