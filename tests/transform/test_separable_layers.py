"""Which depth-wise convolutions the 1x1 convolution that reads them computes, what the plan says, and the results."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax

from tests.schedules.cpu.compiled import TILED, every_tiled_isa
from tests.schedules.cpu.pipeline import context_for, run_module
from tvm_sparse.plan.plan import Plan

from .canonicalize.helpers import arrays_for, module, outputs, random
from .test_to_columns import NN, OP, conv, lowered, sparse, steps

if not TILED:
    pytest.skip("no instruction set has the depth-wise tile", allow_module_level=True)

IMAGE = (1, 16, 32, 32)


def depthwise(x, **options):
    return conv(x, random(16, 1, 3, 3), groups=16, **options)


def pointwise(x, outputs=24, **options):
    return conv(x, sparse(outputs, 16, 1, 1, zeros=0.8), padding=0, **options)


def named(value):
    return relax.BlockBuilder.current().emit(value)


def two_readers(x):
    y = named(depthwise(x))
    return OP.concat([pointwise(y), OP.tanh(y)], axis=1)


TOGETHER = {
    "relu": lambda x: NN.relu(pointwise(NN.relu(depthwise(x)))),
    "stride": lambda x: pointwise(depthwise(x, strides=2)),
    "dense": lambda x: conv(depthwise(x), random(24, 16, 1, 1), padding=0),
    "residual": lambda x: OP.add(pointwise(depthwise(x), outputs=16), x),
}
APART = {
    "two readers": (two_readers, None),
    "an output too": (lambda x: (pointwise(y := named(depthwise(x))), y), None),
    "a strided reader": (lambda x: pointwise(depthwise(x), strides=2), None),
    "a reader of windows": (lambda x: conv(depthwise(x), sparse(24, 16, 3, 3)), None),
    "dilation": (lambda x: pointwise(depthwise(x, dilation=2)), None),
    "asked to be dense": (TOGETHER["relu"], Plan(overrides={"conv0": "dense"})),
    "blocks": (TOGETHER["relu"], Plan(overrides={"conv1": "block 4x1"})),
}


@every_tiled_isa
@pytest.mark.parametrize("name", TOGETHER)
def test_one_kernel(isa_name, name):
    after, context = lowered([IMAGE], TOGETHER[name], isa_name=isa_name)
    found = [step for step in steps(after, context) if step.endswith(("Columns", "Kernel"))]
    assert len([step for step in found if step not in ("ToColumns", "MoveColumns")]) == 1
    first, second = context.plan.layers
    assert (first.name, first.format, first.kernel) == ("conv0", "depthwise", second.kernel)
    assert "conv1" in first.why and first.work is None
    assert second.kind.startswith("depthwise 3x3") and second.kind.endswith("+ conv 1x1")
    assert "_depthwise_" in second.kernel and second.work is not None
    assert min(first.bytes_packed, second.bytes_packed) > 0


@every_tiled_isa
@pytest.mark.parametrize("name", APART)
def test_kernels_of_their_own(isa_name, name):
    body, plan = APART[name]
    _, context = lowered([IMAGE], body, plan, isa_name)
    assert len({layer.kernel for layer in context.plan.layers}) == 2
    assert all(layer.work is not None for layer in context.plan.layers)


@every_tiled_isa
@pytest.mark.parametrize("name", [*TOGETHER, "two readers", "an output too"])
def test_results(isa_name, name):
    before = module([IMAGE], TOGETHER[name] if name in TOGETHER else APART[name][0])
    arrays = arrays_for(before)
    context = context_for(isa_name)
    for got, want in zip(run_module(before, context, arrays), outputs(before, arrays), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    if name in TOGETHER:
        # The calls are the second layer's.
        assert [len(layer.calls) for layer in context.plan.layers] == [0, 1]
