"""Halo programs: what a window reads in the buffer is what it reads in an image padded by numpy."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.layout.halo_in_numpy import fill_buffer, windows_in_numpy
from tests.layout.strategies import LANES, geometries, windows
from tvm_sparse.layout.geometry import Geometry, choose_geometry
from tvm_sparse.layout.halo import HaloProgram, Window, halo_program
from tvm_sparse.layout.halo_operations import KINDS

FILL = -77.0


def windows_by_program(
    program: HaloProgram, source: Geometry, target: Geometry, images: np.ndarray, taps: tuple[int, int]
) -> np.ndarray:
    """The same, from columns, by running the program."""
    channels = images.shape[1]
    stored = source.pack(images, fill=np.nan).reshape(target.sets, -1)
    arrays = asdict(program)
    step = source.vectors * source.lanes
    out = np.full((*taps, *target.shape(channels)), np.nan)
    offsets = np.arange(target.tile[0]) * target.lanes
    for image in range(target.sets):
        for stripe in range(len(program.tile_pointers) - 1):
            for channel in range(channels):
                buffer = fill_buffer(arrays, stripe, stored[image, channel * step :], program.size, FILL, target.tile)
                for tile in range(*program.tile_pointers[stripe : stripe + 2]):
                    panel = image * target.panels + program.tile_panel[tile]
                    for ky, kx in np.ndindex(*taps):
                        origin = program.tile_buffer[tile] + program.taps[ky, kx]
                        for column in range(target.tile[1]):
                            for row, offset in enumerate(offsets):
                                at = origin + program.pitch * column + offset
                                vector = column * target.tile[0] + row
                                out[ky, kx, panel, channel, vector] = buffer[at : at + target.lanes]
    return np.array([[target.unpack(out[ky, kx]) for kx in range(taps[1])] for ky in range(taps[0])])


def check(
    source: Geometry, target: Geometry, window: Window, stripe=(1, 1), compact: bool = False, odd: bool = False
) -> HaloProgram:
    channels = 2
    shape = (source.batch, channels, source.height, source.width)
    images = np.arange(1.0, np.prod(shape) + 1).reshape(shape)
    program = halo_program(source, target, window, channels, stripe, compact, odd=odd)
    got = windows_by_program(program, source, target, images, window.kernel)
    np.testing.assert_array_equal(got, windows_in_numpy(images, window, FILL))
    return program


def divisors(value: int) -> list[int]:
    return [d for d in range(1, value + 1) if value % d == 0]


@settings(max_examples=40)
@given(st.data(), windows(), LANES)
def test_panels_stored_elsewhere_in_parts(data, window, lanes):
    """Some stripes of a program that finds the source's panels in other places build the same windows."""
    source = data.draw(geometries(batch=1, lanes=lanes, limit=14))
    height, width = window.output_size(source.height, source.width)
    assume(height > 0 and width > 0)
    target = data.draw(geometries(size=(height, width), batch=1, lanes=lanes))
    slots = data.draw(st.permutations(range(source.panels)))
    plain = halo_program(source, target, window, 1)
    moved = halo_program(source, target, window, 1, slots=tuple(slots))
    images = np.arange(1.0, source.pixels + 1).reshape(1, 1, source.height, source.width)
    stored = source.pack(images).reshape(source.panels, -1)
    elsewhere = np.empty_like(stored)
    elsewhere[np.array(slots)] = stored
    chosen = np.array(data.draw(st.lists(st.integers(0, target.panels - 1), min_size=1, unique=True)))
    part = moved.part(chosen)
    np.testing.assert_array_equal(part.tile_panel, plain.tile_panel[chosen])
    for number, stripe in enumerate(chosen):
        buffers = [
            fill_buffer(vars(program), at, elements.reshape(-1), program.size, FILL, target.tile)
            for program, at, elements in ((plain, stripe, stored), (part, number, elsewhere))
        ]
        np.testing.assert_array_equal(*buffers)


