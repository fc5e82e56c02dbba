"""Times every format that each layer can have, and compares the fastest with the one that the plan chooses.

Each layer's kernels run alone, in turn, on random activations; the fastest of many runs counts, since what disturbs a
shared machine only ever adds time. Weights of a small layer are then in the caches, where a whole model would read
them from further away. Layers whose format nobody chooses (depth-wise ones) are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tvm

from scripts.benchmark import choose_cores, describe_machine
from scripts.benchmark_models import REPOSITORY, Model, ModelUnavailable, default_zoo_python, expand, provide
from tvm_sparse.build.kernel_cache import kernel_objects
from tvm_sparse.build.link import link_objects
from tvm_sparse.build.target import make_target
from tvm_sparse.errors import TvmSparseError
from tvm_sparse.frontend import import_model
from tvm_sparse.layout.geometry import Geometry
from tvm_sparse.plan.choose import estimate_formats
from tvm_sparse.plan.layer import Convolution, PackedLayer
from tvm_sparse.plan.pack import pack_layer
from tvm_sparse.plan.pack_rows import pack_rows
from tvm_sparse.plan.plan import DEPTHWISE, Plan
from tvm_sparse.runtime.files import writable_target, write_text
from tvm_sparse.runtime.shared_library import threads_setter
from tvm_sparse.schedules.cpu.isa import Isa
from tvm_sparse.transform.columns import layers as lowering
from tvm_sparse.transform.context import CompileContext
from tvm_sparse.transform.pipeline import run_phases
from tvm_sparse.tvmc.tables import markdown_table

# A choice is good if its layer takes at most so much more than in the fastest format.
GOOD = 1.1
# Seconds that a sample takes at least.
_SAMPLE = 2e-4


@dataclass(frozen=True)
class Task:
    """A layer to time.

    Parameters
    ----------
    name : str
        Name of the layer.
    layer : Convolution
        The layer.
    source, target : Geometry or None
        Geometry of input and output; None for a plain row.
    chosen : str
        Format of the plan.
    """

    name: str
    layer: Convolution
    source: Geometry | None
    target: Geometry | None
    chosen: str


@dataclass(frozen=True)
class Comparison:
    """Times of a layer.

    Parameters
    ----------
    name, shape : str
        The layer.
    zeros : float
        Share of its weights that are zero.
    chosen : str
        Format of the plan.
    us : mapping of str to float
        Microseconds in each format.
    """

    name: str
    shape: str
    zeros: float
    chosen: str
    us: Mapping[str, float]

    @property
    def best(self) -> str:
        """The fastest format."""
        return min(self.us, key=self.us.__getitem__)

    @property
    def loss(self) -> float:
        """Time in the chosen format over that in the fastest."""
        return self.us[self.chosen] / self.us[self.best]


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read and check the command line."""
    parser = argparse.ArgumentParser(prog="scripts/compare_formats", description=__doc__)
    add = parser.add_argument
    add("models", nargs="*", default=["resnet50_s90"], metavar="MODEL", help="as for scripts/benchmark (resnet50_s90)")
    add("--seconds", type=float, default=0.1, help="time for each format of each layer (0.1)")
    add("--target", default=None, help="target to compile for, which must run here (this machine's CPU)")
    add("--zoo-python", metavar="PATH", help="interpreter with torch, for zoo models")
    add("--folder", type=Path, default=REPOSITORY / ".peers" / "models", help="where made models are kept")
    add("--json", type=Path, metavar="PATH", help="write everything measured here")
    add("--markdown", type=Path, metavar="PATH", help="write the tables here too")
    arguments = parser.parse_args(argv)
    try:
        arguments.models = expand(",".join(arguments.models))
        for path in filter(None, (arguments.json, arguments.markdown)):
            writable_target(path)
    except (ValueError, TvmSparseError) as error:
        parser.error(str(error))
    if not arguments.seconds > 0:
        parser.error("--seconds must be positive")
    return arguments


@contextmanager
def _recorded(tasks: dict[str, Task]) -> Iterator[None]:
    """Note every layer that is lowered, with what the plan chooses for it."""
    choose = lowering.choose_format

    def note(plan, name, layer, source, target, isa):
        choice = choose(plan, name, layer, source, target, isa)
        if choice.format != DEPTHWISE:
            tasks[name] = Task(name, layer, source, target, choice.format)
        return choice

    lowering.choose_format = note
    try:
        yield
    finally:
        lowering.choose_format = choose


def tasks_of(model: Model, target: tvm.target.Target) -> list[Task]:
    """The layers of a model, as a compilation finds them."""
    imported = import_model(str(model.path), input_shapes=model.shapes or None)
    tasks: dict[str, Task] = {}
    with _recorded(tasks):
        run_phases(imported.module, CompileContext(target, Isa.from_target(target), Plan(), weights=[]))
    return list(tasks.values())


def pack_all(task: Task, isa: Isa) -> dict[str, PackedLayer]:
    """A layer in every format that it can have."""
    names = estimate_formats(task.layer, task.source, task.target, isa)
    if task.source is None or task.target is None:
        return {name: pack_rows(task.layer, 1, 2, name == "unstructured", isa) for name in names}
    return {name: pack_layer(name, task.layer, task.source, task.target, isa) for name in names}


