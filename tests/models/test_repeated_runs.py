"""The same results, to the bit, from run to run and on any number of threads; no memory that grows."""

from __future__ import annotations

import gc
import os
import threading

import numpy as np
import psutil
import pytest

import tvm_sparse
from tests.models.networks import make
from tests.models.test_small_networks import feeds_of

# Convolutions and pooling, depth-wise ones, linear layers, attention, resizing, averages and concatenation.
NAMES = (
    "residual_33x47",
    "mobile_relu6",
    "perceptron_silu_batch64",
    "encoder_batch2",
    "upsampling_decoder",
    "inception_concat",
)


def as_bytes(outputs: dict[str, np.ndarray]) -> dict[str, bytes]:
    """The outputs, to be compared to the bit."""
    return {name: array.tobytes() for name, array in outputs.items()}


@pytest.mark.parametrize("name", NAMES)
def test_results_do_not_depend_on_threads(name, monkeypatch):
    model = make(name, 0.9)
    feeds, package = feeds_of(model), tvm_sparse.compile(model)
    results: list[tuple[int, dict[str, bytes]]] = []

    def run() -> None:
        # The largest number first: a pool of workers cannot grow.
        for count in (4, 1, 2, 3):
            monkeypatch.setenv("TVM_NUM_THREADS", str(count))
            module = package.load()
            assert module.num_threads == count
            results.extend((count, as_bytes(module.run(feeds))) for _ in range(3))

    # A new Python thread has a pool of its own.
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert len(results) == 12
    different = sorted({count for count, result in results if result != results[0][1]})
    assert not different, f"other results on {different} threads"


@pytest.mark.parametrize("name", ["residual_33x47", "encoder_batch2"])
def test_memory_does_not_grow(name):
    model = make(name, 0.9)
    feeds, module = feeds_of(model), tvm_sparse.compile(model).load(num_threads=1)

    def resident(runs: int) -> int:
        for _ in range(runs):
            module.run(feeds)
        gc.collect()
        return psutil.Process(os.getpid()).memory_info().rss

    sizes = [resident(100), *(resident(1000) for _ in range(3))]
    # The smallest tensor that a run could leave behind counts 64 bytes; pages are 4096. What leaks does so in every
    # thousand runs; once, the system may turn small pages into a large one.
    assert min(np.diff(sizes)) < 1000 * 64, sizes
