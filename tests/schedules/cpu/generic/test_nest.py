"""Taking functions apart."""

import pytest
import tvm
from tvm import relax, tirx
from tvm.script import tirx as T

from tests.transform.canonicalize.helpers import number
from tvm_sparse.schedules.cpu.generic.nest import parse, substitute, variables, volume

from .helpers import program_of

OP = relax.op


def test_stages_of_a_softmax():
    program = program_of([(6, 10)], lambda x: OP.nn.softmax(x, axis=-1))
    assert [stage.is_reduction for stage in program.stages] == [True, False, True, False]
    assert [[axis.extent for axis in stage.axes] for stage in program.stages] == [[6, 10]] * 4
    assert [volume(stage.reduced) for stage in program.stages] == [10, 1, 10, 1]
    maximum, exponentials, total, result = program.stages
    assert len(program.locals) == 3
    buffer = exponentials.stores[0].buffer
    assert program.producer(buffer) is exponentials
    assert program.consumers(buffer) == [total, result]
    assert not program.is_local(result.stores[0].buffer)


def test_axes_of_one_point_disappear():
    program = program_of([(1, 5, 1)], lambda x: OP.add(x, number(1)))
    (stage,) = program.stages
    assert [axis.extent for axis in stage.axes] == [5]
    assert variables(stage.stores[0].value) == {stage.axes[0].var}


def test_substitution():
    x, y = tirx.Var("x", "int64"), tirx.Var("y", "int64")
    tvm.ir.assert_structural_equal(substitute(x * 2 + y, {x: y}), y * 2 + y)


@T.prim_func(s_tir=True)
def parallel(a: T.Buffer((8,), "float32"), b: T.Buffer((8,), "float32")):
    for i in T.parallel(8):
        with T.sblock("b"):
            v = T.axis.spatial(8, i)
            b[v] = a[v]


@T.prim_func(s_tir=True)
def shifted(a: T.Buffer((8,), "float32"), b: T.Buffer((8,), "float32")):
    for i in range(7):
        with T.sblock("b"):
            v = T.axis.spatial(8, i + 1)
            b[v] = a[v]


@T.prim_func(s_tir=True)
def guarded(a: T.Buffer((8,), "float32"), b: T.Buffer((8,), "float32")):
    for i in range(8):
        with T.sblock("b"):
            v = T.axis.spatial(8, i)
            T.where(i < 5)
            b[v] = a[v]


@T.prim_func(s_tir=True)
def scan(a: T.Buffer((8,), "float32"), b: T.Buffer((8,), "float32")):
    for i in range(8):
        with T.sblock("b"):
            v = T.axis.scan(8, i)
            b[v] = a[v]


@T.prim_func(s_tir=True)
def branch(a: T.Buffer((8,), "float32"), b: T.Buffer((8,), "float32")):
    for i in range(8):
        with T.sblock("b"):
            v = T.axis.spatial(8, i)
            if a[v] > T.float32(0):
                b[v] = a[v]


@T.prim_func(s_tir=True)
def chained(a: T.Buffer((8,), "float32"), b: T.Buffer((8,), "float32"), c: T.Buffer((8,), "float32")):
    for i in range(8):
        with T.sblock("b"):
            v = T.axis.spatial(8, i)
            b[v] = a[v]
            c[v] = b[v]


@T.prim_func(s_tir=True)
def any_size(a: T.handle, b: T.handle):
    n = T.int64()
    x = T.match_buffer(a, (n,), "float32")
    y = T.match_buffer(b, (n,), "float32")
    for i in range(n):
        with T.sblock("b"):
            v = T.axis.spatial(n, i)
            y[v] = x[v]


@T.prim_func
def no_blocks(a: T.Buffer((8,), "float32"), b: T.Buffer((8,), "float32")):
    for i in range(8):
        b[i] = a[i]


REFUSED = (parallel, shifted, guarded, scan, branch, chained, any_size, no_blocks)


@pytest.mark.parametrize("func", REFUSED, ids=lambda f: str(f.attrs["global_symbol"]))
def test_other_forms_are_refused(func):
    assert parse(func) is None
