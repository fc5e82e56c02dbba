"""Views of a batch: kept where kernels take them, copied elsewhere; their tensors stay until they are read."""

from __future__ import annotations

import tvm
from tvm import relax

from tests.schedules.cpu.compiled import WIDEST
from tests.schedules.cpu.pipeline import context_for
from tests.transform.canonicalize.helpers import calls, constant, module, random, rewritten
from tvm_sparse.transform.batch import CopyViews, SplitBatch
from tvm_sparse.transform.columns import ToColumns
from tvm_sparse.transform.fuse_layers import FuseLayers

OP, NN = relax.op, relax.op.nn


def split(specs, body):
    context = context_for(WIDEST)
    passes = [FuseLayers(), SplitBatch(context, 1), ToColumns(context), CopyViews(context)]
    return calls(rewritten(module(specs, body), *passes))


def test_columns_are_filled_from_views():
    def body(x):
        return NN.conv2d(x, constant(random(8, 16, 3, 3)))

    assert split([(3, 16, 8, 8)], body)[:6] == ["memory.view", "part"] * 3


def test_other_functions_get_copies():
    """All but the first, which begins where its tensor does."""
    names = split([(3, 16, 8, 8)], lambda x: OP.exp(x))[:6]
    assert names == ["memory.view", "part", "strided_slice", "part", "strided_slice", "part"]


def test_rows_off_the_alignment_are_copied():
    def body(x):
        return NN.conv2d(x, constant(random(8, 5, 3, 3)))

    assert split([(2, 5, 3, 3)], body)[:4] == ["memory.view", "part", "strided_slice", "part"]


def test_a_tensor_lives_as_long_as_its_views():
    """What TVM's memory planner must do: later tensors take no memory that a view shows."""
    x = relax.Var("x", relax.TensorType((4, 64), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            base = builder.emit(OP.exp(x))
            view = builder.emit(OP.memory.view(base, (2, 64), "float32", 512))
            other = builder.emit(OP.strided_slice(builder.emit(OP.tanh(x)), [0], [0], [2]))
            output = builder.emit_output(OP.negative(builder.emit(OP.add(view, other))))
        builder.emit_func_output(output)
    passes = [
        relax.transform.LegalizeOps(),
        relax.transform.ToNonDataflow(),
        relax.transform.RemovePurityChecking(),
        relax.transform.CallTIRRewrite(),
        relax.transform.StaticPlanBlockMemory(),
    ]
    with tvm.target.Target("llvm"):
        main = tvm.transform.Sequential(passes)(builder.get())["main"]
    bindings = [binding for block in main.body.blocks for binding in block.bindings]
    names = [str(getattr(getattr(b.value, "op", None), "name", "")) for b in bindings]
    storages = [b.value.args[0] for b, name in zip(bindings, names, strict=True) if name == "relax.memory.alloc_tensor"]
    place = names.index("relax.memory.view")
    made_before = sum(name == "relax.memory.alloc_tensor" for name in names[:place])
    assert made_before == 1
    # Of exp; tanh and its slice are made while the view is to be read.
    assert not any(storage.same_as(storages[0]) for storage in storages[1:3])
