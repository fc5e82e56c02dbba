"""Small modules through the whole pipeline, for any instruction set that this machine runs."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tvm
from tvm import relax

from tvm_sparse.build.link import build_library
from tvm_sparse.plan.plan import Plan
from tvm_sparse.transform.context import CompileContext
from tvm_sparse.transform.pipeline import run_phases

from .compiled import isa_of, target_of


def context_for(isa_name: str, plan: Plan | None = None) -> CompileContext:
    """A compilation for an instruction set."""
    return CompileContext(target_of(isa_name), isa_of(isa_name), plan or Plan())


def run_module(module: tvm.IRModule, context: CompileContext, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Compile a module with all phases, run "main" and return its outputs."""
    lowered = run_phases(module, context)
    with tempfile.TemporaryDirectory(prefix="tvm-sparse-tests-") as folder:
        path = Path(folder) / "mod.so"
        build_library(lowered, context, path)
        machine = relax.VirtualMachine(tvm.runtime.load_module(str(path)), tvm.cpu())
        result = machine["main"](*[tvm.runtime.tensor(a) for a in arrays])
        return [result.numpy()] if hasattr(result, "numpy") else [each.numpy() for each in result]


def kernel_kinds(context: CompileContext) -> set[str]:
    """Class names of the kernels that a compilation used."""
    return {type(kernel).__name__ for kernel in context.kernels.values()}
