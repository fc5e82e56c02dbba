"""Dense convolutions over columns, against numpy."""

import pytest

from tvm_sparse.layout.halo import Window
from tvm_sparse.plan.pack_columns import pack_dense
from tvm_sparse.schedules.cpu.epilogue import Activation

from .compiled import WIDEST, every_isa
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
