import numpy as np
import pytest
import tvm
from tvm import tirx
from tvm.script import tirx as T

from tests.schedules.cpu.compiled import WIDEST, target_of
from tvm_sparse.schedules.cpu import math
from tvm_sparse.transform.fast_math import FastMath, replace_calls

X = tirx.Var("x", "float32")
FUNCTIONS = ("exp", "exp2", "log", "tanh", "sigmoid", "erf", "cosh", "sinh")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_call_becomes_the_polynomial(name):
    after = replace_calls(getattr(tirx, name)(X))
    tvm.ir.assert_structural_equal(after, getattr(math, name)(X), map_free_vars=True)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_other_types_keep_their_calls(name, dtype):
    call = getattr(tirx, name)(tirx.Var("x", dtype))
    assert replace_calls(call).same_as(call)


def test_vectors_are_replaced_too():
    x = tirx.Var("x", "float32x8")
    call = tirx.exp(x)
    assert str(call.ty) == "float32x8"
    tvm.ir.assert_structural_equal(replace_calls(call), math.exp(x), map_free_vars=True)


def test_calls_within_calls():
    text = str(replace_calls(tirx.exp(tirx.tanh(X) + tirx.log(X))))
    assert not any(name in text for name in ("T.exp(", "T.tanh(", "T.log("))


@pytest.mark.parametrize("exponent", [2, 0.5, -1, 3])
def test_powers(exponent):
    call = tirx.pow(X, tirx.const(float(exponent), "float32"))
    tvm.ir.assert_structural_equal(replace_calls(call), math.power(X, exponent), map_free_vars=True)


def test_other_powers_stay():
    for exponent in (tirx.const(0.3, "float32"), tirx.Var("y", "float32")):
        call = tirx.pow(X, exponent)
        assert replace_calls(call).same_as(call)


def test_other_functions_stay():
    for call in (tirx.sin(X), tirx.sqrt(X), tirx.floor(X), X + X):
        assert replace_calls(call).same_as(call)


@tvm.script.ir_module
class Module:
    @T.prim_func(s_tir=True)
    def main(a: T.Buffer((64,), "float32"), b: T.Buffer((64,), "float32"), c: T.Buffer((64,), "float64")):
        for i in T.vectorized(64):
            b[i] = T.sigmoid(a[i]) * T.pow(a[i], T.float32(2))
        for i in range(64):
            c[i] = T.exp(T.Cast("float64", a[i]))


def test_function_computes_the_same():
    after = FastMath()(Module)
    text = after.script()
    assert "T.sigmoid" not in text and "T.pow" not in text
    assert "T.exp" in text, "float64 is left to libm"
    a = np.linspace(-9, 9, 64, dtype="float32")
    tensors = [tvm.runtime.tensor(v) for v in (a, np.zeros(64, "float32"), np.zeros(64))]
    tvm.compile(after, target=target_of(WIDEST))["main"](*tensors)
    np.testing.assert_allclose(tensors[1].numpy(), a**2 / (1 + np.exp(-a.astype("float64"))), rtol=1e-6)
    np.testing.assert_allclose(tensors[2].numpy(), np.exp(a.astype("float64")), rtol=1e-12)


def test_module_without_such_calls_is_returned_as_it_is():
    @tvm.script.ir_module
    class Plain:
        @T.prim_func(s_tir=True)
        def main(a: T.Buffer((4,), "float32")):
            for i in range(4):
                a[i] = a[i] + T.float32(1)

    assert FastMath()(Plain).same_as(Plain) or FastMath()(Plain)["main"].same_as(Plain["main"])
