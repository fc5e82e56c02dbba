"""Kernels compiled for several instruction sets and called with arrays.

Each kernel is generic: it is compiled once (the object is kept in the kernel cache on disk) and serves all cases.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tvm

from tvm_sparse.build.kernel_cache import kernel_objects
from tvm_sparse.build.link import link_objects
from tvm_sparse.build.target import make_target
from tvm_sparse.plan.layer import PackedLayer
from tvm_sparse.runtime.host import cpu_features, machine
from tvm_sparse.schedules.cpu.isa import Isa
from tvm_sparse.schedules.cpu.lanes import can_merge

# One target per instruction set that kernels know.
TARGETS = {
    "avx512": "llvm -mcpu=skylake-avx512",
    "avx2": "llvm -mcpu=haswell",
    "generic": "llvm -mcpu=x86-64",
    "neon": "llvm -mtriple=aarch64-linux-gnu -mattr=+neon",
}


@functools.cache
def target_of(name: str) -> tvm.target.Target:
    """Target of an instruction set."""
    return make_target(TARGETS[name])


@functools.cache
def isa_of(name: str) -> Isa:
    """The instruction set itself."""
    return Isa.from_target(target_of(name))


def runs(name: str) -> bool:
    """Whether this machine runs an instruction set."""
    isa = isa_of(name)
    return isa.arch == machine() and set(isa.features) <= (cpu_features() or set())


RUNNABLE = [name for name in TARGETS if runs(name)]
# The widest one, for what does not depend on the width.
WIDEST = RUNNABLE[0]

# Those that have register tiles over windows, whose lanes move between vectors.
TILED = [name for name in RUNNABLE if can_merge(isa_of(name))]

every_isa = pytest.mark.parametrize("isa_name", RUNNABLE)
every_tiled_isa = pytest.mark.parametrize("isa_name", TILED)


@functools.cache
def _folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="tvm-sparse-tests-")


@functools.cache
def function(kernel: object, isa_name: str):
    """A kernel as a function of tensors."""
    (built,) = kernel_objects([kernel], isa_of(isa_name), target_of(isa_name))
    symbol = kernel.symbol(isa_of(isa_name))
    library = link_objects([built], Path(_folder().name) / f"{symbol}.so")
    return tvm.runtime.load_module(str(library))[symbol]


def call(kernel: object, isa_name: str, arguments: Sequence[np.ndarray], shape: Sequence[int]) -> np.ndarray:
    """Run a kernel that writes one tensor; NaN where it writes nothing."""
    tensors = [tvm.runtime.tensor(np.ascontiguousarray(a)) for a in arguments]
    out = tvm.runtime.tensor(np.full(shape, np.nan, "float32"))
    function(kernel, isa_name)(*tensors, out)
    return out.numpy()


def call_layer(
    packed: PackedLayer, isa_name: str, inputs: Sequence[np.ndarray], shape: Sequence[int]
) -> np.ndarray:
    """Run a packed layer on its activations."""
    return call(packed.kernel, isa_name, [*inputs, *packed.arrays], shape)
