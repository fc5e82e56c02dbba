"""The polynomials of transcendental functions against numpy's float64, over all of float32."""

import functools

import numpy as np
import pytest
import tvm
from scipy.special import erf, expit
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from tvm_sparse.schedules.cpu import math

from .compiled import RUNNABLE, WIDEST, every_isa, isa_of, target_of

SIZE = 1 << 18
MAX, TINY = float(np.finfo("float32").max), float(np.finfo("float32").tiny)


def build(function, lanes: int, size: int = SIZE):
    """``y[i] = function(x[i])`` on vectors."""
    with IRBuilder() as builder:
        with T.prim_func():
            T.func_name("main")
            T.func_attr({"global_symbol": "main", "tirx.noalias": True})
            x = T.match_buffer(T.arg("x", T.handle()), (size,), "float32")
            y = T.match_buffer(T.arg("y", T.handle()), (size,), "float32")
            with T.serial(0, size // lanes) as i:
                at = T.Ramp(i * lanes, 1, lanes) if lanes > 1 else i
                T.buffer_store(y, function(x[at]), [at])
    return builder.get()


@functools.cache
def compiled(name: str, isa_name: str, lanes: int):
    function = FUNCTIONS.get(name) or getattr(math, name)
    return tvm.compile(build(function, lanes), target=target_of(isa_name))


def evaluate(name: str, x: np.ndarray, isa_name: str = WIDEST, lanes: int | None = None) -> np.ndarray:
    """A function of float32 values, computed by compiled code; vectors as wide as the registers by default."""
    padded = np.zeros(SIZE, "float32")
    padded[: x.size] = x
    out = tvm.runtime.tensor(padded)
    compiled(name, isa_name, lanes or isa_of(isa_name).lanes)["main"](tvm.runtime.tensor(padded), out)
    return out.numpy()[: x.size]


def samples(low: float = -MAX, high: float = MAX) -> np.ndarray:
    """Finite float32 values in a range: equally spaced ones, and all magnitudes down to denormals."""
    bits = np.arange(0, 1 << 32, 40009, dtype="uint64").astype("uint32")
    every = bits.view("float32")
    near = np.linspace(max(low, -120), min(high, 120), 100_000, dtype="float32")
    small = np.linspace(-2, 2, 20_000, dtype="float32")
    limits = np.array([low, high, 0, TINY, -TINY, 1e-45, -1e-45, 1, -1, MAX, -MAX], "float32")
    values = np.concatenate([every, near, small, limits, np.nextafter(limits, np.float32(0))])
    return values[(values >= low) & (values <= high)]


def ulps(got: np.ndarray, want: np.ndarray) -> np.ndarray:
    """Error in units in the last place of the correctly rounded result."""
    with np.errstate(over="ignore"):
        return np.abs(got - want) / np.spacing(np.abs(want).astype("float32")).astype("float64")


def scaled_elu(x):
    return math.elu(x, 0.5)


FUNCTIONS = {"scaled_elu": scaled_elu}
REFERENCES = {
    "exp": np.exp,
    "exp_nonpositive": np.exp,
    "exp2": np.exp2,
    "exp2_nonpositive": np.exp2,
    "expm1": np.expm1,
    "cosh": np.cosh,
    "sinh": np.sinh,
    "log": np.log,
    "log1p_unit": np.log1p,
    "sigmoid": expit,
    "silu": lambda x: x * expit(x),
    "tanh": np.tanh,
    "erf": erf,
    "softplus": lambda x: np.logaddexp(0, x),
    "mish": lambda x: x * np.tanh(np.logaddexp(0, x)),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "scaled_elu": lambda x: np.where(x > 0, x, 0.5 * np.expm1(np.minimum(x, 0))),
    "gelu": lambda x: x * 0.5 * (1 + erf(x / np.sqrt(2))),
    "gelu_tanh": lambda x: x * expit(2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)),
    "hard_sigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "hard_swish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
}

