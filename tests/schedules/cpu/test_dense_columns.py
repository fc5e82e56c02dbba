"""Dense convolutions over columns, against numpy."""

import pytest

from tvm_sparse.layout.halo import Window
from tvm_sparse.plan import pack_columns
from tvm_sparse.plan.pack_columns import pack_dense
from tvm_sparse.schedules.cpu.epilogue import Activation
from tvm_sparse.schedules.cpu.tile import pieces, row_sizes

from .compiled import WIDEST, every_isa, isa_of
from .convolutions import CASES, POINTWISE, Case, check, with_image

RELU6 = Activation("clip", (0.0, 6.0))


@every_isa
@pytest.mark.parametrize("name", CASES)
def test_windows(isa_name, name):
    check(pack_dense, isa_name, CASES[name], "none")


@every_isa
@pytest.mark.parametrize("name", POINTWISE)
def test_pixels_in_place(isa_name, name):
    check(pack_dense, isa_name, POINTWISE[name], "none")


@every_isa
@pytest.mark.parametrize("outputs", range(1, 14))
def test_every_rest_of_rows(isa_name, outputs):
    # Strips of 6, 4, 2 and 1 rows, in every combination.
    check(pack_dense, isa_name, Case((1, 3, 5, 4), outputs, Window((1, 1))), "none")


@every_isa
@pytest.mark.parametrize("zeros", ["all", "80 %", "one full row"])
def test_zeros_are_weights_too(isa_name, zeros):
    check(pack_dense, isa_name, CASES["several K-blocks"], zeros)


@every_isa
@pytest.mark.parametrize("name", ["several K-blocks", "groups of many channels", "batch", "many outputs"])
def test_residual_and_activation_after_the_last_block(isa_name, name):
    check(pack_dense, isa_name, CASES[name], "none", activation=RELU6, residual=True)


@every_isa
@pytest.mark.parametrize("name", ["several K-blocks", "one pixel"])
def test_residual_in_place(isa_name, name):
    check(pack_dense, isa_name, POINTWISE[name], "none", activation=RELU6, residual=True)


@pytest.mark.parametrize("tile", [(1, 1), (5, 1)], ids=str)
def test_tiles(tile):
    # Cut into pieces of at most four vectors; five give pieces of two and three.
    check(pack_dense, WIDEST, CASES["prime sizes, asymmetric padding"], "none", tile=tile)
    check(pack_dense, WIDEST, with_image(POINTWISE["1x1"], 2, 5, 9, 17), "none", tile=tile)


@every_isa
@pytest.mark.parametrize("near", [0, 1 << 20])
def test_weights_are_fetched_where_vectors_are_long_or_weights_many(monkeypatch, isa_name, near):
    monkeypatch.setattr(pack_columns, "_NEAR_BYTES", near)
    kernel = check(pack_dense, isa_name, POINTWISE["several K-blocks"], "none").kernel
    assert kernel.streamed == (isa_of(isa_name).lanes == 16 or not near)
    assert kernel.symbol(isa_of(isa_name)).count("_cached") == (not kernel.streamed)


@pytest.mark.parametrize("tile", [(3, 4), (2, 7), (3, 1)], ids=str)
def test_rows_and_vectors_of_a_tile_fit_the_registers(tile):
    vectors = tile[0] * tile[1]
    for name in ("avx2", "avx512"):
        isa = isa_of(name)
        for rows in row_sizes(isa, vectors):
            # Beside the sums, the vectors at hand and a weight.
            assert all(rows * len(p) + len(p) + 1 <= isa.registers for p in pieces(isa, rows, vectors))
    # Pieces of three vectors leave no rest of twelve.
    assert {len(p) for p in pieces(isa_of("avx2"), row_sizes(isa_of("avx2"), 12)[0], 12)} == {3}
