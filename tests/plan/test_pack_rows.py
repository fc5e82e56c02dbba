"""Linear layers on plain rows: the packed arrays, run in numpy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.plan.columns_in_numpy import Table, activate
from tests.sparsity.weights import pruned
from tvm_sparse.layout.halo import Window
from tvm_sparse.plan.layer import Convolution, PackedLayer
from tvm_sparse.plan.pack_rows import pack_rows
from tvm_sparse.schedules.cpu import bitmask_rows, linear_rows
from tvm_sparse.schedules.cpu.epilogue import Activation
from tvm_sparse.schedules.cpu.isa import AVX2, AVX512, GENERIC, Isa

FINITE = ("random", "zero", "dense", "one full row", "one nonzero", "empty rows")
SIZES = st.sampled_from([1, 2, 5, 7, 31, 64, 130])
WEIGHTS = st.tuples(SIZES, SIZES).flatmap(lambda shape: pruned((*shape, 1, 1), FINITE))
GATHERING = replace(AVX512, features=(*AVX512.features, "avx512_bf16"))
ISAS = st.sampled_from([AVX2, AVX512, GATHERING, GENERIC])
ACTIVATIONS = st.sampled_from([Activation(), Activation("clip", (0.0, 1.0)), Activation("prelu")])


def run_rows(packed: PackedLayer, layer: Convolution, x: np.ndarray, residual, isa: Isa) -> np.ndarray:
    """The kernels of :mod:`tvm_sparse.schedules.cpu.linear_rows`."""
    bitmask = isinstance(packed.kernel, bitmask_rows.BitmaskRows)
    sparse = bitmask or isinstance(packed.kernel, linear_rows.SparseRows)
    fields = linear_rows.SPARSE_FIELDS if sparse else linear_rows.DENSE_FIELDS
    table = Table(packed.arrays[-1], fields)
    numbers = packed.arrays[-2].astype("float64")
    outputs, strips = table.scalar("outputs"), table.scalar("strips")
    assert (table.scalar("rows"), table.scalar("depth")) == x.shape
    y = np.full((len(x), outputs), np.nan)
    width = linear_rows.STRIP_VECTORS * isa.lanes
    size = -(-outputs // strips) if sparse else width
    for strip in range(strips):
        for channel in range(strip * size, min((strip + 1) * size, outputs)):
            if bitmask:
                begin, masks = table.array("pointers", outputs + 1)[channel], packed.arrays[1].reshape(outputs, -1)
                there = (masks[channel].astype(int)[:, None] >> np.arange(16) & 1).astype(bool).reshape(-1)
                sums = x[:, there] @ packed.arrays[0][begin : begin + there.sum()]
            elif sparse:
                at = slice(*table.array("pointers", outputs + 1)[channel : channel + 2])
                columns = packed.arrays[1].view(np.uint16)
                assert (at.stop - at.start) % linear_rows.row_unit(isa, packed.kernel.gather) == 0
                sums = x[:, columns[at]] @ packed.arrays[0][at]
            else:
                sums = x @ packed.arrays[0].reshape(strips, -1, width)[strip, :, channel - strip * size]
            sums = sums + numbers[channel] + (0 if residual is None else residual[:, channel])
            slopes = numbers[2 * outputs + 4 :]
            y[:, channel] = activate(layer.activation, sums, slopes[channel] if len(slopes) else 0.0)
    return y


@given(WEIGHTS, st.integers(1, 4), st.booleans(), st.booleans(), ACTIVATIONS, ISAS)
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
    got = run_rows(packed, layer, x, added, isa)
    np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize(
    "isa, zeros, kind",
    [
        (GATHERING, 0.9, "SparseRows"), (GATHERING, 0.7, "SparseRows"), (GATHERING, 0.5, "BitmaskRows"),
        (AVX512, 0.9, "SparseRows"), (AVX512, 0.7, "BitmaskRows"), (AVX2, 0.5, "SparseRows"),
    ],
)  # fmt: skip
def test_masks_where_they_are_faster_than_columns(isa, zeros, kind):
    weight = np.zeros(64 * 256, np.float32)
    weight[: round(weight.size * (1 - zeros))] = 1
    layer = Convolution(weight.reshape(64, 256, 1, 1), np.zeros(64, np.float32), Window((1, 1)))
    assert type(pack_rows(layer, 1, 2, True, isa).kernel).__name__ == kind
    # No mask ends within a vector of inputs.
    ragged = replace(layer, weight=np.ones((64, 255, 1, 1), np.float32))
    assert type(pack_rows(ragged, 1, 2, True, isa).kernel).__name__ == "SparseRows"
