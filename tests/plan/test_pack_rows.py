"""Linear layers on plain rows: the packed arrays, run in numpy."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.plan.columns_in_numpy import Table, activate
from tests.sparsity.weights import pruned
from tvm_sparse.layout.halo import Window
from tvm_sparse.plan.layer import Convolution, PackedLayer
from tvm_sparse.plan.pack_rows import pack_rows
from tvm_sparse.schedules.cpu import linear_rows
from tvm_sparse.schedules.cpu.epilogue import Activation
from tvm_sparse.schedules.cpu.isa import AVX2, AVX512, GENERIC

FINITE = ("random", "zero", "dense", "one full row", "one nonzero", "empty rows")
SIZES = st.sampled_from([1, 2, 5, 7, 31, 64, 130])
WEIGHTS = st.tuples(SIZES, SIZES).flatmap(lambda shape: pruned((*shape, 1, 1), FINITE))
ACTIVATIONS = st.sampled_from([Activation(), Activation("clip", (0.0, 1.0)), Activation("prelu")])


def run_rows(packed: PackedLayer, layer: Convolution, x: np.ndarray, residual, width: int) -> np.ndarray:
    """The kernels of :mod:`tvm_sparse.schedules.cpu.linear_rows`."""
    sparse = isinstance(packed.kernel, linear_rows.SparseRows)
    fields = linear_rows.SPARSE_FIELDS if sparse else linear_rows.DENSE_FIELDS
    table = Table(packed.arrays[-1], fields)
    numbers = packed.arrays[-2].astype("float64")
    outputs, strips = table.scalar("outputs"), table.scalar("strips")
    assert (table.scalar("rows"), table.scalar("depth")) == x.shape
    y = np.full((len(x), outputs), np.nan)
    size = -(-outputs // strips) if sparse else width
    for strip in range(strips):
        for channel in range(strip * size, min((strip + 1) * size, outputs)):
            if sparse:
                at = slice(*table.array("pointers", outputs + 1)[channel : channel + 2])
                sums = x[:, packed.arrays[1][at]] @ packed.arrays[0][at]
            else:
                sums = x @ packed.arrays[0].reshape(strips, -1, width)[strip, :, channel - strip * size]
            sums = sums + numbers[channel] + (0 if residual is None else residual[:, channel])
            slopes = numbers[2 * outputs + 4 :]
            y[:, channel] = activate(layer.activation, sums, slopes[channel] if len(slopes) else 0.0)
    return y


@given(WEIGHTS, st.integers(1, 4), st.booleans(), st.booleans(), ACTIVATIONS, st.sampled_from([AVX2, AVX512, GENERIC]))
def test_rows(weight, rows, sparse, residual, activation, isa):
    rng = np.random.default_rng(0)
    outputs, depth = weight.shape[:2]
    slopes = rng.random(outputs).astype("float32") if activation.kind == "prelu" else None
    bias = rng.standard_normal(outputs).astype("float32")
    layer = Convolution(weight, bias, Window((1, 1)), 1, activation, slopes, residual)
    packed = pack_rows(layer, rows, 3, sparse, isa)
    assert (packed.kernel.rank, packed.kernel.residual) == (3, residual)
    assert packed.nbytes == sum(array.nbytes for array in packed.arrays)
    x, added = rng.standard_normal((rows, depth)), rng.standard_normal((rows, outputs)) if residual else None
    sums = x @ weight[:, :, 0, 0].T.astype("float64") + bias + (added if residual else 0)
    wanted = activate(activation, sums, 0.0 if slopes is None else slopes)
    got = run_rows(packed, layer, x, added, linear_rows.STRIP_VECTORS * isa.lanes)
    np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-5)
