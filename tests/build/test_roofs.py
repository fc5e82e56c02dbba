"""The loops that measure the roofs: compiled once for each target, and what they compute and measure."""

from __future__ import annotations

import numpy as np

from tests.schedules.cpu.compiled import WIDEST, every_isa, function, isa_of, target_of
from tvm_sparse.build.roofs import provide_roofs_library
from tvm_sparse.runtime import roofs
from tvm_sparse.runtime.arrays import aligned_empty, as_tensor
from tvm_sparse.schedules.cpu.roofs import ACCUMULATORS, Roof


def run(kind, isa_name, tasks, size, steps):
    """Buffer and sums after some steps, from a buffer of ones and sums of two."""
    width = ACCUMULATORS * isa_of(isa_name).lanes
    arrays = []
    for count, value in ((width // ACCUMULATORS * 2, 0.5), (3, 0), (tasks * size * width, 1), (tasks * width, 2)):
        array = aligned_empty((count,), "int32" if count == 3 else "float32")
        array[...] = value
        arrays.append(array)
    arrays[1][:] = tasks, size, steps
    function(Roof(kind), isa_name)(*(as_tensor(array) for array in arrays))
    return arrays[2].reshape(tasks, size, width), arrays[3]


@every_isa
def test_what_the_loops_compute(isa_name):
    _, sums = run("multiply", isa_name, 2, 4, 3)
    assert (sums == ((2 * 0.5 + 0.5) * 0.5 + 0.5) * 0.5 + 0.5).all()
    # Each step reads ones and multiplies them with the factor.
    _, sums = run("read", isa_name, 2, 4, 10)
    assert (sums == 2 + 10 * 0.5).all()
    buffer, _ = run("write", isa_name, 2, 4, 3)
    assert (buffer[:, :3] == 2).all() and (buffer[:, 3] == 1).all()


def test_measuring(monkeypatch):
    assert roofs._ACCUMULATORS == ACCUMULATORS
    monkeypatch.setattr(roofs, "_DRAM_BYTES", (1 << 20, 1 << 20))
    monkeypatch.setattr(roofs, "_L3_BYTES", 1 << 20)
    library = provide_roofs_library(target_of(WIDEST))
    written = library.stat().st_mtime_ns
    meter = roofs.RoofMeter(library, WIDEST, isa_of(WIDEST).lanes, 1)
    meter.run(0.02)
    measured = meter.roofs()
    # Slow where other programs take the core: no rate is expected.
    assert measured.flops > 0
    for rates in (measured.read, measured.write):
        assert list(rates) == ["L1", "L2", "L3", "DRAM"] and min(rates.values()) > 0
    # From the cache.
    assert provide_roofs_library(target_of(WIDEST)) == library and library.stat().st_mtime_ns == written


def test_buffers_lie_in_their_caches():
    sizes = roofs.buffer_bytes({"L1": 32 << 10, "L2": 1 << 20, "L3": 64 << 20}, 2)
    assert sizes == {"L1": 16 << 10, "L2": 512 << 10, "L3": 8 << 20, "DRAM": 64 << 20}
    assert np.all(np.diff(list(sizes.values())) > 0)
