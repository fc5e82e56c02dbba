"""Unstructured sparse convolutions over columns, against numpy."""

from dataclasses import replace
from math import prod

import pytest

from tvm_sparse.layout.halo import Window
from tvm_sparse.layout.table import TableValues
from tvm_sparse.plan import pack_columns
from tvm_sparse.plan.pack_columns import pack_sparse
from tvm_sparse.schedules.cpu.epilogue import Activation
from tvm_sparse.schedules.cpu.sparse_columns import FIELDS

from .compiled import WIDEST, every_isa, isa_of
from .convolutions import CASES, GRIDS, POINTWISE, ZEROS, Case, check, with_image

SIMPLE = CASES["prime sizes, asymmetric padding"]
PATTERNED = {
    "one block": SIMPLE,
    "several K-blocks": CASES["several K-blocks"],
    "pixels in place": POINTWISE["several K-blocks"],
    "groups": CASES["groups"],
}
RELU6 = Activation("clip", (0.0, 6.0))


@every_isa
@pytest.mark.parametrize("name", CASES)
def test_windows(isa_name, name):
    check(pack_sparse, isa_name, CASES[name])


@every_isa
@pytest.mark.parametrize("name", POINTWISE)
def test_pixels_in_place(isa_name, name):
    check(pack_sparse, isa_name, POINTWISE[name])


@every_isa
@pytest.mark.parametrize("zeros", ZEROS)
@pytest.mark.parametrize("name", PATTERNED)
def test_patterns_of_zeros(isa_name, zeros, name):
    check(pack_sparse, isa_name, PATTERNED[name], zeros)


@every_isa
@pytest.mark.parametrize("name", ["several K-blocks", "groups of many channels", "batch", "many outputs"])
def test_residual_and_activation_after_the_last_block(isa_name, name):
    check(pack_sparse, isa_name, CASES[name], activation=RELU6, residual=True)


@every_isa
@pytest.mark.parametrize("name", ["several K-blocks", "one pixel"])
def test_residual_in_place(isa_name, name):
    check(pack_sparse, isa_name, POINTWISE[name], activation=RELU6, residual=True)


@every_isa
@pytest.mark.parametrize("grids", [((1, 1), (2, 2)), ((1, 4), (4, 1)), ((1, 3), (1, 3)), ((3, 1), (1, 4))], ids=str)
@pytest.mark.parametrize("name", ["3x3", "stride 2", "dilation"])
def test_any_two_grids(isa_name, grids, name):
    # Of the source and of the target; some leave lanes unused.
    check(pack_sparse, isa_name, CASES[name], source_grid=grids[0], grid=grids[1])


@pytest.mark.parametrize("grid", [(1, 16), (16, 1), (2, 8), (3, 5)], ids=str)
def test_more_grids(grid):
    check(pack_sparse, WIDEST, CASES["3x3"], grid=grid)
    check(pack_sparse, WIDEST, CASES["stride 2, odd, asymmetric"], source_grid=grid, grid=(5, 3))


@pytest.mark.parametrize("tile", [(1, 1), (7, 2)], ids=str)
def test_tiles(tile):
    # More accumulators than registers are left beside the spread weights, or the only one.
    check(pack_sparse, WIDEST, SIMPLE, tile=tile)
    check(pack_sparse, WIDEST, CASES["stride 2, odd, asymmetric"], tile=tile, source_tile=tile)


@every_isa
@pytest.mark.parametrize("tile", [(1, 1), (2, 2), (5, 1), (7, 1), (7, 2)], ids=str)
@pytest.mark.parametrize("name", ["several K-blocks", "many outputs"])
def test_pairs_of_rows(isa_name, tile, name):
    case, isa = CASES[name], isa_of(isa_name)
    packed = check(pack_sparse, isa_name, case, "none", tile=tile, activation=RELU6, residual=True)
    kernel = packed.kernel
    # Nowhere do the sums of a bundle exceed the registers.
    assert kernel.pairs == (2 * prod(tile) + 3 <= isa.registers)
    assert kernel.bundle(isa) % 2 == 0 or not kernel.pairs
    assert kernel.bundle(isa) * prod(tile) + 2 <= isa.registers
    # Some share columns, some have columns of their own, some are left over.
    check(pack_sparse, isa_name, replace(case, outputs=case.outputs + 2), "every count", tile=tile)


def test_large_outputs_are_fetched(monkeypatch):
    # Rows further on than the last one are asked for, too.
    monkeypatch.setattr(pack_columns, "_NEAR_SHARE", 0.0)
    monkeypatch.setattr(pack_columns, "_CACHED_SHARE", 0.0)
    packed = check(pack_sparse, WIDEST, CASES["many outputs"])
    assert TableValues(FIELDS, packed.arrays[-1]).scalar("fetch_outputs") == 1
    monkeypatch.undo()
    packed = check(pack_sparse, WIDEST, CASES["many outputs"])
    assert TableValues(FIELDS, packed.arrays[-1]).scalar("fetch_outputs") == 0


