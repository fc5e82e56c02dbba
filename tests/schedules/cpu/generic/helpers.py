"""Functions as fusion leaves them, their schedules, and running both."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tvm
import tvm_ffi
from tvm import relax, tirx
from tvm.ir import Call

from tests.transform.canonicalize.helpers import Spec, module
from tvm_sparse.schedules.cpu.generic.nest import Program, parse
from tvm_sparse.transform.fast_math import FastMath
from tvm_sparse.transform.schedule_cpu import schedule

from ..compiled import WIDEST, isa_of, target_of

_TO_LOOPS = [
    relax.transform.LegalizeOps,
    relax.transform.AnnotateTIROpPattern,
    relax.transform.FoldConstant,
    relax.transform.FuseOps,
    relax.transform.FuseTIR,
    relax.transform.DeadCodeElimination,
]


def fused(specs: Sequence[Spec], body: Callable[..., relax.Expr]) -> tirx.PrimFunc:
    """The one function that an expression becomes after legalisation and fusion."""
    with target_of(WIDEST):
        mod = tvm.transform.Sequential([make() for make in _TO_LOOPS])(module(specs, body))
    (func,) = [f for _, f in mod.functions_items() if isinstance(f, tirx.PrimFunc)]
    return func


def program_of(specs: Sequence[Spec], body: Callable[..., relax.Expr]) -> Program:
    """The stages of that function."""
    program = parse(fused(specs, body))
    assert program is not None
    return program


def run_both(func: tirx.PrimFunc, scheduled: tirx.PrimFunc, isa_name: str, seed: int = 0) -> list[np.ndarray]:
    """Results of a function as it is and as scheduled, on random arguments; the last one is the result."""
    functions = {"plain": func, "scheduled": scheduled}
    mod = tvm.IRModule({name: f.with_attr("global_symbol", name) for name, f in functions.items()})
    mod = tvm.IRModule({**FastMath()(mod).functions, mod.get_global_var("plain"): mod["plain"]})
    executable = tvm.compile(mod, target=target_of(isa_name))
    rng = np.random.default_rng(seed)
    arrays = []
    for parameter in func.params:
        shape, dtype = [int(extent) for extent in parameter.shape], str(parameter.dtype)
        if dtype.startswith("float"):
            arrays.append(rng.standard_normal(shape).astype(dtype))
        else:
            arrays.append(rng.integers(0, 2, shape).astype(dtype))
    results = []
    for name in functions:
        # What is not written shows.
        arrays[-1] = np.full_like(arrays[-1], 77)
        tensors = [tvm.runtime.tensor(a) for a in arrays]
        executable[name](*tensors)
        results.append(tensors[-1].numpy())
    return results


def check(func: tirx.PrimFunc, isa_name: str = WIDEST) -> tirx.PrimFunc:
    """Schedule a function, compare its result with the unscheduled one's, and return the schedule."""
    scheduled = schedule(func, isa_of(isa_name))
    assert scheduled is not None
    want, got = run_both(func, scheduled, isa_name)
    if want.dtype.kind == "f":
        scale = np.abs(want[np.isfinite(want)]).max(initial=1.0)
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=3e-6 * scale)
    else:
        np.testing.assert_array_equal(got, want)
    return scheduled


def loops(func: tirx.PrimFunc, kind: int) -> list[int]:
    """Extents of the loops of a kind, such as ``tirx.ForKind.PARALLEL``."""
    found: list[int] = []
    tvm_ffi.structural_walk(
        func.body, (tirx.For, lambda loop: found.append(int(loop.extent)) if loop.kind == kind else None)
    )
    return found


def parallel(func: tirx.PrimFunc) -> list[int]:
    """Extents of parallel loops."""
    return loops(func, tirx.ForKind.PARALLEL)


def vectorized(func: tirx.PrimFunc) -> list[int]:
    """Extents of vectorised loops."""
    return loops(func, tirx.ForKind.VECTORIZED)


def allocated(func: tirx.PrimFunc) -> list[int]:
    """Elements of every scratch buffer."""
    found: list[int] = []

    def note(node: tirx.AllocBuffer) -> None:
        found.append(int(np.prod([int(e) for e in node.buffer.shape])))

    tvm_ffi.structural_walk(func.body, (tirx.AllocBuffer, note))
    return found


def conditions(func: tirx.PrimFunc) -> int:
    """Number of ``if_then_else`` left."""
    found: list[Call] = []
    tvm_ffi.structural_walk(func.body, (Call, lambda c: found.append(c)))
    return sum(getattr(c.op, "name", "") == "prim.if_then_else" for c in found)
