"""Input-stationary depth-wise convolutions over columns, against numpy; others are left to the sparse kernel."""

import pytest

from tvm_sparse.layout.halo import Window
from tvm_sparse.plan.pack_depthwise import pack_depthwise
from tvm_sparse.schedules.cpu.depthwise_columns import DepthwiseColumns
from tvm_sparse.schedules.cpu.epilogue import Activation
from tvm_sparse.schedules.cpu.isa import AVX2, AVX512
from tvm_sparse.schedules.cpu.sparse_columns import SparseColumns
from tvm_sparse.schedules.cpu.window_tile import WindowTile, window_of_tile

from .compiled import TILED, every_isa, every_tiled_isa, isa_of
from .convolutions import Case, check

if not TILED:
    pytest.skip("no instruction set has the kernel", allow_module_level=True)

SAME = Window((3, 3), padding=(1, 1, 1, 1))
RELU6 = Activation("clip", (0.0, 6.0))
CASES = {
    "filled": (Case((1, 5, 16, 12), 5, SAME, 5), (4, 3), (4, 4)),
    "several panels": (Case((1, 7, 32, 24), 7, SAME, 7), (4, 3), (4, 4)),
    "batch": (Case((3, 4, 16, 16), 4, SAME, 4), (2, 2), (4, 4)),
    "one channel": (Case((1, 1, 8, 8), 1, SAME, 1), (2, 2), (4, 4)),
    "not filled": (Case((2, 6, 7, 7), 6, SAME, 6), (2, 2), (4, 4)),
    "unused lanes": (Case((1, 9, 14, 14), 9, SAME, 9), (2, 7), (7, 2)),
    "5x5": (Case((1, 5, 16, 16), 5, Window((5, 5), padding=(2, 2, 2, 2)), 5), (4, 1), (4, 4)),
    "1x5": (Case((1, 5, 4, 32), 5, Window((1, 5), padding=(0, 2, 0, 2)), 5), (1, 8), (4, 4)),
    "lopsided": (Case((1, 5, 16, 16), 5, Window((3, 3), padding=(0, 2, 2, 0)), 5), (2, 4), (4, 4)),
    "lanes across": (Case((1, 3, 6, 64), 3, SAME, 3), (3, 4), (1, 16)),
    "stride 2": (Case((2, 5, 32, 32), 5, Window((3, 3), (2, 2), padding=(1, 1, 1, 1)), 5), (2, 2), (4, 4)),
    "stride 2, SAME": (Case((1, 5, 32, 16), 5, Window((3, 3), (2, 2), padding=(0, 0, 1, 1)), 5), (4, 1), (4, 4)),
    "stride 2x1": (Case((1, 5, 32, 16), 5, Window((5, 3), (2, 1), padding=(2, 1, 2, 1)), 5), (4, 1), (4, 4)),
    "stride 2, 5x5": (Case((1, 5, 32, 16), 5, Window((5, 5), (2, 2), padding=(1, 2, 2, 1)), 5), (2, 2), (4, 4)),
    "stride 2, not filled": (Case((1, 5, 28, 32), 5, Window((3, 3), (2, 2), padding=(1, 1, 1, 1)), 5), (4, 2), (4, 4)),
    "stride 2, few lanes": (Case((1, 5, 28, 28), 5, Window((3, 3), (2, 2), padding=(0, 0, 1, 1)), 5), (2, 1), (7, 2)),
    "stride 3": (Case((1, 5, 24, 24), 5, Window((2, 2), (3, 3)), 5), (2, 1), (4, 4)),
    "inner panels": (Case((2, 7, 48, 48), 7, SAME, 7), (4, 3), (4, 4)),
    "inner panels, 5x5": (Case((1, 3, 64, 64), 3, Window((5, 5), padding=(2, 2, 2, 2)), 3), (4, 2), (4, 4)),
    "inner, stride 2": (Case((1, 5, 96, 96), 5, Window((3, 3), (2, 2), padding=(1, 1, 1, 1)), 5), (4, 3), (4, 4)),
    "many channels": (Case((1, 131, 8, 8), 131, SAME, 131), (2, 2), (4, 4)),
}


def check_case(isa_name, name, **options):
    case, tile, grid = CASES[name]
    return check(pack_depthwise, isa_name, case, "none", tile=tile, grid=grid, source_tile=tile, **options)


