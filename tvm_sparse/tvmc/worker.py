"""Times one engine in a process of its own; `tvmc benchmark` starts it and tells it when to run.

This file uses nothing of this project but, for the engine ``tvm``, its runtime: it also runs with the
interpreter (3.9 or later) of another environment. It reads one JSON request a line from stdin and answers
with one JSON line on stdout.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

# Started as a script, its folder would be searched for imports first.
if __name__ == "__main__":
    sys.path.pop(0)
    os.environ.update(NM_DISABLE_ANALYTICS="1", NM_DISABLE_USAGE_LOGGING="1")

import numpy as np  # noqa: E402

Run = Callable[[], dict[str, np.ndarray]]
Inputs = dict[str, np.ndarray]


def open_tvm(model: str, inputs: Inputs, threads: int) -> tuple[Run, str]:
    """A package of this project."""
    import tvm_sparse
    from tvm_sparse.runtime import load

    module = load(model, num_threads=threads)
    return (lambda: module.run(inputs)), tvm_sparse.__version__


def open_onnxruntime(model: str, inputs: Inputs, threads: int) -> tuple[Run, str]:
    """ONNX Runtime on the CPU with its defaults."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return (lambda: dict(zip(names, session.run(None, inputs)))), onnxruntime.__version__  # noqa: B905


def open_openvino(model: str, inputs: Inputs, threads: int) -> tuple[Run, str]:
    """OpenVINO tuned for latency, in float32."""
    import openvino

    core = openvino.Core()
    network = core.read_model(model)
    network.reshape({name: list(array.shape) for name, array in inputs.items()})
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    compiled = core.compile_model(network, "CPU", settings)
    request = compiled.create_infer_request()

    def run() -> dict[str, np.ndarray]:
        results = request.infer(inputs)
        return {port.get_any_name(): results[port] for port in compiled.outputs}

    return run, openvino.__version__.split("-")[0]


def open_deepsparse(model: str, inputs: Inputs, threads: int) -> tuple[Run, str]:
    """DeepSparse's own engine."""
    import deepsparse

    arrays = list(inputs.values())
    batch = arrays[0].shape[0] if arrays and arrays[0].ndim else 1
    shapes = [list(array.shape) for array in arrays]
    engine = deepsparse.Engine(model, batch_size=batch, num_cores=threads, input_shapes=shapes)
    names = list(engine.output_names)
    return (lambda: dict(zip(names, engine.run(arrays)))), deepsparse.__version__  # noqa: B905


ENGINES = {
    "tvm": (open_tvm, "tvm_sparse"),
    "onnxruntime": (open_onnxruntime, "onnxruntime"),
    "openvino": (open_openvino, "openvino"),
    "deepsparse": (open_deepsparse, "deepsparse"),
}


def peak_bytes() -> int:
    """Most memory that this process has held so far; 0 where the system doesn't tell.

    Not `getrusage`: its maximum includes the process that started this one.
    """
    try:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return 0


def time_for(run: Run, seconds: float) -> list[float]:
    """Run for some time, at least once; seconds of each run."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return times


def main() -> None:
    """Open the engine that argv describes, then serve requests until stdin closes."""
    # Engines print to stdout; answers go to a copy of it, and the engines' words to stderr.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**values: Any) -> None:
        print(json.dumps(values), file=answers, flush=True)

    engine, model, inputs_path = sys.argv[1:4]
    cores = [int(core) for core in sys.argv[4].split(",")]
    os.sched_setaffinity(0, cores)
    opener, package = ENGINES[engine]
    with np.load(inputs_path) as file:
        inputs = {name: file[name] for name in file.files}
    start = time.perf_counter()
    try:
        run, version = opener(model, inputs, len(cores))
        outputs = run()
    except ImportError as error:
        answer(missing=package, why=str(error))
        return
    except Exception as error:
        answer(error=f"{type(error).__name__}: {error}")
        return
    answer(version=version, load_seconds=time.perf_counter() - start)
    for line in sys.stdin:
        request = json.loads(line)
        if "seconds" in request:
            answer(times=time_for(run, request["seconds"]), peak_bytes=peak_bytes())
        else:
            arrays: dict[str, Any] = {str(i): array for i, array in enumerate(outputs.values())}
            np.savez(request["outputs"], **arrays)
            answer(names=list(outputs))


if __name__ == "__main__":
    main()
