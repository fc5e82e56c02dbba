"""Measures what this machine reaches at best (multiply-adds, each level of memory) and every layer of compiled models.

Roofs and layers are measured in turn, in one process on the same cores; the fastest of many counts, since what disturbs
a shared machine only ever adds time. A layer's share of its roof is the least time that its work takes by the roof
that binds it, over the time that it took. Prints a table for each model, and the layers that stay under a share.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import tvm_sparse
from scripts.benchmark import choose_cores, describe_machine
from scripts.benchmark_models import REPOSITORY, Model, ModelUnavailable, default_zoo_python, expand, provide
from tvm_sparse.errors import TvmSparseError
from tvm_sparse.runtime import LayerProfile, layer_profile
from tvm_sparse.runtime.files import writable_target, write_text
from tvm_sparse.runtime.profile import merge_profiles
from tvm_sparse.tvmc.profile_tables import below_roof, profile_tables
from tvm_sparse.tvmc.roofs import roof_meter
from tvm_sparse.tvmc.tables import markdown_table


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read and check the command line."""
    parser = argparse.ArgumentParser(prog="scripts/roofline", description=__doc__)
    add = parser.add_argument
    add("models", nargs="*", default=["resnet50_s90"], metavar="MODEL", help="as for scripts/benchmark (resnet50_s90)")
    add("--cores", type=int, default=1, help="cores that models and roofs are measured on (1)")
    add("--rounds", type=int, default=10, help="turns of roofs and layers (10)")
    add("--repeat", type=int, default=20, help="runs of the model in a turn (20)")
    add("--below", type=float, default=0.6, metavar="SHARE", help="list layers under this share of their roof (0.6)")
    add("--zoo-python", metavar="PATH", help="interpreter with torch, for zoo models")
    add("--folder", type=Path, default=REPOSITORY / ".peers" / "models", help="where made models are kept")
    add("--json", type=Path, metavar="PATH", help="write everything measured here")
    add("--markdown", type=Path, metavar="PATH", help="write the tables here too")
    add("--plot", type=Path, metavar="PATH", help="draw a plot (.svg, .png, .pdf); each model's name is put into PATH "
        "where there are several")  # fmt: skip
    arguments = parser.parse_args(argv)
    try:
        arguments.models = expand(",".join(arguments.models))
        arguments.cores = choose_cores(arguments.cores)
        for path in filter(None, (arguments.json, arguments.markdown, arguments.plot)):
            writable_target(path)
    except (ValueError, TvmSparseError) as error:
        parser.error(str(error))
    if arguments.rounds < 1 or arguments.repeat < 1 or not 0 <= arguments.below:
        parser.error("--rounds and --repeat must be at least 1, --below not negative")
    if arguments.plot and importlib.util.find_spec("matplotlib") is None:
        parser.error("--plot needs matplotlib: pip install matplotlib")
    if arguments.plot and arguments.plot.suffix not in (".svg", ".png", ".pdf"):
        parser.error(f"--plot {arguments.plot}: a name that ends with .svg, .png or .pdf is expected")
    return arguments


def measure(model: Model, threads: int, rounds: int, repeat: int) -> LayerProfile:
    """Compile a model, and measure its layers and the roofs in turn.

    Raises
    ------
    TvmSparseError
        If the model cannot be compiled.
    """
    with tempfile.TemporaryDirectory() as folder:
        package = tvm_sparse.compile(
            model.path, input_shapes=model.shapes or None, output=Path(folder) / "model.tar", num_threads=threads
        )
        module = package.load(threads)
        meter = roof_meter(package.metadata, threads)
        profiles = []
        for _ in range(rounds):
            meter.run(0.1)
            profiles.append(module.profile(repeat=repeat))
    return layer_profile(merge_profiles(profiles), package.metadata["plan"]["layers"], meter.roofs())


def report(name: str, profile: LayerProfile, below: float) -> str:
    """The tables of a model in Markdown, and the layers under a share of their roof, the costliest first."""
    parts = [f"## {name}", profile_tables(profile, markdown_table)]
    slow = below_roof(profile, below)
    rows = []
    for layer in slow:
        least = max(layer.limits.values())
        limits = ", ".join(f"{roof} {ms / layer.best_ms:.0%}" for roof, ms in layer.limits.items())
        rows.append((layer.name, layer.kind, layer.shape, f"{layer.best_ms - least:.4f}", limits))
    if rows:
        header = ("layer", "kind", "shape", "above its roof (ms)", "share of its time that each roof needs")
        lost = sum(layer.best_ms - max(layer.limits.values()) for layer in slow)
        parts.append(f"{len(rows)} of {len(profile.layers)} layers are under {below:.0%} of their roof, {lost:.3f} ms:")
        parts.append(markdown_table(header, rows, (3,)))
    else:
        parts.append(f"no layer is under {below:.0%} of its roof")
    return "\n\n".join(parts)


def main(argv: list[str] | None = None) -> int:
    """Entry point of ``scripts/roofline``; 1 if a model could not be measured, else 0."""
    arguments = parse_arguments(argv)
    os.sched_setaffinity(0, arguments.cores)
    machine = describe_machine(arguments.cores)
    turns = f"{arguments.rounds} rounds of {arguments.repeat} runs"
    print(f"{machine['cpu']}, cores {arguments.cores}, {turns}", flush=True)
    texts: list[str] = []
    measured: dict[str, Any] = {}
    failed = False
    for name in arguments.models:
        try:
            model = provide(name, arguments.folder, arguments.zoo_python or default_zoo_python())
            profile = measure(model, len(arguments.cores), arguments.rounds, arguments.repeat)
        except (ModelUnavailable, TvmSparseError) as why:
            print(f"{name}: not measured: {why}", file=sys.stderr)
            failed = True
            continue
        texts.append(report(model.name, profile, arguments.below))
        print(f"\n{texts[-1]}", flush=True)
        measured[model.name] = profile.to_json()
        if arguments.plot:
            from scripts.roofline_plot import draw

            path = arguments.plot
            if len(arguments.models) > 1:
                path = path.with_stem(f"{path.stem}-{model.name}")
            draw(profile, model.name, path)
    if arguments.json:
        write_text(arguments.json, json.dumps({"machine": machine, "models": measured}, indent=1) + "\n")
    if arguments.markdown:
        write_text(arguments.markdown, "\n\n".join(texts) + "\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