# Name, range in which the promise holds, largest error in units in the last place.
ACCURATE = [
    ("exp", -87.336, 88.722, 2),
    ("exp_nonpositive", -87.336, 0, 2),
    ("exp2_nonpositive", -126, 0, 3),
    ("exp2", -31.999, 31.999, 3),
    ("expm1", -MAX, 88.369, 3),
    ("cosh", -1.0, 1.0, 4),
    ("sinh", -88.3, 88.3, 6),
    ("log", 1e-45, MAX, 2),
    ("log1p_unit", 0, 1, 3),
    ("sigmoid", -86, MAX, 3),
    ("silu", -86, MAX, 4),
    ("tanh", -MAX, MAX, 6),
    ("erf", -MAX, MAX, 6),
    ("softplus", -86, MAX, 4),
    ("mish", -80, MAX, 5),
    ("elu", -MAX, MAX, 3),
    ("scaled_elu", -MAX, MAX, 4),
]


@pytest.mark.parametrize("isa_name, lanes", [(WIDEST, None), (RUNNABLE[-1], None), (WIDEST, 1)], ids=str)
@pytest.mark.parametrize("name, low, high, limit", ACCURATE, ids=[a[0] for a in ACCURATE])
def test_error_in_last_places(name, low, high, limit, isa_name, lanes):
    x = samples(low, high)
    assert x.size > 20_000 and x.size <= SIZE
    error = ulps(evaluate(name, x, isa_name, lanes), REFERENCES[name](x.astype("float64")))
    # A NaN fails the comparison too.
    assert (error <= limit).all(), f"{np.nanmax(error):.2f} ulp at {x[np.argmax(np.nan_to_num(error, nan=np.inf))]!r}"


@every_isa
def test_cosh_of_large_arguments(isa_name):
    x = samples(-88, 88)
    np.testing.assert_allclose(evaluate("cosh", x, isa_name), np.cosh(x.astype("float64")), rtol=5e-6)


@every_isa
def test_exp2_of_large_exponents(isa_name):
    x = samples(-125.999, 127.999)
    want = np.exp2(x.astype("float64"))
    np.testing.assert_allclose(evaluate("exp2", x, isa_name), want, rtol=1e-5)


@every_isa
def test_gelu_is_right_to_a_millionth(isa_name):
    x = samples(-MAX, 1e4)
    want = REFERENCES["gelu"](x.astype("float64"))
    np.testing.assert_allclose(evaluate("gelu", x, isa_name), want, rtol=6e-7, atol=1e-6)


def test_gelu_by_pieces():
    if WIDEST != "avx512":
        pytest.skip("AVX-512 alone has vectors of 16 lanes")
    x = samples(-MAX, 1e4)
    want = REFERENCES["gelu"](x.astype("float64"))
    got = evaluate("gelu_by_pieces", x)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=4e-7)
    # Small values keep their precision.
    small = np.abs(x) < 1e-2
    np.testing.assert_allclose(got[small], want[small], rtol=2e-6, atol=1e-40)
    special = evaluate("gelu_by_pieces", np.array([np.nan, np.inf, -np.inf], "float32"))
    assert np.isnan(special[0]) and np.isposinf(special[1]) and abs(special[2]) < 1e-6


@every_isa
def test_gelu_tanh(isa_name):
    x = samples(-9, 1e4)
    want = REFERENCES["gelu_tanh"](x.astype("float64"))
    np.testing.assert_allclose(evaluate("gelu_tanh", x, isa_name), want, rtol=2e-5, atol=1e-30)


@every_isa
@pytest.mark.parametrize("name", ["hard_sigmoid", "hard_swish"])
def test_hard_functions(isa_name, name):
    x = samples(-1e6, 1e6)
    want = REFERENCES[name](x.astype("float64"))
    # Near -3 the difference of two numbers of about 1/2 is left.
    np.testing.assert_allclose(evaluate(name, x, isa_name), want, rtol=2e-7, atol=2e-7 * 4)


@every_isa
def test_magnitudes_never_exceed_one(isa_name):
    x = samples()
    for name in ("tanh", "erf", "sigmoid", "hard_sigmoid"):
        assert np.abs(evaluate(name, x, isa_name)).max() == 1, name


@every_isa
def test_results_too_small_are_zero(isa_name):
    # Flushed below the smallest normal number; never negative, never anything larger.
    x = samples(-MAX, -87.34)
    for name in ("exp", "exp_nonpositive"):
        assert not evaluate(name, x, isa_name).any()
    assert not evaluate("exp2", samples(-MAX, -126.01), isa_name).any()
    for name in ("sigmoid", "softplus"):
        assert np.abs(evaluate(name, x, isa_name)).max() <= 2 * TINY, name
    for name in ("silu", "mish", "gelu", "gelu_tanh"):
        assert np.abs(evaluate(name, samples(-3e38, -105), isa_name)).max() < 1e-6, name


