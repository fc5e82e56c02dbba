"""Whole small networks in strips compute exactly what they compute layer by layer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tvm
from tvm import relax

from tests.schedules.cpu.compiled import WIDEST, isa_of
from tests.schedules.cpu.pipeline import context_for, run_module
from tests.transform.canonicalize.helpers import constant, module, outputs, random
from tvm_sparse.transform.context import CompileContext
from tvm_sparse.transform.depth_first import run_depth_first
from tvm_sparse.transform.depth_first.search import Cut

NN = relax.op.nn


def conv(x, channels, size=3, stride=1, groups=1, seed=0, zeros=0.8):
    inputs = int(x.ty.shape[1])
    weight = random(channels, inputs // groups, size, size, seed=seed)
    weight[np.random.default_rng(seed).random(weight.shape) < zeros] = 0
    call = NN.conv2d(x, constant(weight), strides=stride, padding=size // 2, groups=groups)
    return emit(NN.relu(call))


def emit(value):
    return relax.BlockBuilder.current().emit(value)


def mobile(x):
    for step, stride in enumerate((1, 2, 1)):
        channels = int(x.ty.shape[1])
        x = conv(x, channels, stride=stride, groups=channels, seed=2 * step, zeros=0)
        x = conv(x, 24, size=1, seed=2 * step + 1)
    return x


def bottlenecks(x):
    x = emit(NN.max_pool2d(conv(x, 16, size=7, stride=2, zeros=0), (3, 3), strides=(2, 2), padding=(1, 1)))
    for step in range(2):
        inner = conv(conv(x, 8, size=1, seed=step), 8, seed=5 + step)
        weight = random(16, 8, 1, 1, seed=step)
        x = emit(NN.relu(relax.op.add(NN.conv2d(inner, constant(weight)), x)))
    return x


def branches(x):
    """A tensor that a later layer outside of the region reads too."""
    first = conv(x, 16)
    second = conv(first, 16, seed=1)
    third = conv(second, 16, seed=2)
    return emit(relax.op.concat([first, conv(third, 16, seed=3)], axis=1))


def blocks(x):
    weight = random(16, 16, 3, 3).reshape(4, 4, 16, 3, 3)
    weight[:, 1:] = 0
    x = emit(NN.relu(NN.conv2d(conv(x, 16), constant(weight.reshape(16, 16, 3, 3)), padding=1)))
    return conv(x, 16, seed=4)


def fast_algorithms(x):
    """Dense layers that are not multiplied tap by tap."""
    return conv(conv(conv(x, 32, zeros=0), 32, seed=1, zeros=0), 32, seed=2, zeros=0)


NETWORKS = {
    "mobile": mobile,
    "bottlenecks": bottlenecks,
    "branches": branches,
    "blocks": blocks,
    "fast algorithms": fast_algorithms,
}
# With 8 lanes, the last layers of square images of 150 would have a single row of panels.
SHAPES = [(1, 6, 64, 64), (1, 6, 150, 154 if isa_of(WIDEST).lanes == 8 else 150)]


def small_caches(isa: str) -> CompileContext:
    """A compilation for caches that hold little of the images, so that layers take some rows of panels at a time."""
    context = context_for(isa)
    context.isa = replace(context.isa, l1_bytes=2**13, l2_bytes=2**15)
    return context


def calls_of_layers(context: CompileContext) -> list[int]:
    return [len(layer.calls) for layer in context.plan.layers]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("strips", [3])
def test_same_results(name, shape, strips, monkeypatch):
    monkeypatch.setattr(run_depth_first, "cut_run", lambda count, _region, _isa: [Cut(0, count, strips)])
    mod, x = module([shape], NETWORKS[name]), random(*shape, seed=9)
    context = small_caches(WIDEST)
    got = run_module(mod, context, [x])
    assert max(calls_of_layers(context)) > 1
    assert any("strips" in layer.why for layer in context.plan.layers)
    # Work is counted for all of a layer's strips together.
    assert all(len(layer.calls) == layer.strips for layer in context.plan.layers if layer.calls)
    plain = small_caches(WIDEST)
    with tvm.transform.PassContext(opt_level=3, disabled_pass=["RunDepthFirst"]):
        want = run_module(mod, plain, [x])
    assert max(calls_of_layers(plain)) == 1
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("isa", ["avx2", "generic"])
def test_other_instruction_sets(isa, monkeypatch):
    monkeypatch.setattr(run_depth_first, "cut_run", lambda count, _region, _isa: [Cut(0, count, 3)])
    mod, x = module([SHAPES[1]], mobile), random(*SHAPES[1], seed=9)
    context = small_caches(isa)
    (got,) = run_module(mod, context, [x])
    assert max(calls_of_layers(context)) > 1
    (want,) = outputs(mod, [x])
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())


def test_batches_run_layer_by_layer(monkeypatch):
    monkeypatch.setattr(run_depth_first, "cut_run", lambda count, _region, _isa: [Cut(0, count, 2)])
    context = small_caches(WIDEST)
    # Its images would run one by one, each in strips.
    with tvm.transform.PassContext(opt_level=3, disabled_pass=["SplitBatch"]):
        run_module(module([(2, 6, 64, 64)], mobile), context, [random(2, 6, 64, 64)])
    assert max(calls_of_layers(context)) == 1