@pytest.mark.parametrize(("zeros", "fetched"), [("80 %", 1), ("none", 0)])
def test_outputs_of_few_products_are_fetched(monkeypatch, zeros, fetched):
    """Of those beyond the cache, whatever their size: prefetchers are slower than rows of a few nonzeros."""
    monkeypatch.setattr(pack_columns, "_NEAR_SHARE", 1e9)
    monkeypatch.setattr(pack_columns, "_CACHED_SHARE", 0.0)
    packed = check(pack_sparse, WIDEST, POINTWISE["prime sizes"], zeros)
    assert TableValues(FIELDS, packed.arrays[-1]).scalar("fetch_outputs") == fetched


@every_isa
def test_wide_panel_is_read_in_parts(isa_name):
    packed = check(pack_sparse, isa_name, with_image(POINTWISE["1x1"], 1, 40, 29, 31), tile=(7, 2))
    assert packed.kernel.tile == (14, 1)
    sizes = [7, 7] if isa_of(isa_name).registers >= 32 else [14]
    assert packed.kernel.part_sizes == sizes and replace(packed.kernel, parts=3).part_sizes == [5, 5, 4]


@every_isa
@pytest.mark.parametrize("share", [2, 3, 7])
@pytest.mark.parametrize("name", ["3x3", "stride 2", "several K-blocks", "batch"])
def test_rows_of_panels_share_windows(monkeypatch, isa_name, share, name):
    """As many as divide the panels, and others; also with several K-blocks and images."""
    monkeypatch.setattr(pack_columns, "shared_panels", lambda *_: share)
    case = with_image(CASES[name], *CASES[name].image[:2], 29, 13)
    packed = check(pack_sparse, isa_name, case, tile=(1, 2), residual=True)
    table = TableValues(FIELDS, packed.arrays[-1])
    pointers = table.array("tile_pointers", table.scalar("stripes") + 1)
    rows = -(-case.window.output_size(29, 13)[0] // GRIDS[isa_of(isa_name).lanes][0])
    assert max(pointers[1:] - pointers[:-1]) == min(share, rows) > 1 and packed.stripes is None


@every_isa
def test_lines_of_the_next_block_are_fetched_with_every_quad(monkeypatch, isa_name):
    """Where the input lies beyond the cache: the least power of two that fetches the block, at most eight.

    None by short vectors.
    """
    monkeypatch.setattr(pack_columns, "fits_cache", lambda *_: False)
    for name in ("several K-blocks", "many outputs"):
        packed = check(pack_sparse, isa_name, POINTWISE[name], "none", activation=RELU6)
        table = TableValues(FIELDS, packed.arrays[-1])
        blocks = int(table.array("block_pointers", table.scalar("chunks") + 1)[-1])
        pointers = table.array("group_pointers", 4 * blocks + 1)
        groups = table.array("group", 5 * int(pointers[-1])).reshape(-1, 5)
        for index, lines in enumerate(table.array("prefetch", blocks).tolist()):
            mine = groups[pointers[4 * index] : pointers[4 * index + 4]]
            quads = int((mine[:, 1] * mine[:, 3]).sum()) * packed.kernel.parts
            wanted = table.array("block", 4 * blocks)[4 * index + 1] * table.scalar("input_channel") / 16
            if isa_of(isa_name).lanes < 16:
                assert lines == 0
                continue
            assert lines in (1, 2, 4, 8) and (lines * quads >= wanted or lines == 8)
            assert lines == 1 or lines * quads < 2 * wanted
    monkeypatch.setattr(pack_columns, "fits_cache", lambda *_: True)
    packed = check(pack_sparse, isa_name, POINTWISE["several K-blocks"])
    assert not TableValues(FIELDS, packed.arrays[-1]).array("prefetch", 1).any()


@every_isa
@pytest.mark.parametrize("near", [0, 1 << 20])
def test_weights_are_fetched_where_vectors_are_long_or_weights_many(monkeypatch, isa_name, near):
    monkeypatch.setattr(pack_columns, "_NEAR_BYTES", near)
    kernel = check(pack_sparse, isa_name, POINTWISE["several K-blocks"]).kernel
    assert kernel.streamed == (isa_of(isa_name).lanes == 16 or not near)
    assert kernel.symbol(isa_of(isa_name)).count("_cached") == (not kernel.streamed)


@every_isa
@pytest.mark.parametrize("parts", [1, 2, 3, 5])
def test_any_parts(monkeypatch, isa_name, parts):
    monkeypatch.setattr(pack_columns, "choose_parts", lambda *_: parts)
    packed = check(pack_sparse, isa_name, POINTWISE["several K-blocks"], tile=(1, 5), activation=RELU6, residual=True)
    assert packed.kernel.parts == parts and sum(packed.kernel.part_sizes) == 5


def test_window_of_large_area_fits_the_buffer():
    check(pack_sparse, WIDEST, Case((1, 6, 33, 35), 3, Window((11, 9), (4, 4), padding=(5, 4, 5, 4))))
