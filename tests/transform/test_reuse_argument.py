"""A layer may write where its residual lies, but only where nobody needs the residual any more."""

import numpy as np
import pytest
import tvm
from tvm import relax

from tests.schedules.cpu.compiled import WIDEST
from tests.schedules.cpu.pipeline import context_for, run_module
from tvm_sparse.build.link import build_library
from tvm_sparse.transform.pipeline import run_phases

from .canonicalize.helpers import constant, module, outputs, random

OP = relax.op
NN = relax.op.nn
IMAGE = (1, 4, 6, 8)


def conv(x, seed=0):
    return NN.conv2d(x, constant(random(4, 4, 3, 3, seed=seed)), padding=1)


def emit(value):
    return relax.BlockBuilder.current().emit(value)


def block(x, seed):
    return emit(NN.relu(OP.add(conv(emit(conv(x, seed)), seed + 1), x)))


BODIES = {
    "last reader": lambda x: block(emit(conv(x)), 1),
    "chain of blocks": lambda x: block(block(block(emit(conv(x)), 1), 3), 5),
    "residual is the input": lambda x: OP.add(conv(x), x),
    "residual is read later": lambda x: (lambda y: OP.multiply(block(y, 1), y))(emit(conv(x))),
    "residual is an output": lambda x: (lambda y: (block(y, 1), y))(emit(conv(x))),
    "residual of two layers": lambda x: (lambda y: OP.add(emit(OP.add(conv(y, 1), y)), emit(OP.add(conv(y, 2), y))))(
        emit(conv(x))
    ),
    "residual is the layer's input": lambda x: (lambda y: OP.add(conv(y, 1), y))(emit(conv(x))),
    "residual is a part": lambda x: (lambda y: OP.add(conv(x, 2), OP.strided_slice(y, [1], [0], [4])))(
        emit(NN.conv2d(x, constant(random(8, 4, 3, 3)), padding=1))
    ),
}


@pytest.mark.parametrize("name", BODIES)
def test_same_results_and_untouched_inputs(name):
    mod, x = module([IMAGE], BODIES[name]), random(*IMAGE, seed=9)
    kept = x.copy()
    got = run_module(mod, context_for(WIDEST), [x])
    for result, want in zip(got, outputs(mod, [kept]), strict=True):
        np.testing.assert_allclose(result, want, rtol=0, atol=1e-5 * np.abs(want).max())


def test_input_of_the_caller_is_not_overwritten(tmp_path):
    # Tokens of a few rows stay plain: the residual is the caller's own tensor.
    mod = module([(2, 6), (2, 6)], lambda x, y: OP.add(OP.matmul(x, constant(random(6, 6))), y))
    context = context_for(WIDEST)
    build_library(run_phases(mod, context), context, tmp_path / "mod.so")
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(tmp_path / "mod.so")), tvm.cpu())
    arrays = [random(2, 6), random(2, 6, seed=1)]
    tensors = [tvm.runtime.tensor(a) for a in arrays]
    machine["main"](*tensors)
    for array, after in zip(arrays, tensors, strict=True):
        np.testing.assert_array_equal(after.numpy(), array)
