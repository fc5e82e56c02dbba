"""Programs that gather pixels of columns by merging whole vectors.

A gather instruction reads lane by lane, a cache access each. The lanes of a vector that is wanted lie in a few stored
vectors only: loading those and merging them by two-source permutes is several times faster. A program lists the
operations by *stripe* (vectors that are made together) and by the number of stored vectors that each merges.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Sign bit: "take this lane from the source". The bit above the lane's number addresses the second source of a
# two-source permute (AVX-512), the bits below the lane of a one-source permute (AVX2).
TAKE = -(1 << 31)

# Vectors of a stripe: with a few channels at a time, they and what they read stay in a first-level cache.
_STRIPE_VECTORS = 100
_BLOCK_VECTORS = 800


@dataclass(frozen=True)
class MergeProgram:
    """Operations of all stripes; positions in elements.

    Parameters
    ----------
    operations : numpy.ndarray
        The operations one after the other. Kind 0 copies vectors: destination, source, count, elements between the
        sources (destinations follow each other). Kind n merges n stored vectors: destination, n sources, and
        ``max(1, n - 1)`` lane indices. The kind after the last of those gathers: destination, lane index.
    pointers : numpy.ndarray
        ``[kinds, stripes + 1]``: where the operations of a kind and stripe start.
    lanes : numpy.ndarray
        int32 ``[k, lanes]``: the lane indices; for gathers the elements to read.
    """

    operations: np.ndarray
    pointers: np.ndarray
    lanes: np.ndarray


def merge_program(
    pixels: np.ndarray, used: np.ndarray, destination: np.ndarray, bounds: np.ndarray, spacing: int, gather: bool
) -> MergeProgram:
    """Plan the vectors of a tensor, or of a buffer.

    Parameters
    ----------
    pixels : numpy.ndarray
        ``[vectors, lanes]``: element of the source that each lane reads, for the first channel.
    used : numpy.ndarray
        ``[vectors, lanes]``: whether a lane holds a pixel; what others hold does not matter.
    destination : numpy.ndarray
        ``[vectors]``: element that each vector is written to, ascending within a stripe.
    bounds : numpy.ndarray
        ``[stripes + 1]``: first vector of each stripe.
    spacing : int
        Elements between vectors of the destination that follow each other.
    gather : bool
        Gather what is not copied, lane by lane: for CPUs without permutes of two vectors.
    """
    lanes = pixels.shape[1]
    kinds: list[list[list[int]]] = [[] for _ in range(lanes + 2)]
    starts: list[list[int]] = []
    indices: dict[tuple[int, ...], int] = {}
    source, lane = pixels // lanes, pixels % lanes
    whole = (source == source[:, :1]).all(1) & ((lane == np.arange(lanes)) | ~used).all(1)
    for first, last in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        starts.append([sum(map(len, kind)) for kind in kinds])
        mine = np.arange(first, last)
        copied = mine[whole[first:last]]
        kinds[0] += join_copies(destination[copied], source[copied, 0] * lanes, spacing)
        for v in mine[~whole[first:last]].tolist():
            target = int(destination[v])
            if gather:
                kinds[-1].append([target, indices.setdefault(tuple(pixels[v].tolist()), len(indices))])
                continue
            sources = list(dict.fromkeys(source[v].tolist()))
            keys = _lane_indices([sources.index(s) for s in source[v].tolist()], lane[v].tolist(), len(sources))
            numbers = [indices.setdefault(key, len(indices)) for key in keys]
            kinds[len(sources)].append([target, *(s * lanes for s in sources), *numbers])
    starts.append([sum(map(len, kind)) for kind in kinds])
    pointers = np.asarray(starts, np.int64).T
    pointers += np.concatenate([[0], np.cumsum(pointers[:-1, -1])])[:, None]
    flat = [entry for kind in kinds for operation in kind for entry in operation]
    return MergeProgram(
        operations=np.asarray(flat, np.int64),
        pointers=pointers,
        lanes=np.asarray(list(indices), np.int64).reshape(-1, lanes),
    )


def fill_unused(pixels: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Let lanes without a pixel repeat their vector's first one, so that they ask for no vector of their own."""
    first = np.take_along_axis(pixels, used.argmax(-1)[..., None], -1)
    return np.where(used, pixels, first)


def panel_stripes(panels: int, vectors: int) -> np.ndarray:
    """Cut the panels of an image into stripes: the first panel of each, and the number of panels."""
    count = max(1, round(panels * vectors / _STRIPE_VECTORS))
    return np.unique(np.arange(count + 1) * panels // count)


def block_of_channels(channels: int, vectors: int) -> int:
    """Channels that a task does at once, where each has that many vectors."""
    most = min(16, max(6, _BLOCK_VECTORS // vectors))
    return -(-channels // -(-channels // most))


def join_copies(destination: np.ndarray, source: np.ndarray, spacing: int) -> list[list[int]]:
    """Join copies of vectors whose destinations follow each other and whose sources are equally far apart.

    Returns
    -------
    list of list of int
        Destination, source, number of vectors, elements between the vectors of the source.
    """
    order = np.argsort(destination)
    out: list[list[int]] = []
    for target, origin in zip(destination[order].tolist(), source[order].tolist(), strict=True):
        if out:
            start, first, count, step = out[-1]
            if target == start + count * spacing:
                if count == 1 and origin > first:
                    out[-1] = [start, first, 2, origin - first]
                    continue
                if origin == first + count * step:
                    out[-1] = [start, first, count + 1, step]
                    continue
        out.append([target, origin, 1, 0])
    return out


def _lane_indices(which: list[int], lane: list[int], sources: int) -> list[tuple[int, ...]]:
    """Index vectors that merge the sources one after the other; `which` source each lane reads, and its `lane`."""
    lanes = len(lane)

    def taken(source: int) -> int:
        return TAKE | (lanes + source)

    if sources == 1:
        return [tuple(lane)]
    # The first two sources are permuted at once, each further one into what is there.
    out = [tuple(taken(s) if w == 1 else s for w, s in zip(which, lane, strict=True))]
    for n in range(2, sources):
        merged = (taken(s) if w == n else at for at, (w, s) in enumerate(zip(which, lane, strict=True)))
        out.append(tuple(merged))
    return out
