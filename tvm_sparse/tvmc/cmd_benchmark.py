"""``tvmc benchmark``."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import tvm_sparse
from tvm_sparse.errors import InputError, TvmSparseError
from tvm_sparse.runtime import Package, TensorSpec
from tvm_sparse.runtime.arrays import fill_inputs
from tvm_sparse.runtime.files import writable_target, write_text
from tvm_sparse.tvmc import texts
from tvm_sparse.tvmc.arguments import check_input_file, positive_int
from tvm_sparse.tvmc.engines import (
    ENGINE_NAMES,
    EngineProcess,
    EngineResult,
    EngineSkipped,
    max_relative_error,
    parse_engines,
)
from tvm_sparse.tvmc.onnx_inputs import onnx_inputs
from tvm_sparse.tvmc.progress import Progress
from tvm_sparse.tvmc.registry import register_parser
from tvm_sparse.tvmc.shapes import parse_shape_string
from tvm_sparse.tvmc.tables import format_arguments, format_bytes, markdown_table

HEADER = (
    "engine",
    "version",
    "median (ms)",
    "mean (ms)",
    "min (ms)",
    "items/s",
    "speed",
    "load (s)",
    "peak",
    "error",
)


@register_parser
def add_benchmark_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("benchmark", help=texts.BENCHMARK, description=texts.BENCHMARK)
    parser.set_defaults(func=benchmark_command)
    parser.add_argument("FILE", help=texts.BENCHMARK_MODEL)
    parser.add_argument("--engine", help=texts.ENGINES)
    parser.add_argument("--input-shapes", type=parse_shape_string, metavar="SHAPES", help=texts.INPUT_SHAPES)
    parser.add_argument("--batch-size", type=positive_int, metavar="N", help=texts.BATCH_SIZE)
    parser.add_argument("--time", type=float, default=5.0, metavar="SECONDS", help=texts.TIME)
    parser.add_argument("--warmup", type=float, default=1.0, metavar="SECONDS", help=texts.WARMUP)
    parser.add_argument("--rounds", type=positive_int, default=5, metavar="N", help=texts.ROUNDS)
    parser.add_argument("--num-cores", type=positive_int, metavar="N", help=texts.NUM_CORES)
    parser.add_argument(
        "--python", action="append", default=[], type=_interpreter, metavar="ENGINE=PATH", help=texts.PYTHON
    )
    parser.add_argument("-x", "--export", metavar="PATH", help=texts.EXPORT)


def benchmark_command(args: argparse.Namespace) -> int:
    """Time engines in turn on the same inputs and cores, and print a table with ratios."""
    path = check_input_file(args.FILE)
    if args.export:
        writable_target(args.export)
    if args.time <= 0 or args.warmup < 0:
        raise InputError("--time must be positive and --warmup not negative.")
    is_package = not path.lower().endswith(".onnx")
    engines = parse_engines(args.engine) if args.engine else (("tvm",) if is_package else ENGINE_NAMES)
    if is_package and engines != ("tvm",):
        raise InputError(f"'{path}' is not an ONNX model: as a package only the engine tvm can run it.")
    cores = _cores(args.num_cores)
    specs = Package.open(path).inputs if is_package else onnx_inputs(path, args.input_shapes, args.batch_size)
    shown = {
        "model": path,
        "engines": engines,
        "inputs": {spec.name: spec.shape for spec in specs},
        "cores": cores,
        "time": f"{args.time} s in {args.rounds} rounds after {args.warmup} s",
    }
    print(format_arguments("benchmark", shown), flush=True)
    with tempfile.TemporaryDirectory() as folder, Progress() as progress:
        inputs = Path(folder) / "inputs.npz"
        arrays: dict[str, Any] = fill_inputs(specs)
        np.savez(inputs, **arrays)
        packages = {"tvm": path}
        if "tvm" in engines and not is_package:
            packages["tvm"] = os.path.join(folder, "module.tar")
            progress("load the compiler")
            shapes = {spec.name: spec.shape for spec in specs}
            tvm_sparse.compile(path, input_shapes=shapes, output=packages["tvm"], progress=progress)
        results, skipped = compare(
            [
                (name, packages.get(name, path), inputs, cores, dict(args.python).get(name))
                for name in engines
            ],
            args.time,
            args.warmup,
            args.rounds,
            progress,
        )
    report = make_report(path, specs, cores, results, skipped)
    print(report_table(report))
    for name, why in skipped.items():
        print(f"skipped {name}: {why}", file=sys.stderr)
    if args.export:
        write_text(args.export, json.dumps(report, indent=1) + "\n")
    if not results:
        raise TvmSparseError("No engine could run this model.")
    return 0


def compare(
    engines: Sequence[tuple[str, str, Path, Sequence[int], str | None]],
    seconds: float,
    warmup: float,
    rounds: int,
    progress: Any,
) -> tuple[list[EngineResult], dict[str, str]]:
    """Time engines in turn.

    Parameters
    ----------
    engines : sequence of tuple
        Name, model or package, inputs, cores, interpreter (None: this one).
    seconds, warmup : float
        Time of each engine, and uncounted time before.
    rounds : int
        Turns; an engine runs `seconds / rounds` in each, so that all see the same moods of the machine.
    progress : callable
        Is told what happens.

    Returns
    -------
    results : list of EngineResult
        In the order of `engines`.
    skipped : dict of str to str
        Reason by name of engine.
    """
    skipped: dict[str, str] = {}
    running: list[EngineProcess] = []
    with contextlib.ExitStack() as stack:
        for name, model, inputs, cores, python in engines:
            progress(f"load {name}")
            try:
                process = EngineProcess(name, model, inputs, cores, python or sys.executable)
            except EngineSkipped as why:
                skipped[name] = str(why)
                continue
            stack.callback(process.close)
            running.append(process)
        for turn in range(rounds + 1):
            progress("warm up" if turn == 0 else f"round {turn} of {rounds}")
            for process in list(running):
                try:
                    if turn == 0:
                        process.run(warmup, counted=False)
                        process.fetch_outputs()
                    else:
                        process.run(seconds / rounds)
                except EngineSkipped as why:
                    skipped[process.engine] = str(why)
                    running.remove(process)
        return [process.result for process in running], skipped


def make_report(
    model: str,
    specs: Sequence[TensorSpec],
    cores: Sequence[int],
    results: Sequence[EngineResult],
    skipped: dict[str, str],
) -> dict[str, Any]:
    """Everything that was measured, as JSON values.

    Speeds and errors are relative to ONNX Runtime, or to the first engine where it is missing.
    """
    batch = specs[0].shape[0] if specs and specs[0].shape else 1
    reference = next((r for r in results if r.engine == "onnxruntime"), results[0] if results else None)
    entries = []
    for result in results:
        assert reference is not None
        median = float(np.median(result.times))
        entries.append(
            {
                "engine": result.engine,
                "version": result.version,
                "median_ms": median * 1e3,
                "mean_ms": float(np.mean(result.times)) * 1e3,
                "min_ms": min(result.times) * 1e3,
                "runs": len(result.times),
                "items_per_second": batch / median,
                "speed": float(np.median(reference.times)) / median,
                "load_seconds": result.load_seconds,
                "peak_bytes": result.peak_bytes,
                "max_relative_error": max_relative_error(result.outputs, reference.outputs),
            }
        )
    return {
        "model": os.path.basename(model),
        "inputs": {spec.name: list(spec.shape) for spec in specs},
        "cores": list(cores),
        "machine": platform.machine(),
        "reference": reference.engine if reference else None,
        "results": entries,
        "skipped": skipped,
    }


def report_table(report: dict[str, Any]) -> str:
    """The report as a Markdown table."""
    rows = []
    for entry in report["results"]:
        error = entry["max_relative_error"]
        rows.append(
            (
                entry["engine"],
                entry["version"],
                f"{entry['median_ms']:.3f}",
                f"{entry['mean_ms']:.3f}",
                f"{entry['min_ms']:.3f}",
                f"{entry['items_per_second']:.1f}",
                f"{entry['speed']:.2f}x",
                f"{entry['load_seconds']:.2f}",
                format_bytes(entry["peak_bytes"]),
                "other outputs" if error is None else f"{error:.1e}",
            )
        )
    return markdown_table(HEADER, rows, right=range(2, len(HEADER)))


def _cores(count: int | None) -> list[int]:
    allowed = sorted(os.sched_getaffinity(0))
    if count is not None and count > len(allowed):
        raise InputError(f"--num-cores {count}: this process may use {len(allowed)} cores.")
    # The last ones: interrupts and other programs mostly keep to the first.
    return allowed[-count:] if count else allowed


def _interpreter(text: str) -> tuple[str, str]:
    engine, separator, path = text.partition("=")
    if not separator or engine not in ENGINE_NAMES or not path:
        known = ", ".join(ENGINE_NAMES)
        raise argparse.ArgumentTypeError(
            f"must be of the form ENGINE=PATH with an engine of {known}, not '{text}'"
        )
    return engine, path