@settings(max_examples=60)
@given(st.data(), windows(), LANES)
def test_windows(data, window, lanes):
    batch = data.draw(st.sampled_from([1, 4]))
    source = data.draw(geometries(batch=batch, lanes=lanes, limit=14))
    height, width = window.output_size(source.height, source.width)
    assume(height > 0 and width > 0)
    target = data.draw(geometries(size=(height, width), batch=batch, lanes=lanes))
    assume(target.images % source.images == 0)
    # Where its rows do not divide the panels', the last stripe has fewer.
    stripe = (
        data.draw(st.integers(1, target.panels_down)),
        data.draw(st.sampled_from(divisors(target.panels_across))),
    )
    odd = data.draw(st.booleans())
    program = check(source, target, window, stripe, odd=odd)
    assert not odd or program.pitch // lanes // window.stride[1] % 2 == 1
    compact = check(source, target, window, compact=True)
    if stripe == (1, 1) and not odd:
        assert compact.size <= program.size
    # Every panel is one tile of one stripe.
    assert sorted(program.tile_panel.tolist()) == list(range(target.panels))
    assert len(program.tile_pointers) - 1 == -(-target.panels_down // stripe[0]) * target.panels_across // stripe[1]


@pytest.mark.parametrize("lanes", [4, 8, 16])
@pytest.mark.parametrize(
    ("size", "window"),
    [
        ((12, 12), Window((3, 3), padding=(1, 1, 1, 1))),
        ((13, 11), Window((3, 3), (2, 2), padding=(0, 0, 1, 1))),  # TensorFlow's SAME
        ((12, 12), Window((7, 7), (2, 2), padding=(3, 3, 3, 3))),
        ((12, 9), Window((1, 1), (3, 4))),  # stride above the kernel's size
        ((3, 3), Window((2, 2), padding=(4, 5, 3, 6))),  # windows that lie outside wholly
        ((9, 9), Window((3, 3), (1, 1), (4, 3), (4, 3, 4, 3))),
        ((1, 40), Window((1, 5), padding=(0, 4, 0, 0))),  # a causal 1-D convolution
        ((1, 1), Window((3, 3), padding=(1, 1, 1, 1))),
        ((5, 7), Window((5, 7))),  # one pixel
    ],
)
def test_known_windows(lanes, size, window):
    source = choose_geometry(2, *size, lanes, most_images=1)
    check(source, choose_geometry(2, *window.output_size(*size), lanes), window)


@pytest.mark.parametrize("images", [(1, 2), (1, 8), (2, 2), (2, 4), (8, 8)])
@pytest.mark.parametrize(
    "window",
    [
        Window((3, 3), padding=(1, 1, 1, 1)),
        Window((3, 3), (2, 2), padding=(0, 1, 1, 0)),
        Window((2, 4), dilation=(3, 2)),
    ],
)
def test_images_that_share_vectors(images, window):
    """As many in a vector of the output as in one of the input, or more."""
    source, target = (
        Geometry(8, *size, 16, (1, 2), (2, 3), n)
        for size, n in zip([(9, 11), window.output_size(9, 11)], images, strict=True)
    )
    program = check(source, target, window)
    if images == (8, 8):
        # Neighbours are lanes of the same vector, and nothing else is read: pixels at the borders are merged from two.
        assert not len(program.more) and not len(program.quarters)


def test_images_of_a_set_are_read_together():
    source, target = (Geometry(4, 6, 6, 8, (2, 2), (1, 1), n) for n in (2, 1))
    with pytest.raises(ValueError, match="hold no whole sets"):
        halo_program(source, target, Window((1, 1)), 1)


def test_compact_grids_hold_what_is_read():
    source, target = choose_geometry(1, 60, 60, 8), choose_geometry(1, 20, 20, 8)
    window = Window((3, 3), dilation=(20, 20))
    vectors = (target.tile[0] * 3) * (target.tile[1] * 3)
    assert halo_program(source, target, window, 1, compact=True).size == vectors * 8
    assert halo_program(source, target, window, 1).size > 10 * vectors * 8


def test_short_stripes_build_what_their_panels_read():
    geometry = Geometry(1, 28, 28, 16, (4, 4), (1, 7))
    program = halo_program(geometry, geometry, Window((3, 3), padding=(1, 1, 1, 1)), 1, (4, 1), odd=True)
    assert [len(p) for p in np.split(program.tile_panel, program.tile_pointers[1:-1])] == [4, 3]
    columns = 9
    lengths = {"copy_across": 7, "one_across": 7, "one": 1, "two": 1}
    for stripe, rows in enumerate((6, 5)):
        vectors = program.copy[slice(*program.pointers[0, stripe : stripe + 2]), 2].sum()
        for kind, row in zip(KINDS, program.pointers, strict=True):
            vectors += lengths.get(kind, 0) * (row[stripe + 1] - row[stripe])
        assert vectors == rows * columns


def test_aligned_subimages_are_mostly_copied():
    geometry = choose_geometry(1, 56, 56, 8)
    program = halo_program(geometry, geometry, Window((3, 3), padding=(1, 1, 1, 1)), 1)
    rows, columns = geometry.tile
    copied = program.copy[:, 2].sum() + rows * len(program.copy_down) + columns * len(program.copy_across)
    runs = rows * len(program.one_down) + columns * len(program.one_across)
    moved = runs + len(program.one) + len(program.two) + len(program.more)
    assert copied > 3 * moved
    # Most vectors belong to runs, which cost less than single ones.
    assert rows * len(program.copy_down) + columns * len(program.copy_across) + runs > 0.8 * (copied + moved)
    # One without borders between subimages needs no lanes at all.
    plain = halo_program(geometry, geometry, Window((1, 1)), 1)
    permuted = (plain.one, plain.two, plain.more, plain.one_down, plain.one_across)
    assert not any(len(operations) for operations in permuted) and plain.cycles < program.cycles


def test_quarters_of_vectors_come_from_anywhere():
    """Subimages of 7 and of 4 rows do not fit each other with stride 2, but each holds a row of lanes."""
    source = Geometry(1, 28, 28, 8, (4, 2), (7, 2))
    target = Geometry(1, 14, 14, 8, (4, 2), (2, 7))
    program = check(source, target, Window((3, 3), (2, 2), padding=(0, 0, 1, 1)))
    # Of eight vectors at the right edge, a quarter would begin with the last lane.
    assert (len(program.quarters), len(program.two)) == (142, 8)
    # Lanes of a row that come from different vectors are merged.
    program = check(source, replace(target, grid=(2, 4), tile=(1, 4)), Window((3, 3), (2, 2), padding=(0, 0, 1, 1)))
    assert not len(program.quarters) and len(program.more)


@given(windows(), st.integers(1, 30), st.integers(1, 30))
def test_output_size_counts_the_positions(window, height, width):
    extents = (height + window.padding[0] + window.padding[2], width + window.padding[1] + window.padding[3])
    counts = []
    for extent, kernel, stride, dilation in zip(extents, window.kernel, window.stride, window.dilation, strict=True):
        last = (kernel - 1) * dilation
        counts.append(sum(start + last < extent for start in range(0, extent, stride)))
    assume(all(counts))
    assert window.output_size(height, width) == tuple(counts)


def test_sizes_that_do_not_match_are_refused():
    geometry = choose_geometry(1, 8, 8, 4)
    with pytest.raises(ValueError, match="does not turn"):
        halo_program(geometry, geometry, Window((3, 3)), 1)
    split = Geometry(1, 6, 6, 4, (2, 2), (1, 1))
    with pytest.raises(ValueError, match="do not divide"):
        halo_program(split, split, Window((1, 1)), 1, (1, 2))
    with pytest.raises(ValueError, match="single panel"):
        halo_program(split, split, Window((1, 1)), 1, (1, 3), compact=True)
