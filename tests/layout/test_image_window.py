"""Windows filled from plain images are what numpy reads of padded ones, for any strides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.layout.halo_in_numpy import fill_from_image, windows_in_numpy
from tests.layout.strategies import geometries, windows
from tvm_sparse.layout.geometry import Geometry, choose_geometry
from tvm_sparse.layout.halo import HaloProgram, Window, halo_program
from tvm_sparse.layout.image_window import Strides

CHANNELS = 3


def strides_of(geometry: Geometry, channels_last: bool) -> Strides:
    height, width = geometry.height, geometry.width
    return Strides(width * CHANNELS, CHANNELS, 1) if channels_last else Strides(width, 1, height * width)


def program_of(source: Geometry, target: Geometry, window: Window, channels_last: bool, compact: bool) -> HaloProgram:
    strides = strides_of(source, channels_last)
    return halo_program(source, target, window, CHANNELS, compact=compact, strides=strides)


def check(source: Geometry, target: Geometry, window: Window, channels_last: bool, compact: bool = False) -> None:
    program = program_of(source, target, window, channels_last, compact)
    assert program.image is not None
    shape = (target.batch, CHANNELS, source.height, source.width)
    images = np.arange(1.0, np.prod(shape) + 1).reshape(shape)
    plain = images.transpose(0, 2, 3, 1) if channels_last else images
    kernel, lanes = window.kernel, target.lanes
    out = np.full((*kernel, target.panels, CHANNELS, target.vectors, lanes), np.nan)
    vector = np.arange(target.vectors)
    for stripe in range(len(program.tile_pointers) - 1):
        filled = fill_from_image(program.image, stripe, plain.reshape(-1), program.size, program.size * CHANNELS)
        filled = filled.reshape(CHANNELS, -1)
        for tile in range(*program.tile_pointers[stripe : stripe + 2]):
            origin = program.tile_buffer[tile] + program.taps[:, :, None]
            place = origin + vector // target.tile[0] * program.pitch + vector % target.tile[0] * lanes
            read = filled[:, place[..., None] + np.arange(lanes)]
            out[:, :, program.tile_panel[tile]] = read.transpose(1, 2, 0, 3, 4)
    want = windows_in_numpy(images, window, 0.0)
    for ky, kx in np.ndindex(*kernel):
        np.testing.assert_array_equal(target.unpack(out[ky, kx]), want[ky, kx])


@settings(max_examples=60)
@given(st.data(), windows(), st.booleans(), st.booleans())
def test_any_image_and_window(data, window, channels_last, compact):
    source = data.draw(geometries(batch=1, limit=25))
    size = window.output_size(source.height, source.width)
    assume(min(size) >= 1)
    target = data.draw(geometries(size, 4, source.lanes))
    # Images that share vectors are read together.
    check(source, replace(target, batch=target.images), window, channels_last, compact)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3, 8, 33, 224])
def test_first_layers(size, channels_last):
    window = Window((3, 3), (2, 2), padding=(1, 1, 1, 1))
    target = choose_geometry(1, *window.output_size(size, size), 16)
    check(choose_geometry(1, size, size, 16), target, window, channels_last)


@pytest.mark.parametrize("channels_last", [False, True])
def test_most_vectors_are_filled_four_at_a_time(channels_last):
    window = Window((3, 3), (2, 2), padding=(1, 1, 1, 1))
    source, target = choose_geometry(1, 224, 224, 16), choose_geometry(1, 112, 112, 16)
    image = program_of(source, target, window, channels_last, False).image
    quads, masked = len(image.quads), len(image.masked_quads)
    assert len(image.singles) < 0.02 * 4 * quads and masked < 0.2 * quads
    # Only at the borders of the image other lanes are read.
    assert len(image.runs) == target.panels and len(np.unique(image.runs[:, 0])) == 1


def test_a_part_has_the_operations_of_its_stripes():
    window = Window((3, 3), padding=(1, 1, 1, 1))
    geometry = choose_geometry(1, 50, 50, 16)
    whole = program_of(geometry, geometry, window, False, False)
    chosen = np.array([3, 0])
    part = whole.part(chosen)
    elements = np.arange(CHANNELS * geometry.pixels, dtype=float)
    for number, stripe in enumerate(chosen):
        mine, want = (
            fill_from_image(program.image, at, elements, whole.size, whole.size * CHANNELS)
            for program, at in ((part, number), (whole, stripe))
        )
        np.testing.assert_array_equal(mine, want)
