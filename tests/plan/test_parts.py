"""Parts of a tile, and rows of panels that share windows."""

from dataclasses import replace

import numpy as np
import pytest

from tests.plan.test_choose import layer_with
from tvm_sparse.layout.geometry import Geometry
from tvm_sparse.layout.halo import Window
from tvm_sparse.layout.table import TableValues
from tvm_sparse.plan import pack_columns
from tvm_sparse.plan.pack_columns import pack_sparse
from tvm_sparse.plan.parts import block_bytes, choose_parts
from tvm_sparse.plan.shared_windows import shared_panels
from tvm_sparse.schedules.cpu.isa import AVX2, AVX512
from tvm_sparse.schedules.cpu.sparse_columns import FIELDS

SERVER = replace(AVX512, l1_bytes=48 * 1024, l2_bytes=2 << 20)
LARGE = Geometry(1, 56, 56, 16, (4, 4), (2, 7))
SMALL = Geometry(1, 28, 28, 16, (4, 4), (1, 7))


def convolution(channels: int, kernel: int = 3, stride: int = 1, **changes):
    pad = kernel // 2
    window = Window((kernel, kernel), (stride, stride), padding=(pad, pad, pad, pad))
    return replace(layer_with(0.9, channels, channels, kernel), **{"window": window, **changes})


def sharing(layer, source: Geometry, target: Geometry, tasks: int) -> int:
    return shared_panels(layer, source, target, replace(SERVER, tasks=tasks), 1 / 6)


@pytest.mark.parametrize(
    ("vectors", "part", "share"), [(7, 4, 1.0), (8, 4, 0.5), (8, 8, 1.0), (12, 6, 0.75), (12, 4, 1.0)]
)
def test_parts_use_a_share_of_the_sets(vectors, part, share):
    assert block_bytes(vectors, part, SERVER) == pytest.approx(0.8 * share * SERVER.l1_bytes)


def test_parts_suit_nonzeros_and_sets():
    few, many = layer_with(0.9, 256, 64), layer_with(0.9, 512, 1024)
    # A few nonzeros share the work on a row; many need room for channels.
    assert (choose_parts(few, 7, SERVER), choose_parts(many, 7, SERVER)) == (1, 2)
    # Two halves of eight vectors would lie in half of the sets.
    assert choose_parts(many, 8, SERVER) == 1 and choose_parts(many, 12, SERVER) == 3
    # Vectors half as long leave room for twice as many channels, so that whole panels pay for few nonzeros.
    assert [choose_parts(few, 14, isa) for isa in (SERVER, AVX2)] == [2, 1] and choose_parts(many, 14, AVX2) == 4
    for layer in (few, many):
        for vectors in range(1, 15):
            assert -(-vectors // choose_parts(layer, vectors, SERVER)) <= 8
            assert -(-vectors // choose_parts(layer, vectors, AVX2)) <= 14


def test_each_core_builds_few_windows():
    """A column of panels for each core, cut where there is one column only."""
    for tasks, large, small in ((1, 7, 7), (2, 7, 4), (4, 4, 2)):
        assert sharing(convolution(64), LARGE, LARGE, tasks) == large
        assert sharing(convolution(128), SMALL, SMALL, tasks) == small


def test_shared_windows_leave_k_blocks_as_they_are(monkeypatch):
    """A panel's windows fill the first-level cache as without sharing, those of all panels more than all of it."""
    isa = replace(SERVER, tasks=2)
    together = pack_sparse(convolution(128), SMALL, SMALL, isa)
    monkeypatch.setattr(pack_columns, "shared_panels", lambda *_: 1)
    alone = pack_sparse(convolution(128), SMALL, SMALL, isa)
    tables = [TableValues(FIELDS, packed.arrays[-1]) for packed in (together, alone)]
    assert [t.array("tile_pointers", t.scalar("stripes") + 1).tolist() for t in tables] == [[0, 4, 7], list(range(8))]
    blocks = [t.array("block", 4 * int(t.array("block_pointers", 2)[1])).reshape(-1, 4) for t in tables]
    np.testing.assert_array_equal(*blocks)
    shared, single = (4 * t.scalar("buffer_channel") * blocks[0][0, 1] for t in tables)
    assert single <= SERVER.l1_bytes < shared
    assert together.stripes is None and alone.stripes is not None


def test_where_nothing_is_shared():
    beyond_the_cache = convolution(128)
    assert sharing(beyond_the_cache, LARGE, LARGE, 1) == 1
    assert sharing(convolution(128, 1, 2), LARGE, SMALL, 1) == 1
    assert sharing(replace(convolution(64), groups=64, weight=np.ones((64, 1, 3, 3), np.float32)), LARGE, LARGE, 1) == 1
    dilated = Window((3, 3), dilation=(2, 2), padding=(2, 2, 2, 2))
    assert sharing(convolution(64, window=dilated), LARGE, LARGE, 1) == 1
    # Many output channels would be cut into parts that each build their own.
    wide = convolution(64, weight=np.ones((1024, 64, 3, 3), np.float32))
    assert sharing(wide, LARGE, LARGE, 1) == 1 < sharing(convolution(64), LARGE, LARGE, 1)
