import logging

import tvm
from tvm import relax
from tvm.script import tirx as T

from tests.schedules.cpu.compiled import WIDEST, isa_of
from tests.schedules.cpu.generic.helpers import fused, vectorized
from tvm_sparse.transform.schedule_cpu import ScheduleCPU, schedule

from .canonicalize.helpers import module

ISA = isa_of(WIDEST)
FUNC = fused([(37,)], relax.op.exp)


@T.prim_func(s_tir=True)
def already_parallel(a: T.Buffer((8,), "float32"), b: T.Buffer((8,), "float32")):
    for i in T.parallel(8):
        with T.sblock("b"):
            v = T.axis.spatial(8, i)
            b[v] = a[v]


def module_of(**functions):
    return tvm.IRModule({name: f.with_attr("global_symbol", name) for name, f in functions.items()})


def test_functions_are_scheduled_and_marked():
    before = module_of(one=FUNC, two=fused([(5, 40)], relax.op.negative))
    after = ScheduleCPU(ISA)(before)
    for name in ("one", "two"):
        assert vectorized(after[name]) and after[name].attrs["tirx.is_scheduled"]
        assert not vectorized(before[name]), "the old module is left alone"


def test_scheduled_functions_are_left_alone():
    once = ScheduleCPU(ISA)(module_of(one=FUNC))
    assert ScheduleCPU(ISA)(once)["one"].same_as(once["one"])


def test_function_that_no_rule_takes_is_left_alone():
    before = module_of(odd=already_parallel, one=FUNC)
    after = ScheduleCPU(ISA)(before)
    assert after["odd"].same_as(before["odd"])
    assert vectorized(after["one"])


def test_relax_functions_are_left_alone():
    before = module([(2, 3)], relax.op.exp)
    assert ScheduleCPU(ISA)(before)["main"].same_as(before["main"])


def test_first_rule_that_answers_wins():
    asked = []

    def not_mine(program, isa):
        asked.append(("not mine", isa))
        program.stages.clear()  # a rule may change what it is given

    def mine(program, isa):
        asked.append(("mine", len(program.stages)))
        return program.func.with_attr("by", "mine")

    def never(program, isa):
        raise AssertionError("an earlier rule answered")

    assert schedule(FUNC, ISA, (not_mine, mine, never)).attrs["by"] == "mine"
    assert asked == [("not mine", ISA), ("mine", 1)]


def test_rule_that_fails_is_passed_over(caplog):
    def broken(program, isa):
        raise RuntimeError("the rule is wrong")

    with caplog.at_level(logging.WARNING):
        assert schedule(FUNC, ISA, (broken, lambda program, isa: program.func)).same_as(FUNC)
    assert "broken" in caplog.text and "the rule is wrong" in caplog.text
    assert schedule(FUNC, ISA, (broken,)) is None
