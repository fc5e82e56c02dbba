"""SplitBatch: what it splits, what it leaves, and that packages hold everything once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tvm import relax

from tests.schedules.cpu.compiled import WIDEST
from tests.schedules.cpu.pipeline import context_for, run_module
from tests.transform.canonicalize.helpers import (
    arrays_for,
    assert_same_results,
    assert_unchanged,
    calls,
    constant,
    module,
    outputs,
    random,
    rewritten,
)
from tvm_sparse.transform.batch import CopyViews, SplitBatch, cost
from tvm_sparse.transform.batch.roles import roles_of
from tvm_sparse.transform.context import CompileContext
from tvm_sparse.transform.fuse_layers import FuseLayers
from tvm_sparse.transform.pipeline import run_phases

OP, NN = relax.op, relax.op.nn
KERNEL = random(32, 32, 3, 3)


def compilation() -> CompileContext:
    """A compilation for one size of the second-level cache, which decides what is split, whatever the target's."""
    context = context_for(WIDEST)
    context.isa = replace(context.isa, l2_bytes=1 << 20)
    return context


def sparse(*shape):
    weight = random(*shape)
    weight[np.random.default_rng(1).random(shape) < 0.9] = 0
    return constant(weight / 4)


def convolutions(x, channels=64, count=6):
    for _ in range(count):
        x = NN.relu(NN.conv2d(x, sparse(channels, channels, 3, 3), padding=1))
    return x


def parts(mod):
    return [function for name, function in mod.functions_items() if name.name_hint.startswith("part")]


def split(mod, group=None):
    return rewritten(mod, FuseLayers(), SplitBatch(compilation(), group))


def test_images_beyond_the_cache_run_one_by_one():
    after = split(module([(8, 64, 28, 28)], convolutions))
    (part,) = parts(after)
    assert [int(extent) for extent in part.params[0].ty.shape] == [1, 64, 28, 28]
    # Views of the input: nothing is copied before the first layer.
    assert calls(after) == ["memory.view", "part"] * 8 + ["call_tir"]


def test_each_thread_gets_an_image():
    context = compilation()
    context.thread_counts = (2,)
    (part,) = parts(rewritten(module([(8, 64, 28, 28)], convolutions), FuseLayers(), SplitBatch(context)))
    assert int(part.params[0].ty.shape[0]) == 2


@pytest.mark.parametrize(("shared_caches", "images"), [(64, 2), (16, 1)])
def test_images_that_exceed_a_part_of_the_shared_cache_run_one_by_one(monkeypatch, shared_caches, images):
    """Two threads, as likely as one, would rather have an image each; all images exceed the second-level cache."""
    monkeypatch.setattr(cost, "_SHARED_CACHES", shared_caches)
    context = compilation()
    context.thread_counts = (1, 2)
    context.isa = replace(context.isa, l2_bytes=1 << 17)

    def body(x):
        for columns, rows in ((64, 256), (256, 64)) * 3:
            x = NN.relu(NN.conv2d(x, sparse(rows, columns, 1, 1)))
        return x

    (part,) = parts(rewritten(module([(8, 64, 40, 40)], body), FuseLayers(), SplitBatch(context)))
    assert int(part.params[0].ty.shape[0]) == images