def compare(task: Task, target: tvm.target.Target, folder: Path, seconds: float) -> Comparison:
    """Time a layer in every format.

    Parameters
    ----------
    task : Task
        The layer.
    target : tvm.target.Target
        Target, which runs here.
    folder : Path
        Where libraries of kernels are kept while the script runs.
    seconds : float
        Time for each format.
    """
    isa = Isa.from_target(target)
    packed = pack_all(task, isa)
    rows, channels = task.layer.weight.shape[0], task.layer.weight.shape[1] * task.layer.groups
    shape_in = task.source.shape(channels) if task.source else (1, channels)
    shape_out = task.target.shape(rows) if task.target else (1, rows)
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(shape_in).astype("float32")]
    if task.layer.residual:
        inputs.append(rng.standard_normal(shape_out).astype("float32"))
    calls = {name: _call(each, inputs, shape_out, isa, target, folder) for name, each in packed.items()}
    us = {name: round(value * 1e6, 3) for name, value in take_turns(calls, seconds).items()}
    image = f" @{task.target.height}x{task.target.width}" if task.target else ""
    kernel = "x".join(map(str, task.layer.weight.shape[2:]))
    shape = f"{rows}x{task.layer.weight.shape[1]} {kernel}{image}"
    zeros = 1 - np.count_nonzero(task.layer.weight) / max(1, task.layer.weight.size)
    return Comparison(task.name, shape, round(zeros, 4), task.chosen, us)


def _call(
    packed: PackedLayer, inputs: list[np.ndarray], shape: tuple[int, ...], isa: Isa, target: tvm.target.Target,
    folder: Path,
) -> Callable[[], None]:  # fmt: skip
    symbol = packed.kernel.symbol(isa)
    library = folder / f"{symbol}.so"
    if not library.exists():
        link_objects(kernel_objects([packed.kernel], isa, target), library)
    module = tvm.runtime.load_module(str(library))
    threads_setter(module)(1)
    function = module[symbol]
    tensors = [tvm.runtime.tensor(np.ascontiguousarray(array)) for array in (*inputs, *packed.arrays)]
    out = tvm.runtime.tensor(np.zeros(shape, "float32"))
    return lambda: function(*tensors, out)


def take_turns(calls: Mapping[str, Callable[[], None]], seconds: float) -> dict[str, float]:
    """Least seconds of a call of each function; samples of all are taken in turn."""
    numbers, best = {}, dict.fromkeys(calls, float("inf"))
    for name, call in calls.items():
        call()
        start = time.perf_counter()
        call()
        numbers[name] = max(1, int(_SAMPLE / (time.perf_counter() - start)))
    end = time.perf_counter() + seconds * len(calls)
    rounds = 0
    while rounds < 3 or time.perf_counter() < end:
        rounds += 1
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(numbers[name]):
                call()
            best[name] = min(best[name], (time.perf_counter() - start) / numbers[name])
    return best


def report(name: str, layers: list[Comparison]) -> str:
    """A table of the layers in Markdown, and how often the choice was good."""
    formats = list(dict.fromkeys(each for layer in layers for each in layer.us))
    header = ("layer", "shape", "zeros", "chosen", "best", "loss", *(f"{each} (us)" for each in formats))
    rows = []
    for layer in layers:
        times = [f"{layer.us[each]:.1f}" if each in layer.us else "-" for each in formats]
        row = (layer.name, layer.shape, f"{layer.zeros:.1%}", layer.chosen, layer.best, f"{layer.loss - 1:.1%}")
        rows.append((*row, *times))
    table = markdown_table(header, rows, (2, *range(5, len(header))))
    return f"## {name}\n\n{table}\n\n{summary(layers)}"


def summary(layers: list[Comparison]) -> str:
    """How often the choice was within a tenth of the fastest format, and what the choices cost together."""
    good = sum(layer.loss <= GOOD for layer in layers)
    chosen, best = (sum(layer.us[getattr(layer, which)] for layer in layers) for which in ("chosen", "best"))
    share = f"{good} of {len(layers)} ({good / max(1, len(layers)):.0%})"
    return (
        f"chosen within {GOOD - 1:.0%} of the fastest: {share}; "
        f"{chosen / 1000:.3f} ms as chosen, {best / 1000:.3f} ms in the fastest formats"
    )


def main(argv: list[str] | None = None) -> int:
    """Entry point of ``scripts/compare_formats``; 1 if a model could not be measured, else 0."""
    arguments = parse_arguments(argv)
    os.sched_setaffinity(0, choose_cores(1))
    target = make_target(arguments.target)
    texts: list[str] = []
    measured: dict[str, list[Comparison]] = {}
    with tempfile.TemporaryDirectory(prefix="tvm-sparse-formats-") as folder:
        for name in arguments.models:
            try:
                model = provide(name, arguments.folder, arguments.zoo_python or default_zoo_python())
                tasks = tasks_of(model, target)
            except (ModelUnavailable, TvmSparseError) as why:
                print(f"{name}: not measured: {why}", file=sys.stderr)
                continue
            layers = [compare(task, target, Path(folder), arguments.seconds) for task in tasks]
            measured[model.name] = layers
            texts.append(report(model.name, layers))
            print(f"{texts[-1]}\n", flush=True)
    every = [layer for layers in measured.values() for layer in layers]
    if len(measured) > 1:
        texts.append(f"All models: {summary(every)}")
        print(texts[-1])
    if arguments.json:
        models = {name: [asdict(layer) for layer in layers] for name, layers in measured.items()}
        machine = describe_machine(choose_cores(1))
        write_text(arguments.json, json.dumps({"machine": machine, "models": models}, indent=1) + "\n")
    if arguments.markdown:
        write_text(arguments.markdown, "\n\n".join(texts) + "\n")
    return int(len(measured) < len(arguments.models))


if __name__ == "__main__":
    sys.exit(main())
