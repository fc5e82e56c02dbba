"""The work of a layer against numbers computed by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tvm_sparse.layout.geometry import Geometry
from tvm_sparse.layout.halo import Window
from tvm_sparse.layout.table import TableValues
from tvm_sparse.plan import pack_columns
from tvm_sparse.plan.layer import Convolution, PackedLayer
from tvm_sparse.plan.pack_blocks import pack_blocks
from tvm_sparse.plan.pack_columns import pack_dense, pack_sparse
from tvm_sparse.plan.pack_pixels import pack_pixels
from tvm_sparse.plan.pack_rows import pack_rows
from tvm_sparse.plan.pack_winograd import kernel_of, pack_winograd
from tvm_sparse.plan.work import count_work
from tvm_sparse.schedules.cpu import sparse_columns
from tvm_sparse.schedules.cpu.isa import AVX2, AVX512

# 112 pixels in one panel of 7 vectors, all lanes used.
LINE = Geometry(1, 1, 112, 16, (1, 16), (1, 7))
ROW = 7 * 64  # bytes of a channel


def layer(outputs: int, channels: int, nonzeros: int, **options) -> Convolution:
    weight = np.zeros(outputs * channels, np.float32)
    weight[np.random.default_rng(0).permutation(weight.size)[:nonzeros]] = 1
    weight = weight.reshape(outputs, channels, 1, 1)
    return Convolution(weight, np.zeros(outputs, np.float32), Window((1, 1)), **options)


def stored_of(packed: PackedLayer) -> int:
    """Nonzeros of an unstructured layer of one chunk with those that pad its bundles, not what aligns them."""
    table, rows = TableValues(sparse_columns.FIELDS, packed.arrays[-1]), packed.kernel.bundle(AVX512)
    blocks = int(table.array("block_pointers", 2)[1])
    pointers = table.array("group_pointers", 4 * blocks + 1)
    groups, count = table.array("group", int(pointers[-1]) * 5).reshape(-1, 5).tolist(), 0
    for kind in range(4 * blocks):
        for _, bundles, _, quads, shared in groups[pointers[kind] : pointers[kind + 1]]:
            count += bundles * rows * (shared + 4 * quads + kind % 4)
    return count


@pytest.mark.parametrize("parts", [1, 2])
def test_sparse_panel(monkeypatch, parts):
    monkeypatch.setattr(pack_columns, "choose_parts", lambda *_: parts)
    convolution = layer(8, 4, 10)
    packed = pack_sparse(convolution, LINE, LINE, AVX512)
    weights = packed.arrays[0].nbytes + packed.arrays[1].nbytes
    work = count_work(convolution, packed, AVX512, LINE, LINE)
    # Rows of a bundle are padded to its longest one.
    stored = stored_of(packed)
    assert 10 <= stored < 16
    assert (work.macs, work.lane_macs, work.utilisation) == (10 * 112, stored * 112, 1.0)
    # Seven vectors, and in each part of the tile a quarter of a load of four weights.
    assert work.loaded == stored * (7 + parts / 4) * 64
    assert (work.l2_read, work.l2_written) == (4 * ROW + weights, 8 * ROW)
    # Small tensors are still in the second-level cache.
    assert (work.memory_read, work.memory_written) == (weights, 0)
    assert (work.read, work.written) == (4 * ROW + weights, 8 * ROW)


def test_blocks_read_and_write_their_sums(monkeypatch):
    monkeypatch.setattr(pack_columns, "choose_parts", lambda *_: 2)
    isa = replace(AVX512, l1_bytes=3 * ROW // 2, l2_bytes=3 * ROW)
    convolution = layer(8, 16, 40, residual=True)
    packed = pack_sparse(convolution, LINE, LINE, isa)
    table = TableValues(sparse_columns.FIELDS, packed.arrays[-1])
    assert table.scalar("chunks") == 1
    later = int(table.array("block_pointers", 2)[1]) - 1
    assert later > 0
    weights = packed.arrays[0].nbytes + packed.arrays[1].nbytes
    work = count_work(convolution, packed, isa, LINE, LINE)
    assert work.loaded == stored_of(packed) * 7.5 * 64 + 8 * ROW * (later + 1)
    # Both parts of the tile read the weights, which do not stay in the first-level cache.
    assert work.l2_read == 16 * ROW + 2 * weights + 8 * ROW * (later + 1)
    assert work.l2_written == 8 * ROW * (later + 1)
    # Neither the input nor the residual nor the output fits half of the second-level cache.
    assert work.memory_read == 16 * ROW + 8 * ROW + weights and work.memory_written == 8 * ROW
    assert work.read == 16 * ROW + 8 * ROW + weights


@pytest.mark.parametrize(("parts", "rows"), [(1, 2), (2, 4)])
def test_vectors_of_pairs_are_loaded_once(monkeypatch, parts, rows):
    monkeypatch.setattr(pack_columns, "choose_parts", lambda *_: parts)
    convolution = layer(8, 40, 8 * 30)
    packed = pack_sparse(convolution, LINE, LINE, AVX512)
    table = TableValues(sparse_columns.FIELDS, packed.arrays[-1])
    groups = int(table.array("group_pointers", 5)[-1])
    bundles, shared = table.array("group", groups * 5).reshape(-1, 5)[:, [1, 4]].T
    assert packed.kernel.pairs and (shared > 0).all() and bundles.sum() == 8 // rows
    stored, of_pairs = stored_of(packed), rows * int((bundles * shared).sum())
    # Weights that are not shared are loaded four at a time, the others one by one, all in every part of the tile.
    work = count_work(convolution, packed, AVX512, LINE, LINE)
    assert work.loaded == ((stored - of_pairs) * (7 + parts / 4) + of_pairs * (3.5 + parts)) * 64


def test_dense_panel():
    convolution = layer(12, 5, 60)
    packed = pack_dense(convolution, LINE, LINE, AVX512)
    work = count_work(convolution, packed, AVX512, LINE, LINE)
    assert work.macs == work.lane_macs == 60 * 112
    # Two strips of six rows, in two pieces of the panel: each reads the weights again.
    assert work.loaded == 10 * (7 + 2 * 6) * 64


def test_pixels_that_leave_lanes_of_columns_empty():
    image = Geometry(2, 1, 50, 16, (1, 16), (1, 4))
    convolution = layer(96, 5, 480)
    packed = pack_pixels(convolution, image, image, AVX512)
    weights, groups = packed.arrays[0].nbytes, 2 * 8
    work = count_work(convolution, packed, AVX512, image, image)
    # 50 pixels are two groups of seven and six of six.
    assert work.macs == work.lane_macs == 480 * 100
    assert work.utilisation == 1
    # Two strips of three vectors: each group reads their weights, and an input of each pixel for each weight of a row;
    # sums are stored once.
    sums = 100 * 96 * 4
    assert work.loaded == groups * weights + 4 * 100 * 5 * 2 + sums
    # Two chunks, for the cores, read the input; every image reads the weights, which all groups find in the first-level
    # cache.
    assert work.l2_read == 2 * (2 * 5 * 4 * 64) + 2 * weights + sums
    assert work.l2_written == 2 * 96 * 4 * 64 + sums


def test_fast_algorithm():
    image = Geometry(1, 8, 8, 16, (4, 4), (2, 2))
    weight = np.ones((16, 3, 3, 3), np.float32)
    convolution = Convolution(weight, np.zeros(16, np.float32), Window((3, 3), padding=(1, 1, 1, 1)))
    one_chunk = replace(AVX512, tasks=1)
    packed = pack_winograd(convolution, image, image, one_chunk, kernel_of(convolution, (2, 2), (2, 2), 16))
    work = count_work(convolution, packed, one_chunk, image, image)
    # Sixteen products for four outputs in place of 36, of every channel and row; all lanes do so.
    assert work.macs == 16 * 27 * 64 and work.lane_macs == 16 * 3 * 16 * 16
    # Windows of four by four vectors; a step of the strip loads a vector and 16 weights; each row then loads its sums.
    assert work.loaded == (3 * 16 + 3 * 16 * (1 + 16) + 16 * 16) * 64


def test_blocks_of_four_rows():
    narrow = Geometry(1, 1, 96, 16, (1, 16), (1, 6))
    weight = np.zeros((8, 5, 1, 1), np.float32)
    weight[:4, 1], weight[4, 3] = 1, 1
    convolution = Convolution(weight, np.zeros(8, np.float32), Window((1, 1)))
    packed = pack_blocks(convolution, narrow, narrow, AVX512, (4, 1))
    work = count_work(convolution, packed, AVX512, narrow, narrow)
    # Two blocks of four weights, three of them zero; six vectors and four weights are loaded for each.
    assert work.macs == 5 * 96 and work.lane_macs == 8 * 96
    assert work.loaded == 2 * (6 + 4) * 64


def test_unused_lanes_and_zeros_of_a_dense_layer_are_no_work():
    narrow = Geometry(2, 1, 100, 16, (1, 16), (1, 7))
    convolution = layer(12, 5, 30)
    work = count_work(convolution, pack_dense(convolution, narrow, narrow, AVX512), AVX512, narrow, narrow)
    assert work.macs == 30 * 200 and work.lane_macs == 60 * 224
    assert work.utilisation == pytest.approx(100 / 112, abs=1e-4)


def test_windows_are_built():
    image = Geometry(1, 4, 32, 16, (1, 16), (4, 2))
    weight = np.zeros((8, 3, 3, 3), np.float32)
    weight[:, :, 1, 1] = 1
    window = Window((3, 3), padding=(1, 1, 1, 1))
    convolution = Convolution(weight, np.zeros(8, np.float32), window)
    work = count_work(convolution, pack_sparse(convolution, image, image, AVX512), AVX512, image, image)
    assert work.macs == 24 * 128
    # The whole image is one panel; its windows are 6 x 4 vectors.
    assert work.loaded == 24 * 8.25 * 64 + 3 * 24 * 64


def test_kernels_of_other_families():
    """Tensors are read once at least."""
    convolution = layer(8, 4, 10, residual=True)
    packed = PackedLayer(object(), (np.zeros(20, np.float32),))
    work = count_work(convolution, packed, AVX512, LINE, LINE)
    assert work.lane_macs == 1120 and work.loaded == 4 * ROW + 8 * ROW
    assert work.l2_read == 4 * ROW + 8 * ROW + 80 and work.l2_written == 8 * ROW


def test_dense_rows():
    convolution = layer(1000, 4, 3000)
    work = count_work(convolution, pack_rows(convolution, 2, 2, False, AVX512), AVX512, None, None, 2)
    # 1000 outputs fill eight strips of 128.
    assert (work.macs, work.lane_macs, work.utilisation) == (6000, 1024 * 4 * 2, 0.9766)
    assert work.loaded == 1024 * 4 * 2 * 4 * 9 // 8
    assert work.memory_read == 1024 * 4 * 4 and work.read == 1024 * 4 * 4 + 2 * 4 * 4 and work.written == 2 * 4000


def test_sparse_rows_multiply_four_at_a_time():
    convolution = layer(16, 8, 20)
    packed = pack_rows(convolution, 3, 2, True, AVX2)
    counts = np.count_nonzero(convolution.weight[:, :, 0, 0], 1)
    stored = int((-(-counts // 4) * 4).sum())
    work = count_work(convolution, packed, AVX2, None, None, 3)
    assert (work.macs, work.lane_macs, work.utilisation) == (60, 3 * stored // 4 * 8, 0.5)
    # Four inputs, four weights, four columns.
    assert work.loaded == 3 * stored // 4 * 6 * 32