@every_tiled_isa
@pytest.mark.parametrize("activation", [Activation(), Activation("clip", (0.0, float("inf"))), RELU6], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_against_numpy(isa_name, name, activation):
    packed = check_case(isa_name, name, activation=activation)
    assert isinstance(packed.kernel, DepthwiseColumns)


@every_tiled_isa
def test_a_loop_of_their_own_for_inner_panels(isa_name):
    """Panels of large images whose windows cross no border of subimages move no lanes."""
    inner = [name for name in CASES if name.startswith("inner")]
    for name in (*inner, "filled", "not filled", "one channel"):
        kernel = check_case(isa_name, name).kernel
        assert kernel.inner == (name in inner), name
        assert ("_inner_" in kernel.symbol(isa_of(isa_name))) == kernel.inner


@every_tiled_isa
def test_own_vectors_of_strides(isa_name):
    """Lanes are only moved at the borders of subimages, where the image fills them, however many lanes there are."""
    for name, moved in (("stride 2", 9), ("stride 2, SAME", 11), ("stride 2, not filled", 29)):
        packed = check_case(isa_name, name)
        assert sum(place.lane is not None for place in packed.kernel.places) == moved, name


@pytest.mark.parametrize(("tile", "kernel", "stride", "by_rows", "sums"), [
    ((2, 7), (3, 3), (1, 1), False, 6), ((7, 2), (3, 3), (1, 1), True, 6), ((2, 7), (5, 5), (1, 1), False, 10),
    ((2, 7), (3, 3), (2, 2), False, 4), ((1, 7), (3, 3), (1, 1), False, 3),
])  # fmt: skip
def test_few_registers_hold_few_sums(tile, kernel, stride, by_rows, sums):
    """The window is read along the axis that begins fewest outputs before it finishes others."""
    order = window_of_tile(tile, kernel, stride, AVX2.registers)
    assert sorted(order, key=lambda place: place if by_rows else place[::-1]) == list(order)
    assert WindowTile(tile, kernel, stride, ()).sums(AVX2) == sums
    assert WindowTile(tile, kernel, stride, ()).sums(AVX512) == tile[0] * tile[1]


OTHERS = {
    "dilation": Case((1, 5, 16, 16), 5, Window((3, 3), (1, 1), (2, 2), (2, 2, 2, 2)), 5),
    "two outputs a channel": Case((1, 5, 16, 16), 10, SAME, 5),
    "many taps": Case((1, 3, 16, 16), 3, Window((7, 7), padding=(3, 3, 3, 3)), 3),
}


@every_tiled_isa
def test_strides_between_unaligned_subimages_are_left_to_windows(isa_name):
    case = Case((1, 5, 28, 28), 5, Window((3, 3), (2, 2), padding=(1, 1, 1, 1)), 5)
    grids = {"tile": (2, 7), "grid": (7, 2), "source_tile": (7, 1), "source_grid": (4, 4)}
    packed = check(pack_depthwise, isa_name, case, "none", **grids)
    assert isinstance(packed.kernel, SparseColumns)


@every_isa
@pytest.mark.parametrize("name", OTHERS)
def test_others_are_sparse_layers(isa_name, name):
    packed = check(pack_depthwise, isa_name, OTHERS[name], "none", tile=(2, 2), source_tile=(2, 2))
    assert isinstance(packed.kernel, SparseColumns)


@every_tiled_isa
def test_images_that_do_not_fill_their_subimages(isa_name):
    # 13 pixels on subimages of four or eight: the last one is short, and its ring lies outside of the image.
    case = Case((1, 3, 13, 13), 3, SAME, 3)
    packed = check(pack_depthwise, isa_name, case, "none", tile=(2, 2), grid=(4, 4), source_tile=(2, 2))
    assert isinstance(packed.kernel, DepthwiseColumns)


@every_tiled_isa
def test_sums_beyond_the_registers_are_left_to_the_sparse_kernel(isa_name):
    """Windows of five rows and columns begin all 16 outputs of a panel before they finish one."""
    case = CASES["5x5"][0]
    packed = check(pack_depthwise, isa_name, case, "none", tile=(4, 4), grid=(4, 4), source_tile=(4, 4))
    assert isinstance(packed.kernel, DepthwiseColumns if isa_of(isa_name).registers >= 32 else SparseColumns)


@every_tiled_isa
def test_residual_is_left_to_the_sparse_kernel(isa_name):
    packed = check_case(isa_name, "filled", residual=True)
    assert isinstance(packed.kernel, SparseColumns)
