"""Dense convolutions with output channels in the lanes, against numpy."""

import pytest

from tvm_sparse.plan.pack_pixels import pack_pixels
from tvm_sparse.schedules.cpu.epilogue import Activation

from .compiled import WIDEST, every_isa, isa_of
from .convolutions import CASES, POINTWISE, Case, check, with_image

UNGROUPED = [name for name, case in CASES.items() if case.groups == 1]
UNGROUPED_POINTWISE = [name for name, case in POINTWISE.items() if case.groups == 1]


def widened(case: Case, isa_name: str, vectors: int = 1) -> Case:
    """The same layer with output channels that fill vectors."""
    lanes = isa_of(isa_name).lanes
    return Case(case.image, max(vectors, -(-case.outputs // lanes)) * lanes, case.window)


@every_isa
@pytest.mark.parametrize("name", UNGROUPED)
def test_windows(isa_name, name):
    check(pack_pixels, isa_name, widened(CASES[name], isa_name), "none")


@every_isa
@pytest.mark.parametrize("name", UNGROUPED_POINTWISE)
def test_pixels_in_place(isa_name, name):
    check(pack_pixels, isa_name, widened(POINTWISE[name], isa_name), "none")


@every_isa
@pytest.mark.parametrize("vectors", range(1, 9))
def test_every_rest_of_vectors(isa_name, vectors):
    check(pack_pixels, isa_name, widened(POINTWISE["1x1"], isa_name, vectors), "none")


@every_isa
@pytest.mark.parametrize("zeros", ["all", "80 %", "one full row"])
def test_zeros_are_weights_too(isa_name, zeros):
    check(pack_pixels, isa_name, widened(CASES["several K-blocks"], isa_name), zeros)


@every_isa
@pytest.mark.parametrize("kind", ["clip", "leaky_relu", "silu"])
@pytest.mark.parametrize("name", ["several K-blocks", "batch"])
def test_epilogue_and_residual(isa_name, name, kind):
    parameters = {"clip": (0.0, 6.0), "leaky_relu": (0.1,), "silu": ()}[kind]
    activation = Activation(kind, parameters)
    check(pack_pixels, isa_name, widened(CASES[name], isa_name), "none", activation=activation, residual=True)
    check(pack_pixels, isa_name, widened(POINTWISE[name], isa_name), "none", activation=activation, residual=True)


@pytest.mark.parametrize("tile", [(1, 1), (7, 1), (2, 3)], ids=str)
@pytest.mark.parametrize("size", [(7, 7), (14, 14), (5, 9), (1, 1)], ids=str)
def test_sizes_of_images(tile, size):
    for case in (CASES["3x3"], CASES["stride 2"], POINTWISE["prime sizes"]):
        image = with_image(case, 2, case.image[1], *size)
        check(pack_pixels, WIDEST, widened(image, WIDEST, 5), "none", tile=tile)


def test_many_outputs_are_cut_into_chunks():
    lanes = isa_of(WIDEST).lanes
    packed = check(pack_pixels, WIDEST, Case((1, 3, 8, 12), 130 * lanes, CASES["3x3"].window), "none")
    # Chunks, the second field of the table, keep the sums in their buffer.
    assert packed.arrays[-1][1] > 1