INF, NAN = np.inf, np.nan
# At -infinity, at infinity.
LIMITS = {
    "exp": (0, INF),
    "exp_nonpositive": (0, None),
    "exp2": (0, INF),
    "expm1": (-1, INF),
    "cosh": (INF, INF),
    "sinh": (-INF, INF),
    "log": (NAN, INF),
    "sigmoid": (0, 1),
    "silu": (None, INF),
    "tanh": (-1, 1),
    "erf": (-1, 1),
    "gelu": (0, INF),
    "gelu_tanh": (None, INF),
    "softplus": (0, INF),
    "mish": (None, INF),
    "elu": (-1, INF),
    "scaled_elu": (-0.5, INF),
    "hard_sigmoid": (0, 1),
    "hard_swish": (None, INF),
}


@every_isa
@pytest.mark.parametrize("name", LIMITS)
def test_infinities_and_nan(isa_name, name):
    got = evaluate(name, np.array([-INF, INF, NAN, -NAN], "float32"), isa_name)
    for value, want in zip(got[:2], LIMITS[name], strict=True):
        if want is not None:
            np.testing.assert_allclose(value, want, rtol=1e-6, atol=1e-6)
    assert np.isnan(got[2:]).all(), "NaN must stay NaN"


@every_isa
def test_overflow_is_infinite(isa_name):
    for name, least in {"exp": 88.73, "exp2": 128, "expm1": 88.73, "cosh": 89.5, "sinh": 89.5}.items():
        assert np.isposinf(evaluate(name, samples(least, MAX), isa_name)).all(), name


@every_isa
def test_log_of_zero_and_below(isa_name):
    got = evaluate("log", np.array([0, -0.0, -1e-45, -1, -MAX], "float32"), isa_name)
    assert np.isneginf(got[:2]).all() and np.isnan(got[2:]).all()


@pytest.mark.parametrize("exponent", [0, 0.5, 1, 1.5, 2, 3, 7, 16, -0.5, -1, -2, -3.5])
def test_power(exponent):
    x = samples(1e-2, 1e2)
    executable = tvm.compile(build(lambda v: math.power(v, exponent), isa_of(WIDEST).lanes, 1 << 10), target_of(WIDEST))
    x = np.resize(x[:: x.size // (1 << 10)], 1 << 10)
    out = tvm.runtime.tensor(np.zeros(1 << 10, "float32"))
    executable["main"](tvm.runtime.tensor(x), out)
    np.testing.assert_allclose(out.numpy(), x.astype("float64") ** exponent, rtol=2e-6)


def test_power_of_a_negative_number():
    executable = tvm.compile(build(lambda v: math.power(v, 3), 1, 4), target_of(WIDEST))
    out = tvm.runtime.tensor(np.zeros(4, "float32"))
    executable["main"](tvm.runtime.tensor(np.array([-2, 2, 0, NAN], "float32")), out)
    np.testing.assert_array_equal(out.numpy(), [-8, 8, 0, NAN])


@pytest.mark.parametrize("exponent", [1 / 3, 17, 0.25, -16.5, INF, NAN])
def test_other_powers_are_left_alone(exponent):
    assert math.power(tvm.tirx.Var("x", "float32"), exponent) is None


def test_only_float32_is_taken():
    for dtype in ("float64", "float16", "int32"):
        with pytest.raises(TypeError, match=dtype):
            math.exp(tvm.tirx.Var("x", dtype))


@every_isa
@pytest.mark.parametrize("name", REFERENCES)
def test_code_is_vectors_without_calls(isa_name, name):
    # The code, not the claim: no function of libm, and results stored as whole vectors.
    isa = isa_of(isa_name)
    text = compiled(name, isa_name, isa.lanes).mod.inspect_source("ll")
    calls = {line.split("@")[1].split("(")[0] for line in text.splitlines() if " call " in line and "@" in line}
    foreign = {c for c in calls if not c.startswith(("llvm.", "__tvm", "TVM", "main", "\"TVM"))}
    assert not foreign
    assert any(f"store <{isa.lanes} x {kind}>" in text for kind in ("float", "i32"))
