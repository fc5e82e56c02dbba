"""Every activation, with and without residual, in every kernel family that has an epilogue."""

from itertools import product

import numpy as np
import pytest

from tvm_sparse.layout.geometry import Geometry
from tvm_sparse.layout.halo import Window
from tvm_sparse.plan.layer import Convolution
from tvm_sparse.plan.pack_columns import pack_dense, pack_sparse
from tvm_sparse.plan.pack_rows import pack_rows
from tvm_sparse.schedules.cpu.epilogue import KINDS, Activation, epilogue_array

from .compiled import RUNNABLE, WIDEST, call_layer, isa_of
from .reference import activate

PARAMETERS = {"clip": (0.0, 6.0), "leaky_relu": (0.125,)}
# Channel c's bias: the sums cover what matters to an activation, and values where naive formulas overflow.
BIAS = np.array([-1e30, -2000, -90, -20, -6, -3, -1, -1e-3, 0, 1e-3, 1, 3, 6, 20, 90, 2000, 1e30], "float32")
SLOPES = np.linspace(-0.5, 2, len(BIAS), dtype="float32")
FAMILIES = ("sparse", "dense", "sparse rows", "dense rows")


def run(family: str, isa_name: str, layer: Convolution, x: np.ndarray, residual: list) -> np.ndarray:
    """``[pixels, K]`` and residuals ``[pixels, M]`` through a layer."""
    isa, outputs = isa_of(isa_name), len(layer.bias)
    if family.endswith("rows"):
        packed = pack_rows(layer, len(x), 2, family.startswith("sparse"), isa)
        return call_layer(packed, isa_name, [x, *residual], (len(x), outputs))
    geometry = Geometry(1, 1, len(x), isa.lanes, (1, isa.lanes), (1, 1))
    pack = pack_sparse if family == "sparse" else pack_dense
    arrays = [geometry.pack(a.T[None, :, None]) for a in (x, *residual)]
    out = call_layer(pack(layer, geometry, geometry, isa), isa_name, arrays, geometry.shape(outputs))
    return geometry.unpack(out)[0, :, 0].T


def cases():
    """Every kind and family on the widest instruction set, one family on the others."""
    params = []
    families = [(f, WIDEST) for f in FAMILIES] + [("sparse", n) for n in RUNNABLE[1:]]
    for (family, isa_name), kind, residual in product(families, KINDS, (False, True)):
        name = f"{family}-{isa_name}-{kind}{'-residual' if residual else ''}"
        params.append(pytest.param(family, isa_name, kind, residual, id=name))
    return params


@pytest.mark.parametrize("family, isa_name, kind, residual", cases())
def test_activation(family, isa_name, kind, residual):
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, (7, 1)).astype("float32")
    weight = np.ones((len(BIAS), 1, 1, 1), "float32")
    weight[4] = 0
    activation = Activation(kind, PARAMETERS.get(kind, ()))
    slopes = SLOPES if kind == "prelu" else None
    layer = Convolution(weight, BIAS, Window((1, 1)), 1, activation, slopes, residual)
    others = [rng.uniform(-2, 2, (len(x), len(BIAS))).astype("float32")] if residual else []
    # The sums in float32, so that only the activation's own error is left.
    sums = x * weight[:, 0, 0, 0] + BIAS
    for other in others:
        sums = sums + other
    want = activate(kind, sums, activation.parameters, slopes)
    got = run(family, isa_name, layer, x, others)
    assert np.isfinite(got).all()
    # The sums may be rounded in another order; gelu's error is absolute.
    np.testing.assert_allclose(got, want, rtol=3e-5, atol=2e-6)


@pytest.mark.parametrize("isa_name", [n for n in RUNNABLE if n != "generic"])
@pytest.mark.parametrize("inputs", [5, 60], ids=["rows", "pairs of rows"])
def test_rows_that_fill_up_a_bundle_are_activated_once(isa_name, inputs):
    isa, rng = isa_of(isa_name), np.random.default_rng(0)
    for outputs, vectors in product(range(1, 10), (1, 4)):
        weight = rng.uniform(0.1, 1, (outputs, inputs, 1, 1)).astype("float32")
        layer = Convolution(weight, np.zeros(outputs, "float32"), Window((1, 1)), 1, Activation("sigmoid"))
        geometry = Geometry(1, 1, isa.lanes * vectors, isa.lanes, (1, isa.lanes), (1, vectors))
        packed = pack_sparse(layer, geometry, geometry, isa)
        assert packed.kernel.pairs == (inputs == 60)
        x = rng.uniform(-1, 1, (1, inputs, 1, geometry.width)).astype("float32")
        out = call_layer(packed, isa_name, [geometry.pack(x)], geometry.shape(outputs))
        want = activate("sigmoid", np.einsum("oi,iw->ow", weight[:, :, 0, 0], x[0, :, 0].astype("float64")), ())
        np.testing.assert_allclose(geometry.unpack(out)[0, :, 0], want, rtol=1e-5)


def test_slopes_are_per_channel():
    with pytest.raises(ValueError, match="slope per output channel"):
        epilogue_array(BIAS, Activation("prelu", ()), SLOPES[:-1])
    with pytest.raises(ValueError, match="slope per output channel"):
        epilogue_array(BIAS, Activation("prelu", ()))


def test_unknown_activation_is_refused():
    with pytest.raises(ValueError, match="unknown activation 'cube'"):
        Activation("cube")
