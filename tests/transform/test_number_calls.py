"""Calls of kernels are numbered as a run makes them: layers of one kernel, calls that are no layers, dead layers."""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax

from tests.schedules.cpu.compiled import WIDEST
from tests.schedules.cpu.pipeline import context_for
from tvm_sparse.plan.plan import LayerPlan, Plan
from tvm_sparse.transform.calls import call_of
from tvm_sparse.transform.number_calls import NumberCalls
from tvm_sparse.transform.pipeline import run_phases

from .canonicalize.helpers import constant, module

TENSOR = relax.TensorType((4,), "float32")
PASSES = [
    relax.transform.DeadCodeElimination(),
    relax.transform.ToNonDataflow(),
    relax.transform.RemovePurityChecking(),
    relax.transform.CallTIRRewrite(),
    relax.transform.StaticPlanBlockMemory(),
    relax.transform.LowerAllocTensor(),
    relax.transform.LowerRuntimeBuiltin(),
    relax.transform.VMShapeLower(),
]


def numbers(calls: list[tuple[str, str | None, int]]) -> dict[str, list[int]]:
    """Numbers of the layers in a chain of calls: kernel, layer, and the earlier value that the call reads."""
    builder, x = relax.BlockBuilder(), relax.Var("x", TENSOR)
    values = [x]
    with builder.function("main", [x]):
        with builder.dataflow():
            for symbol, layer, source in calls:
                call = relax.call_dps_packed(call_of(symbol, layer), [values[source]], out_ty=TENSOR)
                values.append(builder.emit(call))
            result = builder.emit_output(values[-1])
        builder.emit_func_output(result)
    kernels = {name: symbol for symbol, name, _ in calls if name}
    plan = Plan(layers=[LayerPlan(name, "", "", 1.0, "dense", symbol) for name, symbol in kernels.items()])
    with tvm.target.Target("llvm"):
        tvm.transform.Sequential([*PASSES, NumberCalls(plan)])(builder.get())
    return {layer.name: layer.calls for layer in plan.layers}


def test_each_kernel_counts_by_itself():
    chain = [("k", "a", 0), ("k", "b", 1), ("other", "c", 2), ("k", "d", 3)]
    assert numbers(chain) == {"a": [0], "b": [1], "c": [0], "d": [2]}


def test_layers_that_run_for_each_group_of_a_batch():
    chain = [("k", "a", 0), ("k", "b", 1), ("k", "a", 2), ("k", "b", 3)]
    assert numbers(chain) == {"a": [0, 2], "b": [1, 3]}


def test_calls_that_are_no_layers():
    """A mean over windows is a depth-wise layer for the kernel, not for the plan."""
    assert numbers([("k", "a", 0), ("k", None, 1), ("k", "b", 2)]) == {"a": [0], "b": [2]}


def test_dead_layers():
    assert numbers([("k", "a", 0), ("k", "dead", 1), ("k", "b", 1)]) == {"a": [0], "dead": [], "b": [1]}


def test_whole_compilation():
    weight = np.zeros((32, 32, 1, 1), np.float32)
    weight[::2, ::4] = 1
    context = context_for(WIDEST)

    def body(x):
        first = relax.op.nn.relu(relax.op.nn.conv2d(x, constant(weight)))
        return relax.op.nn.relu(relax.op.nn.conv2d(first, constant(weight.copy())))

    run_phases(module([(1, 32, 8, 8)], body), context)
    assert [layer.calls for layer in context.plan.layers] == [[0], [1]]
    assert len({layer.kernel for layer in context.plan.layers}) == 1
    # Every second of 32 rows, every fourth of 32 channels, 64 pixels.
    assert all(layer.work is not None and layer.work.macs == 16 * 8 * 64 for layer in context.plan.layers)
