"""Offsets of weights: where the buffer of a K-block holds the input that each multiplies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np


def check_offsets(block: int, channel_stride: int, taps: tuple[int, ...]) -> None:
    """Refuse a K-block whose offsets do not fit 16 bits.

    Parameters
    ----------
    block : int
        Input channels of the K-block.
    channel_stride : int
        Elements between the channels of the buffer.
    taps : tuple of int
        Position of each kernel tap, in elements.

    Raises
    ------
    ValueError
        If the largest offset exceeds 65535.
    """
    if (block - 1) * channel_stride + max(taps) > np.iinfo(np.uint16).max:
        raise ValueError(
            f"offsets of {block} channels of {channel_stride} elements do not fit 16 bits: use a smaller block"
        )


def places_of_offsets(
    block: int, channel_stride: int, taps: tuple[int, ...], step: int = 1
) -> dict[int, tuple[int, int]]:
    """Channel and tap of every offset of a K-block; of every `step`-th channel."""
    return {
        channel * channel_stride + position: (channel, tap)
        for channel in range(0, block, step)
        for tap, position in enumerate(taps)
    }


def packed_bytes(packed: Mapping[str, np.ndarray], tables: Iterable[str]) -> int:
    """Bytes of a packed weight as a package stores it: values, 16-bit offsets, and tables of 32-bit integers."""
    return packed["values"].nbytes + packed["offsets"].nbytes + 4 * sum(packed[name].size for name in tables)
