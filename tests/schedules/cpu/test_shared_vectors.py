"""Layers of a batch whose images share vectors, against numpy; lanes that nobody uses hold NaN."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from tvm_sparse.layout.geometry import Geometry
from tvm_sparse.layout.halo import Window
from tvm_sparse.plan.pack_blocks import pack_blocks
from tvm_sparse.plan.pack_columns import pack_dense, pack_sparse
from tvm_sparse.plan.pack_depthwise import pack_depthwise
from tvm_sparse.plan.pack_pixels import pack_pixels
from tvm_sparse.plan.pack_pool import pack_max_pool
from tvm_sparse.schedules.cpu.depthwise_columns import DepthwiseColumns
from tvm_sparse.schedules.cpu.epilogue import Activation

from .compiled import call_layer, every_isa, every_tiled_isa, isa_of
from .convolutions import LAYOUTS, Case, check
from .reference import windows

SAME = Window((3, 3), padding=(1, 1, 1, 1))
WINDOWS = {
    "3x3": SAME,
    "1x1": Window((1, 1)),
    "stride 2": Window((3, 3), (2, 2), padding=(0, 1, 1, 1)),
    "dilation": Window((2, 3), (1, 1), (3, 2), (2, 1, 2, 3)),
}
PACKERS = {
    "unstructured": pack_sparse,
    "dense": pack_dense,
    "output channels in the lanes": pack_pixels,
    "block 4x1": partial(pack_blocks, shape=(4, 1)),
    "block 1x4": partial(pack_blocks, shape=(1, 4)),
}
# Images in a vector of the input and of the output.
IMAGES = [(1, 2), (2, 2), (2, 4), (1, 4)]


@every_isa
@pytest.mark.parametrize("images", IMAGES, ids=str)
@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("packer", PACKERS)
def test_formats(isa_name, packer, name, images):
    case = Case((8, 8, 7, 6), 16, WINDOWS[name])
    check(PACKERS[packer], isa_name, case, images=images, activation=Activation("clip", (0.0, 6.0)), residual=True)


@every_isa
@pytest.mark.parametrize("packer", ["unstructured", "dense"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_plain_images(isa_name, layout, packer):
    case = Case((8, 3, 9, 6), 5, WINDOWS["stride 2"])
    check(PACKERS[packer], isa_name, case, images=(1, 4), image=LAYOUTS[layout])


@every_tiled_isa
@pytest.mark.parametrize("window", [SAME, Window((5, 5), padding=(2, 2, 2, 2))], ids=["3x3", "5x5"])
@pytest.mark.parametrize("images", [2, 4, 8])
def test_depthwise_in_registers(isa_name, images, window):
    case = Case((8, 5, 7, 8), 5, window, 5)
    packed = check(pack_depthwise, isa_name, case, tile=(1, 4), source_tile=(1, 4), images=(images, images))
    assert isinstance(packed.kernel, DepthwiseColumns)


@every_isa
@pytest.mark.parametrize("images", IMAGES, ids=str)
@pytest.mark.parametrize("stride", [1, 2])
def test_max_pooling(isa_name, images, stride):
    isa, window = isa_of(isa_name), Window((3, 3), (stride, stride), padding=(1, 1, 1, 1))
    x = -1 - np.random.default_rng(0).random((8, 5, 7, 6), "float32")
    source, target = (
        Geometry(8, *size, isa.lanes, (1, isa.lanes // 4), (2, 2), n)
        for size, n in zip([(7, 6), window.output_size(7, 6)], images, strict=True)
    )
    packed = pack_max_pool(window, source, target, 5, isa)
    out = call_layer(packed, isa_name, [source.pack(x, fill=np.nan)], target.shape(5))
    np.testing.assert_array_equal(target.unpack(out), windows(x, window, -np.inf).max((2, 3)).astype("float32"))
