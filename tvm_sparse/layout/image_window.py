"""Programs that fill a stripe's windows from a plain image, which then need not be brought to columns before.

The lanes of a vector are far apart in the image, but what its neighbours to the right hold are neighbours in memory:
four vectors at once are four elements side by side for each lane, transposed. Lanes outside of the image are masked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .ranges import select_ranges
from .transpose import QUAD

# Kinds of operations with the entries of each; those of the first two come in runs that share their distances.
IMAGE_KINDS = {"quads": QUAD + 1, "masked_quads": QUAD + 2, "singles": 4}
RUN_KINDS = ("runs", "masked_runs")
# Entries of a run.
RUN = 3


@dataclass(frozen=True)
class Strides:
    """Elements between neighbours of a plain tensor; images follow each other without a gap."""

    row: int
    column: int
    channel: int


@dataclass(frozen=True)
class ImageProgram:
    """Operations that fill the buffer of every stripe; places in the buffer and in the image in elements.

    Parameters
    ----------
    quads : numpy.ndarray
        ``[n, 5]``: places of four vectors, and where a lane's four elements start.
    masked_quads : numpy.ndarray
        ``[n, 6]``: the same, and entry of `masks` with the lanes that are in the image, of each of the four.
    singles : numpy.ndarray
        ``[n, 4]``: place of a vector, a lane's element, entries of `lanes` and of `masks`, of whose four the first
        counts.
    runs, masked_runs : numpy.ndarray
        ``[n, 3]``: entry of `lanes` with the distances from that lane's elements to the others', first quad, number of
        quads.
    pointers : numpy.ndarray
        ``[3, stripes + 1]``: of each stripe, the first run, the first run of masked quads, and the first single vector.
    lanes : numpy.ndarray
        ``[k, lanes]``: distances in elements.
    masks : numpy.ndarray
        ``[m, 4, lanes]``: -1 in lanes that are in the image, 0 outside.
    channel_step : int
        Elements of the image between channels that the operations are repeated for; 0 where they fill all channels.
    """

    quads: np.ndarray
    masked_quads: np.ndarray
    singles: np.ndarray
    runs: np.ndarray
    masked_runs: np.ndarray
    pointers: np.ndarray
    lanes: np.ndarray
    masks: np.ndarray
    channel_step: int

    def part(self, stripes: np.ndarray) -> ImageProgram:
        """The program of some stripes, ``[n]`` of their numbers, which are numbered anew."""
        selected, pointers = {}, []
        for kind, row in zip((*RUN_KINDS, "singles"), self.pointers, strict=True):
            chosen, starts = select_ranges(row, stripes)
            selected[kind] = getattr(self, kind)[chosen]
            pointers.append(starts)
        return replace(self, **selected, pointers=np.stack(pointers))


def image_program(
    pixels: tuple[np.ndarray, np.ndarray],
    used: np.ndarray,
    lane_image: np.ndarray,
    places: np.ndarray,
    channel_size: int,
    image: tuple[int, int, int],
    strides: Strides,
) -> ImageProgram:
    """Plan to fill windows.

    Parameters
    ----------
    pixels : tuple of numpy.ndarray
        Row and column of the pixel that each lane holds, also outside of the image:
        ``[stripes, grid rows, grid columns, lanes]``.
    used : numpy.ndarray
        Whether a lane counts, ``[lanes]``; what others hold does not matter.
    lane_image : numpy.ndarray
        Which of the images that are read together each lane belongs to, ``[lanes]``.
    places : numpy.ndarray
        Where the vectors are in the buffer, ``[grid rows, grid columns]``.
    channel_size : int
        Elements of the buffer for one channel.
    image : tuple of int
        Channels, height and width of an image.
    strides : Strides
        Strides of the plain tensor.
    """
    (y, x), (channels, height, width) = pixels, image
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width) & used
    elements = lane_image * (channels * height * width) + y * strides.row + x * strides.column
    before = int(lane_image.max()) * channels * height * width
    size, step = height * width, strides.channel
    if step == 1:
        # Channels lie side by side: they and the pixels to the right are one row of elements.
        size, step = size * channels, 0
        channel = np.arange(channels)
        places = (places[..., None] + channel * channel_size).reshape(len(places), -1)
        elements = (elements[..., None, :] + channel[:, None]).reshape(*y.shape[:2], -1, y.shape[3])
        inside = np.repeat(inside, channels, 2)
    return _plan(elements, inside, used, places, before + size, step)


def _plan(
    elements: np.ndarray, inside: np.ndarray, used: np.ndarray, places: np.ndarray, size: int, channel_step: int
) -> ImageProgram:
    """Plan by elements ``[stripes, rows, columns, lanes]``, of which `size` may be read."""
    stripes, _, columns, lanes = elements.shape
    # The last four of a row overlap those before, where four does not divide its length.
    count = -(-columns // QUAD) if columns >= QUAD else 0
    group = np.minimum(np.arange(count) * QUAD, columns - QUAD)[:, None] + np.arange(QUAD)
    mine = inside[:, :, group]
    begin = elements[:, :, group] - np.arange(QUAD)[:, None]
    needed = mine.any(3)
    start = begin[:, :, :, 0]
    even = ((begin == start[:, :, :, None]) | ~needed[:, :, :, None]).all((3, 4))
    fits = even & ((start >= 0) & (start + QUAD <= size) | ~needed).all(3) & needed.any(3)
    base, distance = _from_one_lane(start, needed)
    whole = (mine | ~used).all((3, 4))

    known_lanes, known_masks = _Rows(lanes), _Rows(QUAD * lanes)
    kinds: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    operations: dict[str, np.ndarray] = {}
    for run_kind, kind, chosen in zip(RUN_KINDS, IMAGE_KINDS, (fits & whole, fits & ~whole), strict=False):
        stripe, row, number = np.nonzero(chosen)
        entries = [places[row[:, None], group[number]], base[chosen][:, None]]
        if kind == "masked_quads":
            entries.append(known_masks.add(-(mine[chosen].reshape(-1, QUAD * lanes).astype(np.int64))))
        shared = known_lanes.add(distance[chosen])[:, 0]
        order = np.lexsort((shared, stripe))
        stripe, shared = stripe[order], shared[order]
        operations[kind] = np.concatenate(entries, 1)[order]
        first = np.flatnonzero((np.diff(stripe, prepend=-1) != 0) | (np.diff(shared, prepend=-1) != 0))
        runs = [shared[first], first, np.diff(first, append=len(stripe))]
        kinds[run_kind] = stripe[first], np.stack(runs, 1)
    left = np.ones(elements.shape[:3], bool)
    stripe, row, number = np.nonzero(fits)
    left[stripe[:, None], row[:, None], group[number]] = False
    stripe, row, column = np.nonzero(left)
    alone = inside[left]
    base, distance = _from_one_lane(elements[left], alone)
    masks = np.zeros((len(alone), QUAD, lanes), np.int64)
    masks[:, 0] = -alone.astype(np.int64)
    entries = [places[row, column][:, None], base[:, None], known_lanes.add(distance)]
    kinds["singles"] = stripe, np.concatenate([*entries, known_masks.add(masks.reshape(-1, QUAD * lanes))], 1)
    return ImageProgram(
        **operations,
        **{kind: entries for kind, (_, entries) in kinds.items()},
        pointers=np.stack([np.searchsorted(of_stripe, np.arange(stripes + 1)) for of_stripe, _ in kinds.values()]),
        lanes=known_lanes.rows,
        masks=known_masks.rows.reshape(-1, QUAD, lanes),
        channel_step=channel_step,
    )


def _from_one_lane(element: np.ndarray, needed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Element of the first lane that is needed (0 where none is), and distances to the others, of `needed` ones."""
    first = np.take_along_axis(element, needed.argmax(-1)[..., None], -1)[..., 0]
    return np.where(needed.any(-1), first, 0), np.where(needed, element - first[..., None], 0)


class _Rows:
    """Numbers equal rows alike, counted in elements.

    Parameters
    ----------
    length : int
        Elements of a row.
    """

    def __init__(self, length: int):
        self.rows = np.zeros((0, length), np.int64)

    def add(self, rows: np.ndarray) -> np.ndarray:
        """First element of each row ``[n, length]`` among all distinct ones, ``[n, 1]``."""
        distinct, which = np.unique(np.concatenate([self.rows, rows]), axis=0, return_inverse=True)
        # Rows that were there keep their numbers.
        old = len(self.rows)
        which = which.reshape(-1)
        number = np.full(len(distinct), -1)
        number[which[:old]] = np.arange(old)
        new = np.flatnonzero(number < 0)
        number[new] = old + np.arange(len(new))
        self.rows = np.concatenate([self.rows, distinct[new]])
        return number[which[old:]][:, None] * self.rows.shape[1]
