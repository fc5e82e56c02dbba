"""Compile a really pruned detector, run it on a photo, and compare its time with ONNX Runtime's.

Prints the table of layers, what was found, and the times of both engines, measured in turn on one core;
writes the photo with the detections drawn on it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from scripts.detection import DATA, DETECTORS, decode, draw, prepare, to_picture


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="scripts/quickstart", description=__doc__)
    parser.add_argument("--model", choices=sorted(DETECTORS), default="face", help="which detector (face)")
    parser.add_argument("--photo", type=Path, default=DATA / "astronaut.jpg", help="picture to search")
    parser.add_argument("--output", type=Path, default=Path("detection.png"), help="picture to write")
    parser.add_argument("--seconds", type=float, default=4.0, help="time to measure, both engines (4)")
    return parser.parse_args()


def pin() -> int | None:
    """Keep this process on one core, as the comparison needs; returns it, or None where impossible."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return core


def time_in_turn(
    engines: dict[str, Callable[[], object]], seconds: float, rounds: int = 8
) -> dict[str, float]:
    """Median milliseconds of each engine; they take turns, so that all meet the same machine.

    The best round of each counts: what disturbs a shared machine only ever adds time.
    """
    for run in engines.values():
        for _ in range(3):
            run()
    medians: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(rounds):
        for name, run in engines.items():
            times: list[float] = []
            end = time.perf_counter() + seconds / rounds / len(engines)
            while len(times) < 3 or time.perf_counter() < end:
                start = time.perf_counter()
                run()
                times.append(time.perf_counter() - start)
            medians[name].append(float(np.median(times)) * 1e3)
    return {name: min(values) for name, values in medians.items()}


def main() -> None:
    """Entry point of ``scripts/quickstart``."""
    arguments = parse_arguments()
    import onnxruntime
    from PIL import Image

    import tvm_sparse
    from tvm_sparse.tvmc.tables import layer_table

    detector = DETECTORS[arguments.model]
    photo = Image.open(arguments.photo).convert("RGB")
    pixels, scale, offset = prepare(photo, detector.size)
    with tempfile.TemporaryDirectory() as folder:
        model = detector.write(Path(folder))
        print(f"compiling {model.name} ({model.stat().st_size / 1e6:.1f} MB)", flush=True)
        start = time.perf_counter()
        package = tvm_sparse.compile(model, output=Path(folder) / "detector.tar", num_threads=1)
        seconds = time.perf_counter() - start
        print(layer_table(package.metadata["plan"]["layers"]))
        print(f"compiled in {seconds:.1f} s; the package has {package.path.stat().st_size / 1e6:.1f} MB\n")

        core = pin()
        module = package.load()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        feeds = {"input_1": pixels}
        outputs = module.run(feeds)
        names = list(outputs)
        reference = dict(zip(names, session.run(names, feeds), strict=True))
        times = time_in_turn(
            {"tvm-sparse": lambda: module.run(feeds), "onnxruntime": lambda: session.run(names, feeds)},
            arguments.seconds,
        )

    found = decode(detector, outputs["Identity"], outputs["Identity_1"])
    found = [to_picture(detection, scale, offset) for detection in found]
    for detection in found:
        left, top, right, bottom = detection.box
        place = f"x {left:.0f} to {right:.0f}, y {top:.0f} to {bottom:.0f}"
        print(f"{arguments.model} {detection.score:.1%} at {place}")
    if not found:
        print(f"no {arguments.model} found in {arguments.photo}")
    draw(photo, found).save(arguments.output)
    print(f"wrote {arguments.output}\n")

    error = max(float(np.abs(outputs[n] - reference[n]).max() / np.abs(reference[n]).max()) for n in names)
    where = "one core" if core is None else f"core {core}"
    print(f"median of a run on {where}, in turn:")
    for name, milliseconds in times.items():
        print(f"  {name:<12} {milliseconds:8.2f} ms")
    ratio = times["onnxruntime"] / times["tvm-sparse"]
    print(f"  {ratio:.2f} times ONNX Runtime's speed; largest relative difference {error:.1e}")


if __name__ == "__main__":
    main()
