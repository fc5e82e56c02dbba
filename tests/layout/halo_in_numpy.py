"""Windows of an image: padded by numpy, and by a halo program run as its consumers' kernels do."""

from __future__ import annotations

import numpy as np

from tvm_sparse.layout.halo import Window
from tvm_sparse.layout.halo_operations import KINDS
from tvm_sparse.layout.image_window import ImageProgram
from tvm_sparse.layout.transpose import QUAD


def windows_in_numpy(images: np.ndarray, window: Window, fill: float) -> np.ndarray:
    """What each tap reads for each output pixel, ``[kh, kw, N, C, height, width]``."""
    top, left, bottom, right = window.padding
    padded = np.pad(images, [(0, 0), (0, 0), (top, bottom), (left, right)], constant_values=fill)
    height, width = window.output_size(*images.shape[2:])
    (kh, kw), (sy, sx), (dy, dx) = window.kernel, window.stride, window.dilation
    rows = [padded[:, :, ky * dy : ky * dy + (height - 1) * sy + 1 : sy] for ky in range(kh)]
    return np.array([[row[:, :, :, kx * dx : kx * dx + (width - 1) * sx + 1 : sx] for kx in range(kw)] for row in rows])


def merge_lanes(kept: np.ndarray, index: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Lanes of `source` where the index has its sign bit, else of `kept`; all ``[operations, lanes]``."""
    lanes = index.shape[1]
    taken, low = index < 0, index & (lanes - 1)
    # The two-source permute of AVX-512 looks at this bit, not at the sign, and moves kept lanes too.
    assert (((index & lanes) != 0) == taken).all()
    assert (low == np.arange(lanes))[~taken].all()
    return np.where(taken, np.take_along_axis(source, low, 1), kept)


def fill_from_image(program: ImageProgram, stripe: int, elements: np.ndarray, step: int, size: int) -> np.ndarray:
    """The buffer of one stripe for some channels, filled from a plain image.

    Parameters
    ----------
    program : ImageProgram
        The program.
    stripe : int
        Stripe.
    elements : numpy.ndarray
        The image's elements.
    step : int
        Elements of the buffer for one channel.
    size : int
        Elements of the whole buffer.
    """
    buffer = np.full(size, np.nan)
    lanes = program.lanes.shape[1]
    repeats = size // step if program.channel_step else 1

    def store(place: int, values: np.ndarray, mask: np.ndarray | None) -> None:
        buffer[place : place + lanes] = values if mask is None else np.where(mask, values, 0.0)

    for channel in range(repeats):
        first, target = channel * program.channel_step, channel * step
        for kind, (runs, quads) in enumerate([("runs", "quads"), ("masked_runs", "masked_quads")]):
            for distances, begin, count in getattr(program, runs)[slice(*program.pointers[kind, stripe : stripe + 2])]:
                for *places, start, mask in [(*q, -1)[: QUAD + 2] for q in getattr(program, quads)[begin:][:count]]:
                    at = first + start + program.lanes.reshape(-1)[distances:][:lanes]
                    assert (at >= 0).all() and (at + QUAD <= len(elements)).all()
                    for i, place in enumerate(places):
                        kept = None if kind == 0 else program.masks.reshape(-1)[mask + i * lanes :][:lanes]
                        store(target + place, elements[at + i], kept)
        for place, element, distances, mask in program.singles[slice(*program.pointers[2, stripe : stripe + 2])]:
            at = first + element + program.lanes.reshape(-1)[distances:][:lanes]
            assert (at >= 0).all() and (at < len(elements)).all()
            store(target + place, elements[at], program.masks.reshape(-1)[mask:][:lanes])
    return buffer


def fill_buffer(
    arrays: dict[str, np.ndarray], stripe: int, source: np.ndarray, size: int, fill: float, tile: tuple[int, int]
) -> np.ndarray:
    """The buffer of one stripe for one channel.

    Parameters
    ----------
    arrays : dict
        ``pointers``, ``lanes`` and the operations of a program, by kind.
    stripe : int
        Stripe.
    source : numpy.ndarray
        The image's elements, from the channel's first on.
    size : int
        Elements of the buffer.
    fill : float
        Value of pixels outside of the image.
    tile : tuple of int
        Rows and columns of a tile.
    """
    index = np.asarray(arrays["lanes"])
    lanes = index.shape[1]
    buffer = np.full((size // lanes, lanes), np.nan)
    operations = {
        name: arrays[name][arrays["pointers"][kind, stripe] : arrays["pointers"][kind, stripe + 1]]
        for kind, name in enumerate(KINDS)
    }
    copy, two, more = (operations[name] for name in ("copy", "two", "more"))

    def load(position: np.ndarray) -> np.ndarray:
        assert ((position >= 0) & (position <= len(source) - lanes)).all()
        return source[position[:, None] + np.arange(lanes)]

    def vector(position: np.ndarray) -> np.ndarray:
        assert ((position >= 0) & (position <= size - lanes) & (position % lanes == 0)).all()
        return position // lanes

    steps = np.concatenate([np.arange(count) for count in copy[:, 2]]) if len(copy) else np.zeros(0, np.int64)
    target, origin, _, stride = np.repeat(copy, copy[:, 2], 0).T
    buffer[vector(target + steps * lanes)] = load(origin + steps * stride)
    outside = np.full((1, lanes), fill)
    one = operations["one"]
    buffer[vector(one[:, 0])] = merge_lanes(outside, index[one[:, 2]], load(one[:, 1]))
    for direction, length in zip(("down", "across"), tile, strict=True):
        for kind in ("copy", "one"):
            run = operations[f"{kind}_{direction}"]
            steps = run[:, 2:] if direction == "across" else np.insert(run[:, 2:], 0, lanes, axis=1)
            for i in range(length):
                value = load(run[:, 1] + steps[:, 1] * i)
                if kind == "one":
                    value = merge_lanes(outside, index[steps[:, 2]], value)
                buffer[vector(run[:, 0] + steps[:, 0] * i)] = value
    merged = merge_lanes(outside, index[two[:, 2]], load(two[:, 1]))
    buffer[vector(two[:, 0])] = merge_lanes(merged, index[two[:, 4]], load(two[:, 3]))
    for operation in more[:, None]:
        at = vector(operation[:, 0])
        buffer[at] = merge_lanes(buffer[at], index[operation[:, 2]], load(operation[:, 1]))
    quarters = operations["quarters"]
    parts = quarters[:, 1:5, None] + np.arange(lanes // 4)
    assert ((parts >= 0) & (parts < len(source)) & (parts // lanes == parts[..., :1] // lanes)).all()
    value = source[parts].reshape(-1, lanes)
    buffer[vector(quarters[:, 0])] = merge_lanes(outside, index[quarters[:, 5]], value)
    return buffer.reshape(-1)
