"""Linear layers of a few plain rows, against numpy."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import ndtr

from tvm_sparse.layout.halo import Window
from tvm_sparse.plan.layer import Convolution
from tvm_sparse.plan.pack_rows import pack_rows, use_bitmask
from tvm_sparse.schedules.cpu.epilogue import Activation

from .compiled import RUNNABLE, WIDEST, call_layer, isa_of
from .convolutions import IDENTITY, ZEROS, Case, weights
from .reference import EPS, assert_within

# Kernels by instruction set; only AVX-512 has gathers that are fast somewhere.
KINDS = {"dense": False, "sparse": True, "gather": "gather"}
VARIANTS = [(isa, kind) for isa in RUNNABLE for kind in KINDS if kind != "gather" or isa == "avx512"]
every_kernel = pytest.mark.parametrize(
    "isa_name, sparse", [(isa, KINDS[kind]) for isa, kind in VARIANTS], ids=map("-".join, VARIANTS)
)


FUNCTIONS = {"gelu": lambda x: x * ndtr(x), "tanh": np.tanh, "prelu": lambda x: np.where(x > 0, x, 0.25 * x)}


def check(isa_name, sparse, rows, depth, outputs, zeros="80 %", activation=IDENTITY, residual=False):
    isa = isa_of(isa_name)
    rng = np.random.default_rng(0)
    weight = weights(Case((1, depth, 1, 1), outputs, Window((1, 1))), zeros)
    bias = rng.standard_normal(outputs).astype("float32")
    x = rng.standard_normal((*rows, depth)).astype("float32")
    slopes = np.full(outputs, 0.25, "float32") if activation.kind == "prelu" else None
    layer = Convolution(weight, bias, Window((1, 1)), activation=activation, slopes=slopes, residual=residual)
    if sparse == "gather":
        # Every CPU with AVX-512 has the instruction, though it is only worth its while on some.
        isa = replace(isa, features=(*isa.features, "avx512_bf16"))
    packed = pack_rows(layer, int(np.prod(rows)), x.ndim, bool(sparse), isa)
    if not use_bitmask(int(np.count_nonzero(weight)), outputs, depth, isa):
        assert getattr(packed.kernel, "gather", False) == (sparse == "gather")
    matrix = weight[:, :, 0, 0].T.astype("float64")
    want, inputs = x @ matrix + bias, [x]
    if residual:
        inputs.append(rng.standard_normal(want.shape).astype("float32"))
        want = want + inputs[1]
    out = call_layer(packed, isa_name, inputs, want.shape)
    if activation.kind in FUNCTIONS:
        want = FUNCTIONS[activation.kind](want)
    else:
        want = np.clip(want, *activation.parameters)
    assert_within(out, want, 8 * EPS * (abs(x) @ abs(matrix) + 3))
    return packed


@every_kernel
@pytest.mark.parametrize(
    "rows, depth, outputs",
    [(1, 1, 1), (1, 7, 13), (1, 128, 64), (2, 31, 129), (3, 200, 5), (5, 64, 127), (1, 2048, 17)],
)
def test_sizes(isa_name, sparse, rows, depth, outputs):
    check(isa_name, sparse, (rows,), depth, outputs)


@every_kernel
@pytest.mark.parametrize("zeros", ZEROS)
def test_patterns_of_zeros(isa_name, sparse, zeros):
    check(isa_name, sparse, (2,), 37, 41, zeros)


@every_kernel
def test_residual_and_activation(isa_name, sparse):
    check(isa_name, sparse, (2,), 37, 141, activation=Activation("clip", (-0.5, 1.5)), residual=True)


@every_kernel
@pytest.mark.parametrize("kind", FUNCTIONS)
def test_functions(isa_name, sparse, kind):
    check(isa_name, sparse, (2,), 37, 141, activation=Activation(kind, ()), residual=kind == "gelu")


@every_kernel
def test_three_axes(isa_name, sparse):
    check(isa_name, sparse, (2, 3), 37, 41)


@every_kernel
def test_last_column_of_the_longest_row(isa_name, sparse):
    # Column numbers have 16 bits.
    check(isa_name, sparse, (1,), 1 << 16, 3, "none")


def test_row_that_does_not_fit_16_bits_is_refused():
    weight = np.ones((1, (1 << 16) + 1, 1, 1), "float32")
    layer = Convolution(weight, np.zeros(1, "float32"), Window((1, 1)))
    with pytest.raises(ValueError, match="16-bit"):
        pack_rows(layer, 1, 2, True, isa_of(WIDEST))


@pytest.mark.parametrize("zeros", ["none", "80 %", "all", "one full row", "every count"])
@pytest.mark.parametrize("depth", [16, 48, 128, 464])
def test_masks(monkeypatch, zeros, depth):
    if WIDEST != "avx512":
        pytest.skip("no instruction expands by masks")
    monkeypatch.setattr("tvm_sparse.plan.pack_rows.use_bitmask", lambda *_: True)
    for rows, residual in (((1,), False), ((3,), True)):
        packed = check(WIDEST, True, rows, depth, 41, zeros, Activation("clip", (-0.5, 1.5)), residual)
        assert type(packed.kernel).__name__ == "BitmaskRows"
