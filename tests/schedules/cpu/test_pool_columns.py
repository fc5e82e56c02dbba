"""Max pooling over columns, against numpy."""

import numpy as np
import pytest

from tvm_sparse.layout.geometry import Geometry
from tvm_sparse.layout.halo import Window
from tvm_sparse.plan.pack_pool import pack_max_pool
from tvm_sparse.schedules.cpu.pool_columns import MaxPoolPanels

from .compiled import call_layer, every_isa, every_tiled_isa, isa_of
from .convolutions import GRIDS
from .reference import windows

CASES = {
    "2x2": ((1, 5, 8, 10), Window((2, 2), (2, 2))),
    "3x3, stride 2, padding": ((2, 3, 13, 11), Window((3, 3), (2, 2), padding=(1, 1, 1, 1))),
    "asymmetric padding": ((1, 3, 8, 9), Window((3, 3), (2, 2), padding=(0, 0, 1, 1))),
    "overlapping": ((1, 7, 7, 7), Window((5, 5), padding=(2, 2, 2, 2))),
    "one channel, one pixel": ((1, 1, 1, 1), Window((1, 1))),
    "image of 2x2 to one pixel": ((3, 2, 2, 2), Window((2, 2))),
    "whole image": ((1, 4, 5, 3), Window((5, 3))),
    "stride larger than the window": ((1, 3, 11, 14), Window((2, 1), (3, 5))),
    "one row": ((1, 3, 1, 29), Window((1, 3), (1, 2), padding=(0, 1, 0, 1))),
    "dilation": ((1, 3, 9, 12), Window((3, 2), (1, 1), (2, 3), (2, 1, 2, 2))),
    "more channels than a block": ((1, 230, 6, 6), Window((3, 3), padding=(1, 1, 1, 1))),
    "batch": ((9, 2, 3, 4), Window((2, 2))),
}


@every_isa
@pytest.mark.parametrize("values", ["any", "negative"])
@pytest.mark.parametrize("name", CASES)
def test_against_numpy(isa_name, name, values):
    shape, window = CASES[name]
    isa = isa_of(isa_name)
    x = np.random.default_rng(0).standard_normal(shape).astype("float32")
    if values == "negative":  # zeros instead of the pad value would win
        x = -np.abs(x) - 1
    target = Geometry(shape[0], *window.output_size(*shape[2:]), isa.lanes, GRIDS[isa.lanes], (2, 2))
    source = Geometry(shape[0], *shape[2:], isa.lanes, GRIDS[isa.lanes], (1, 3))
    packed = pack_max_pool(window, source, target, shape[1], isa)
    out = call_layer(packed, isa_name, [source.pack(x, fill=np.nan)], target.shape(shape[1]))
    want = windows(x, window, -np.inf).max((2, 3)).astype("float32")
    np.testing.assert_array_equal(target.unpack(out), want)


@every_tiled_isa
@pytest.mark.parametrize("window", [
    Window((3, 3), (2, 2), padding=(1, 1, 1, 1)), Window((3, 3), (2, 2), padding=(0, 0, 1, 1)), Window((2, 2), (2, 2)),
    Window((5, 5), padding=(2, 2, 2, 2)),
], ids=str)  # fmt: skip
def test_register_tile(isa_name, window):
    isa = isa_of(isa_name)
    x = -1 - np.random.default_rng(0).random((2, 5, 32, 32), "float32")
    size = window.output_size(32, 32)
    target = Geometry(2, *size, isa.lanes, GRIDS[isa.lanes], (2, 2))
    source = Geometry(2, 32, 32, isa.lanes, GRIDS[isa.lanes], (2, 2) if size == (32, 32) else (4, 2))
    packed = pack_max_pool(window, source, target, 5, isa)
    assert isinstance(packed.kernel, MaxPoolPanels)
    out = call_layer(packed, isa_name, [source.pack(x, fill=np.nan)], target.shape(5))
    np.testing.assert_array_equal(target.unpack(out), windows(x, window, -np.inf).max((2, 3)).astype("float32"))


@every_isa
def test_infinities(isa_name):
    isa = isa_of(isa_name)
    x = np.zeros((1, 1, 4, 4), "float32")
    x[0, 0, 0, 0], x[0, 0, 2:, 2:] = np.inf, -np.finfo("float32").max
    window = Window((2, 2), (2, 2))
    target = Geometry(1, 2, 2, isa.lanes, (1, 1), (2, 2))
    source = Geometry(1, 4, 4, isa.lanes, (2, 2), (1, 3))
    packed = pack_max_pool(window, source, target, 1, isa)
    out = target.unpack(call_layer(packed, isa_name, [source.pack(x)], target.shape(1)))
    np.testing.assert_array_equal(out[0, 0], [[np.inf, 0], [0, -np.finfo("float32").max]])
