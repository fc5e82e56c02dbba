"""Layers that read plain images, against numpy."""

from functools import partial

import numpy as np
import pytest

from tvm_sparse.layout.geometry import Geometry
from tvm_sparse.layout.halo import Window
from tvm_sparse.plan.layer import Convolution
from tvm_sparse.plan.pack import pack_image_layer
from tvm_sparse.plan.pack_columns import pack_dense, pack_sparse
from tvm_sparse.plan.pack_winograd import kernel_of, pack_winograd
from tvm_sparse.schedules.cpu.epilogue import Activation

from .compiled import WIDEST, every_isa, isa_of
from .convolutions import CASES, LAYOUTS, Case, check

PACKERS = {"dense": (pack_dense, "none"), "unstructured": (pack_sparse, "80 %")}
# Channels side by side must all be in one K-block.
FEW_CHANNELS = [name for name, case in CASES.items() if case.groups == 1 and case.image[1] <= 9]
MANY_CHANNELS = [name for name, case in CASES.items() if case.groups == 1 and case.image[1] > 9]


@every_isa
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", FEW_CHANNELS)
@pytest.mark.parametrize("packer", PACKERS)
def test_convolutions(isa_name, packer, name, layout):
    pack, zeros = PACKERS[packer]
    check(pack, isa_name, CASES[name], zeros, image=LAYOUTS[layout])


@every_isa
@pytest.mark.parametrize("name", MANY_CHANNELS)
@pytest.mark.parametrize("packer", PACKERS)
def test_many_channels(isa_name, packer, name):
    pack, zeros = PACKERS[packer]
    check(pack, isa_name, CASES[name], zeros, image=LAYOUTS["channels first"])


@every_isa
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("name", "tile"), [("3x3", (2, 2)), ("7x7, stride 2", (2, 7)), ("batch", (2, 2))])
def test_fast_algorithms(isa_name, name, tile, layout):
    def pack(layer, source, target, isa, image):
        return pack_winograd(layer, source, target, isa, kernel_of(layer, target.tile, (2, 2), 4), image)

    check(pack, isa_name, CASES[name], "none", tile=tile, image=LAYOUTS[layout], slack=4)


@every_isa
def test_epilogue_and_residual(isa_name):
    relu = Activation("clip", (0.0, 6.0))
    check(pack_dense, isa_name, CASES["batch"], "none", activation=relu, residual=True, image=LAYOUTS["channels last"])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("grid", [(1, 1), (3, 2), (2, 5)], ids=str)
def test_unused_lanes(grid, layout):
    check(pack_dense, WIDEST, CASES["stride 2, odd, asymmetric"], "none", grid=grid, image=LAYOUTS[layout])


@every_isa
def test_formats_that_read_images(isa_name):
    isa = isa_of(isa_name)
    geometry = Geometry(1, 20, 20, isa.lanes, (2, 2), (2, 2))

    def pack(format_: str, channels: int, layout: str, groups: int = 1):
        # Outputs that fill no vector: where they do, a kernel that reads columns alone has them in its lanes.
        outputs = isa.lanes // 2
        weight = np.ones((outputs, channels // groups, 3, 3), np.float32)
        layer = Convolution(weight, np.zeros(outputs, np.float32), Window((3, 3), padding=(1, 1, 1, 1)), groups)
        return pack_image_layer(format_, layer, geometry, geometry, isa, LAYOUTS[layout](channels, 20, 20))

    read = partial(pack, channels=4)
    assert all(read(format_, layout=layout).kernel.image for format_ in PACKERS for layout in LAYOUTS)
    many = 4800 // isa.lanes  # channels that fill more than a K-block
    assert pack("dense", many, "channels first") is not None and pack("dense", many, "channels last") is None
    assert read("block 4x1", layout="channels first") is None
    assert pack("dense", 4, "channels first", groups=2) is None


def test_kernels_say_what_they_take():
    case: Case = CASES["3x3"]
    plain = check(pack_dense, WIDEST, case, "none", image=LAYOUTS["channels first"]).kernel
    columns = check(pack_dense, WIDEST, case, "none").kernel
    assert plain.unaligned_arguments == plain.view_arguments == (0,) and "image" in plain.symbol(isa_of(WIDEST))
    assert columns.unaligned_arguments == columns.view_arguments == ()
