import numpy as np
import pytest
import tvm
from tvm import relax, tirx

from tests.schedules.cpu.compiled import WIDEST
from tests.schedules.cpu.pipeline import context_for, run_module
from tvm_sparse.transform.instruments import PassTimes
from tvm_sparse.transform.pipeline import AlreadyLowered, phases, run_phases, run_until_layers

from .canonicalize.helpers import calls, constant, module, random

OP = relax.op
NN = relax.op.nn
PHASES = ["canonicalize", "columns", "loops", "lower"]


def mod():
    """A layer, and an operator that becomes loops."""

    def body(x):
        y = NN.relu(NN.conv2d(x, constant(random(8, 4, 3, 3)), padding=1))
        return OP.cumsum(OP.exp(OP.permute_dims(y, [0, 3, 1, 2])), axis=1)

    return module([(2, 4, 7, 9)], body)


def expected(x):
    weight = random(8, 4, 3, 3).astype("float64")
    padded = np.pad(x.astype("float64"), ((0, 0), (0, 0), (1, 1), (1, 1)))
    y = sum(
        np.einsum("bchw,mc->bmhw", padded[:, :, i : i + 7, j : j + 9], weight[:, :, i, j])
        for i in range(3)
        for j in range(3)
    )
    return np.cumsum(np.exp(np.maximum(y, 0) / 1).transpose(0, 3, 1, 2), axis=1)


def test_names_of_the_phases():
    listed = phases(context_for(WIDEST))
    assert [name for name, _ in listed] == PHASES
    names = {name: [str(each.info.name) for each in passes] for name, passes in listed}
    assert names["columns"][-5:] == ["FuseLayers", "SplitBatch", "ToColumns", "CopyViews", "FindUnalignedInputs"]
    # Loops must be scheduled before their functions become polynomials, which no rule reads.
    assert names["loops"].index("ScheduleCPU") < names["loops"].index("FastMath")
    assert all(names.values())


def test_progress_names_the_phases():
    heard = []
    run_phases(mod(), context_for(WIDEST), heard.append)
    assert heard == PHASES


def test_lowered_module_is_complete():
    context = context_for(WIDEST)
    lowered = run_phases(mod(), context)
    functions = [f for _, f in lowered.functions_items() if isinstance(f, tirx.PrimFunc)]
    assert functions and all(f.attrs["tirx.is_scheduled"] for f in functions if "is_scheduled" in str(f.attrs))
    assert context.kernels and context.plan.layers
    text = lowered.script()
    assert "R.nn" not in text and "T.exp(" not in text


def test_results():
    x = random(2, 4, 7, 9, seed=5)
    (got,) = run_module(mod(), context_for(WIDEST), [x])
    np.testing.assert_allclose(got, expected(x), rtol=2e-5)


DISABLED = [
    "FuseLayers",
    "ToColumns",
    "ScheduleCPU",
    "FastMath",
    "FoldConstants",
    "ReuseArgument",
]


@pytest.mark.parametrize("name", DISABLED)
def test_without_a_pass_results_are_the_same(name):
    x, context, times = random(2, 4, 7, 9, seed=5), context_for(WIDEST), PassTimes()
    with tvm.transform.PassContext(opt_level=3, disabled_pass=[name], instruments=[times]):
        (got,) = run_module(mod(), context, [x])
    assert name not in {ran for _, ran, _ in times.times}
    assert bool(context.kernels) == (name not in ("FuseLayers", "ToColumns"))
    np.testing.assert_allclose(got, expected(x), rtol=2e-5)


def test_until_layers():
    context = context_for(WIDEST)
    after = run_until_layers(mod(), context)
    assert calls(after)[0] == "tvm_sparse.conv2d"
    assert not context.kernels and not context.plan.layers


def test_already_lowered_is_left_alone():
    before = mod()
    assert AlreadyLowered()(before).same_as(before)


def test_the_same_module_twice_gives_the_same():
    # Nothing is left behind in the module or between compilations.
    before = mod()
    first, second = (run_phases(before, context_for(WIDEST)) for _ in range(2))
    tvm.ir.assert_structural_equal(first, second)
