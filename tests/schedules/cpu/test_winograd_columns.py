"""Dense convolutions by fast algorithms, against numpy."""

from functools import partial

import numpy as np
import pytest

from tvm_sparse.layout.halo import Window
from tvm_sparse.plan.pack_winograd import kernel_of, pack_winograd
from tvm_sparse.schedules.cpu.epilogue import Activation
from tvm_sparse.schedules.cpu.winograd_columns import square_places

from .compiled import WIDEST, every_isa
from .convolutions import CASES, Case, check, with_image

# Windows of 3x3 whose layers one kernel serves.
SQUARES = [
    name
    for name, case in CASES.items()
    if case.groups == 1 and case.window.kernel == (3, 3) and case.window.stride == case.window.dilation == (1, 1)
]


def pack(layer, source, target, isa, outputs=(2, 2), strip=4):
    return pack_winograd(layer, source, target, isa, kernel_of(layer, target.tile, outputs, strip))


@every_isa
@pytest.mark.parametrize("name", SQUARES)
def test_windows_of_3x3(isa_name, name):
    check(pack, isa_name, CASES[name], "none")


@every_isa
@pytest.mark.parametrize(
    ("name", "tile", "outputs"),
    [
        ("7x7, stride 2", (2, 7), (2, 4)),
        ("stride 2, odd, asymmetric", (3, 3), (3, 2)),
        ("prime sizes, asymmetric padding", (3, 3), (2, 3)),
        ("one row", (1, 5), (1, 4)),
        ("one column", (5, 1), (4, 1)),
    ],
)
def test_algorithms(isa_name, name, tile, outputs):
    check(partial(pack, outputs=outputs), isa_name, CASES[name], "none", tile=tile, slack=4)


@every_isa
@pytest.mark.parametrize("zeros", ["all", "80 %", "one full row"])
def test_zeros_are_weights_too(isa_name, zeros):
    check(pack, isa_name, CASES["several K-blocks"], zeros)


@every_isa
@pytest.mark.parametrize("kind", ["clip", "leaky_relu"])
def test_epilogue_and_residual(isa_name, kind):
    activation = Activation(kind, {"clip": (0.0, 6.0), "leaky_relu": (0.1,)}[kind])
    for name in ("several K-blocks", "batch"):
        check(pack, isa_name, CASES[name], "none", activation=activation, residual=True)


def test_many_outputs_are_cut_into_chunks():
    wide = Case((1, 2, 4, 4), 200, CASES["3x3"].window)
    packed = check(pack, WIDEST, wide, "none")
    assert packed.arrays[-1][1] > 1


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 7), (5, 19)], ids=str)
def test_sizes_of_images(size):
    check(pack, WIDEST, with_image(CASES["3x3"], 2, 5, *size), "none")


def test_images_of_one_sign():
    """Inputs that do not cancel, as after a ReLU, keep the bound too."""
    case = Case((1, 64, 8, 8), 8, Window((3, 3), padding=(1, 1, 1, 1)))
    check(pack, WIDEST, case, "none", inputs_of=np.abs)


def test_squares_overlap_where_they_do_not_divide_a_tile():
    assert square_places(4, 7) == (0, 3) and square_places(2, 6) == (0, 2, 4) and square_places(1, 3) == (0, 1, 2)