@pytest.mark.parametrize("size", [14, 28])
def test_images_that_share_vectors_cost_less(size):
    """Four images of 14 pixels fill the lanes that one of them leaves empty; those of 28 leave none."""
    mod = rewritten(module([(16, 32, size, size)], lambda x: convolutions(x, 32, 1)), FuseLayers())
    call = mod["main"].body.blocks[0].bindings[0].value
    costs = cost.GroupCosts(replace(compilation().isa, l2_bytes=1 << 30), 16, 0)
    roles = roles_of(call, 16)
    alone, together = (costs.call(call, roles, group) - 16 // group * cost._CALL_CYCLES for group in (1, 4))
    if size == 14:
        assert alone > 1.1 * together
    else:
        assert alone == pytest.approx(together, rel=1e-6)


def test_weights_beyond_the_cache_are_read_for_every_group():
    """Sixteen rows are one panel, which waits for the weights as long as one of eight rows does."""
    mod = rewritten(module([(16, 512)], lambda x: OP.matmul(x, constant(random(512, 2048)))), FuseLayers())
    call = mod["main"].body.blocks[0].bindings[0].value
    costs = cost.GroupCosts(replace(compilation().isa, l2_bytes=1 << 18), 16, 0)
    halves, whole = (costs.call(call, roles_of(call, 16), group) for group in (8, 16))
    assert halves > 1.4 * whole


def test_small_images_stay_together():
    before = rewritten(module([(8, 64, 7, 7)], convolutions), FuseLayers())
    assert_unchanged(before, SplitBatch(compilation()))


def test_one_image_is_no_batch():
    before = rewritten(module([(1, 64, 112, 112)], convolutions), FuseLayers())
    assert_unchanged(before, SplitBatch(compilation(), 1))


def test_rows_of_a_linear_network_stay_together():
    """The rows are the batch: split, each would read all weights."""
    weights = [sparse(1024, 4096), sparse(4096, 1024)]
    before = module([(64, 1024)], lambda x: OP.matmul(NN.relu(OP.matmul(x, weights[0])), weights[1]))
    assert not parts(split(before))


def test_the_classifier_keeps_the_batch():
    """Its weights are large, and one image is one row for it."""

    def body(x):
        pooled = OP.mean(convolutions(x), [2, 3])
        return OP.matmul(pooled, constant(random(64, 100_000)))

    after = split(module([(8, 64, 28, 28)], body))
    assert len(parts(after)) == 1
    assert calls(after)[-1] == "tvm_sparse.linear"


def test_what_mixes_items_runs_once_between_parts():
    def body(x):
        first = NN.relu(NN.conv2d(x, sparse(16, 3, 3, 3)))
        centred = OP.subtract(first, OP.mean(first, [0], True))
        return NN.relu(NN.conv2d(centred, sparse(8, 16, 3, 3)))

    before = module([(3, 3, 9, 8)], body)
    after = split(before, 1)
    assert len(parts(after)) == 2 and "mean" in calls(after)
    context = compilation()
    (expected,), (got,) = outputs(before, arrays_for(before)), run_module(before, context, arrays_for(before))
    np.testing.assert_allclose(got, expected, atol=1e-4 * np.abs(expected).max())


def test_values_for_later_parts_cross_as_the_batch():
    """A residual that is computed before what mixes items, and read after it; two outputs."""

    def body(x):
        first = OP.exp(x)
        total = OP.sum(first, [0], True)
        return OP.divide(OP.add(first, OP.tanh(first)), total), OP.reshape(first, (4 * 3, 5))

    before = module([(4, 3, 5)], body)
    context = compilation()
    after = rewritten(before, SplitBatch(context, 2), CopyViews(context))
    assert len(parts(after)) == 2
    assert_same_results(before, after)


def test_tuples_inside_of_a_part():
    def body(x):
        halves = OP.split(OP.exp(x), 2, 1)
        return OP.add(halves[0], halves[1])

    before = module([(3, 4, 5)], body)
    context = compilation()
    assert_same_results(before, rewritten(before, SplitBatch(context, 1), CopyViews(context)))


def test_layers_and_weights_are_there_once():
    before = module([(8, 64, 28, 28)], convolutions)
    context = compilation()
    context.weights = []
    lowered = run_phases(before, context)
    assert [layer.name for layer in context.plan.layers] == [f"conv{number}" for number in range(6)]
    assert all(len(layer.calls) == 8 for layer in context.plan.layers)
    whole = compilation()
    whole.weights = []
    undivided = run_phases(module([(1, 64, 28, 28)], convolutions), whole)
    assert sum(w.nbytes for w in context.weights) <= 1.2 * sum(w.nbytes for w in whole.weights)

    def storages(mod):
        values = [b.value for block in mod["main"].body.blocks for b in block.bindings]
        names = [str(getattr(getattr(v, "op", None), "name", "")) for v in values]
        return names.count("relax.vm.alloc_storage")

    # One more holds the outputs of all images.
    assert storages(lowered) <= storages(undivided) + 9
