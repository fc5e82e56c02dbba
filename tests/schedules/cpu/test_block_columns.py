"""Block-sparse convolutions over columns, against numpy."""

from functools import partial

import numpy as np
import pytest

from tvm_sparse.layout.halo import Window
from tvm_sparse.plan.pack_blocks import block_rows, pack_blocks
from tvm_sparse.schedules.cpu.block_columns import block_pieces
from tvm_sparse.schedules.cpu.epilogue import Activation
from tvm_sparse.schedules.cpu.isa import AVX2, AVX512

from .compiled import WIDEST, every_isa, isa_of
from .convolutions import CASES, POINTWISE, ZEROS, Case, check, with_image

SHAPES = [(4, 1), (8, 1), (1, 4)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)
SIMPLE = CASES["prime sizes, asymmetric padding"]
PATTERNED = {
    "one block": SIMPLE,
    "several K-blocks": Case((1, 152, 5, 6), 11, Window((3, 3), padding=(1, 1, 1, 1))),
    "pixels in place": Case((1, 464, 4, 4), 13, Window((1, 1))),
    "groups": Case((1, 24, 7, 9), 18, Window((3, 3), padding=(1, 1, 1, 1)), 3),
}
RELU6 = Activation("clip", (0.0, 6.0))


def packer(shape):
    return partial(pack_blocks, shape=shape)


@every_isa
@shapes
@pytest.mark.parametrize("name", CASES)
def test_windows(isa_name, shape, name):
    check(packer(shape), isa_name, CASES[name])


@every_isa
@shapes
@pytest.mark.parametrize("name", POINTWISE)
def test_pixels_in_place(isa_name, shape, name):
    check(packer(shape), isa_name, POINTWISE[name])


@every_isa
@shapes
@pytest.mark.parametrize("zeros", [*ZEROS, "rows of blocks apart"])
@pytest.mark.parametrize("name", PATTERNED)
def test_patterns_of_zeros(isa_name, shape, zeros, name):
    packed = check(packer(shape), isa_name, PATTERNED[name], zeros)
    strips = (block_rows(shape[0], isa_of(isa_name)), shape[1])
    assert packed.kernel.shape == ((1, 1) if PATTERNED[name].image[1] % shape[1] else strips)


@every_isa
@shapes
@pytest.mark.parametrize("outputs", range(1, 18))
def test_every_rest_of_rows(isa_name, shape, outputs):
    check(packer(shape), isa_name, Case((1, 8, 5, 4), outputs, Window((1, 1))))


@every_isa
@shapes
@pytest.mark.parametrize("name", ["several K-blocks", "groups", "pixels in place"])
def test_residual_and_activation_after_the_last_block(isa_name, shape, name):
    check(packer(shape), isa_name, PATTERNED[name], activation=RELU6, residual=True)


@shapes
@pytest.mark.parametrize("tile", [(1, 1), (5, 1), (7, 2)], ids=str)
def test_tiles(shape, tile):
    # Cut into pieces that fit the registers; (7, 2) in place is read whole.
    check(packer(shape), WIDEST, SIMPLE, tile=tile)
    check(packer(shape), WIDEST, with_image(PATTERNED["pixels in place"], 1, 64, 29, 31), tile=tile)


@pytest.mark.parametrize("isa", [AVX2, AVX512])
@pytest.mark.parametrize("rows", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("vectors", range(1, 15))
def test_pieces_fit_the_registers(isa, rows, vectors):
    pieces = block_pieces(isa, rows, vectors)
    assert [s for piece in pieces for s in piece] == list(range(vectors))
    sizes = np.array([len(piece) for piece in pieces])
    assert sizes.max() - sizes.min() <= 1
    if rows > 1:
        assert sizes.max() == 1 or (sizes * rows + np.minimum(sizes, rows) < isa.registers).all()
