"""Unstructured sparse rows for activations in columns: K-blocks, rows grouped by their count of nonzeros.

The rows of a weight ``[M, C / groups, taps]`` are cut into K-blocks of input channels, so that the activations that a
block reads stay in the first-level cache. Within a block rows are sorted by count and taken some at a time, as a
*bundle*, so that a small register tile has enough independent sums. Bundles may consist of pairs of rows that share
columns, as many as can be found: what both multiply is loaded once. Rows of a bundle are padded to its longest with
zeros (neighbours in the order rarely differ); all bundles of a *group* have as many shared columns and as many
other nonzeros, ``4 * quads + tail``, and the groups of one tail are neighbours: a kernel runs one loop per tail
without mispredicted branches (SELL-C-sigma's idea). Quads begin at multiples of four, so that no load of one crosses a
cache line. Offsets are 16 bit, premultiplied, in elements of the buffer that the block reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from .offsets import check_offsets, packed_bytes, places_of_offsets
from .row_pairs import pair_rows, round_down

# Nonzeros of one unrolled step; a row's tail has fewer.
QUAD = 4
# Entries of a group.
GROUP = 5
# What another group costs, in columns that a bundle's pairs share: branch prediction does not foresee its loops' ends.
_GROUP_COST = 20
# The same in zeros that a bundle's rows are padded with instead: few, for they cost whole multiply-adds. Pairs, whose
# groups are more and smaller, lose by it.
_GROUP_ZEROS = 1


@dataclass(frozen=True)
class UnstructuredColumns:
    """Unstructured sparsity over columns.

    Parameters
    ----------
    channel_stride : int
        Elements between the channels of the buffer that a block reads.
    taps : tuple of int
        Position of each kernel tap in that buffer, in elements.
    block : int
        Input channels of a K-block.
    groups : int
        Groups of the convolution; a depth-wise one has as many as channels.
    chunks : int
        Parts of the output channels that run in parallel.
    bundle : int
        Rows that a kernel computes at once.
    pairs : bool
        Whether bundles, of an even number of rows, consist of pairs of rows that share columns.
    """

    channel_stride: int
    taps: tuple[int, ...]
    block: int
    groups: int = 1
    chunks: int = 1
    bundle: int = 1
    pairs: bool = False
    name: str = "unstructured"

    def __post_init__(self) -> None:
        if min(self.block, self.groups, self.chunks, self.bundle) < 1:
            raise ValueError(f"block, groups, chunks and bundle must be at least 1: {self}")
        if self.pairs and self.bundle % 2:
            raise ValueError(f"bundles of pairs must have an even number of rows: {self}")
        check_offsets(self.block, self.channel_stride, self.taps)

    def pack(self, dense: np.ndarray) -> dict[str, np.ndarray]:
        """Pack a weight.

        Parameters
        ----------
        dense : numpy.ndarray
            float32 ``[M, C / groups, taps]``.

        Returns
        -------
        dict of str to numpy.ndarray
            ``values`` float32 and ``offsets`` uint16 ``[nonzeros + padding]``: of each bundle a shared one of every
            row, again and again, then four others of every row, then the rows' tails, the shared ones and the others
            padded to multiples of four; ``rows`` (output channels,
            in order of work; a bundle short of rows repeats some); ``group`` ``[n, 5]``: first row, bundles, first
            nonzero, quads, shared columns;
            ``group_pointers`` ``[blocks * 4 + 1]`` by block and tail; ``block`` ``[blocks, 4]``: first input
            channel, channels, first, last;
            ``block_pointers`` ``[chunks + 1]``.
        """
        rows, per_group, taps = dense.shape
        if taps != len(self.taps) or rows % self.groups:
            raise ValueError(f"a weight of shape {dense.shape} does not fit {self}")
        position = np.arange(self.block)[:, None] * self.channel_stride + np.asarray(self.taps)
        out = _Packed(self.bundle, self.pairs)
        for chunk in self._chunks(rows, per_group):
            out.block_pointers.append(len(out.blocks))
            for row_range, channels, local, first, last in chunk:
                weight = dense[row_range.start : row_range.stop, local.start : local.stop]
                out.add_block(weight, row_range, channels, position, per_group, first, last)
        out.block_pointers.append(len(out.blocks))
        return out.arrays()

    def unpack(self, packed: Mapping[str, np.ndarray], shape: tuple[int, int, int]) -> np.ndarray:
        """Inverse of `pack`, exact.

        Parameters
        ----------
        packed : mapping
            What `pack` returned.
        shape : tuple of int
            Shape ``[M, C / groups, taps]`` of the dense weight.
        """
        dense = np.zeros(shape, np.float32)
        per_group = shape[1]
        rows_per_group = shape[0] // self.groups
        lookup = places_of_offsets(self.block, self.channel_stride, self.taps)
        pointers = packed["group_pointers"]
        for block, (channel, _, _, _) in enumerate(packed["block"]):
            for tail in range(QUAD):
                begin, end = pointers[block * QUAD + tail], pointers[block * QUAD + tail + 1]
                for first, bundles, position, quads, shared in packed["group"][begin:end]:
                    numbers = list(_bundle_rows(self.bundle, shared, quads, tail))
                    both = self.bundle * shared
                    between, stride = aligned(both) - both, aligned(both) + aligned(len(numbers) - both)
                    for index in range(bundles):
                        for place, number in enumerate(numbers):
                            row = packed["rows"][first + index * self.bundle + number]
                            base = channel - row // rows_per_group * per_group
                            k = position + index * stride + place + between * (place >= both)
                            local, tap = lookup[int(packed["offsets"][k])]
                            if packed["values"][k] != 0:
                                dense[row, base + local, tap] = packed["values"][k]
        return dense

    @staticmethod
    def nbytes(packed: Mapping[str, np.ndarray]) -> int:
        """Bytes of a packed weight as it is stored in a package."""
        return packed_bytes(packed, ("rows", "group", "group_pointers", "block", "block_pointers"))

    def _chunks(self, rows: int, per_group: int) -> list[list[tuple[range, range, range, bool, bool]]]:
        """Blocks of each chunk: output rows, input channels, their place in the weight, first, last."""
        rows_per_group = rows // self.groups
        out = []
        for part in split_rows(rows, self.chunks, rows_per_group):
            blocks = []
            if len(part) <= rows_per_group:
                base = part.start // rows_per_group * per_group
                starts = range(0, per_group, self.block)
                for start in starts:
                    stop = min(start + self.block, per_group)
                    blocks.append(
                        (part, range(base + start, base + stop), range(start, stop),
                         start == 0, start == starts[-1])
                    )  # fmt: skip
            else:
                together = max(1, self.block // per_group) * rows_per_group
                if per_group > self.block:
                    raise ValueError(f"groups of {per_group} channels do not fit a block of {self.block}")
                for start in range(part.start, part.stop, together):
                    stop = min(start + together, part.stop)
                    channels = range(
                        start // rows_per_group * per_group, stop // rows_per_group * per_group
                    )
                    blocks.append((range(start, stop), channels, range(per_group), True, True))
            out.append(blocks)
        return out


def aligned(entries):
    """Entries that some take with what is left free before the next quad; of integers and expressions."""
    return (entries + QUAD - 1) // QUAD * QUAD


def split_rows(rows: int, chunks: int, unit: int) -> list[range]:
    """Cut rows into about `chunks` parts; each is a whole number of conv groups, or lies within one."""
    groups = rows // unit
    if groups >= chunks:
        bounds = np.unique(np.linspace(0, groups, chunks + 1).astype(int)) * unit
        return [range(a, b) for a, b in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)]
    per_group = -(-chunks // groups)
    bounds = np.unique(np.linspace(0, unit, per_group + 1).astype(int)).tolist()
    return [
        range(g * unit + a, g * unit + b)
        for g in range(groups)
        for a, b in zip(bounds[:-1], bounds[1:], strict=True)
    ]


def _bundle_rows(bundle: int, shared: int, quads: int, tail: int) -> Iterator[int]:
    """The row of every nonzero of a bundle, in their order."""
    for place in range(bundle * shared):
        yield place % bundle
    for place in range(bundle * quads * QUAD):
        yield place // QUAD % bundle
    for place in range(bundle * tail):
        yield place // tail


def _columns(nonzero: np.ndarray, both: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns that pairs of rows share and that each row has beside them.

    Parameters
    ----------
    nonzero : numpy.ndarray
        bool ``[bundles, rows, columns]``.
    both : int
        Columns that the rows of a pair share, of those that both have.
    size : int
        Nonzeros of every row beside the shared ones.

    Returns
    -------
    tuple of numpy.ndarray
        ``[bundles, rows, both]``, alike for both rows of a pair, and ``[bundles, rows, size]``, padded with
        the number of columns.
    """
    bundles, rows, columns = nonzero.shape
    if both:
        common = nonzero[:, 0::2] & nonzero[:, 1::2]
        common &= np.cumsum(common, axis=2) <= both
        shared = np.nonzero(common)[2].reshape(bundles, rows // 2, both).repeat(2, axis=1)
        nonzero = nonzero & ~common.repeat(2, axis=1)
    else:
        shared = np.zeros((bundles, rows, 0), np.int64)
    own = np.full((bundles, rows, size), columns)
    bundle, row, column = np.nonzero(nonzero)
    own[bundle, row, np.cumsum(nonzero, axis=2)[bundle, row, column] - 1] = column
    return shared, own


def _interleave(array: np.ndarray, shared: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Entries of ``[bundles, rows, columns]`` as a kernel reads them: shared ones, quads of rows by turns, tails."""
    bundles, rows, _ = array.shape
    whole = own.shape[2] // QUAD * QUAD

    def take(columns: np.ndarray, step: int) -> np.ndarray:
        entries = np.take_along_axis(array, columns, 2).reshape(bundles, rows, -1, step)
        return entries.swapaxes(1, 2).reshape(bundles, -1)

    tails = np.take_along_axis(array, own[..., whole:], 2).reshape(bundles, -1)
    parts = take(shared, 1), np.concatenate([take(own[..., :whole], QUAD), tails], 1)
    padded = [np.pad(part, ((0, 0), (0, aligned(part.shape[1]) - part.shape[1]))) for part in parts]
    return np.concatenate(padded, 1).reshape(-1)


class _Packed:
    """Growing arrays of a packed weight."""

    def __init__(self, bundle: int, pairs: bool) -> None:
        self.bundle = bundle
        self.pairs = pairs
        self.values: list[np.ndarray] = []
        self.offsets: list[np.ndarray] = []
        self.rows: list[np.ndarray] = []
        self.groups: list[tuple[int, ...]] = []
        self.group_pointers = [0]
        self.blocks: list[tuple[int, int, int, int]] = []
        self.block_pointers: list[int] = []
        self._row_count = 0
        self._value_count = 0

    def add_block(
        self,
        weight: np.ndarray,
        rows: range,
        channels: range,
        position: np.ndarray,
        per_group: int,
        first: bool,
        last: bool,
    ) -> None:
        """Add one block: `weight` ``[rows, channels of the row's group in the block, taps]``."""
        flat = weight.reshape(len(rows), -1)
        nonzero = flat != 0
        count = nonzero.sum(1)
        order = np.argsort(count, kind="stable")
        if not first and not last:
            order = order[count[order] > 0]
        channel = np.arange(weight.shape[1])[:, None]
        # Where several conv groups share the block, a row's channels start at its own group's, and none are shared.
        several = len(channels) != weight.shape[1]
        rows_per_group = len(rows) * per_group // len(channels) if several else len(rows)
        base = np.arange(len(rows)) // rows_per_group * per_group if several else np.zeros(len(rows), np.int64)
        place = position[base[:, None, None] + channel, np.arange(weight.shape[2])].reshape(len(rows), -1)
        # One column more, where padding points to.
        flat, place = (np.pad(array, ((0, 0), (0, 1))) for array in (flat, place))
        bundles, shared = self._bundles(nonzero, order, self.pairs and not several)
        own = count[bundles].max(1, initial=0) - shared
        if not self.pairs:
            own = -round_down(-own, _GROUP_ZEROS)
        self.blocks.append((channels.start, len(channels), int(first), int(last)))
        for tail in range(QUAD):
            kind = own % QUAD == tail
            for size, both in np.unique(np.stack([own[kind], shared[kind]], 1), axis=0).tolist():
                members = bundles[kind & (own == size) & (shared == both)]
                self.groups.append((self._row_count, len(members), self._value_count, size // QUAD, both))
                self.rows.append(np.asarray(rows)[members].reshape(-1))
                columns = _columns(nonzero[members], both, size)
                self.values.append(_interleave(flat[members], *columns))
                self.offsets.append(_interleave(place[members], *columns))
                self._row_count += members.size
                self._value_count += self.values[-1].size
            self.group_pointers.append(len(self.groups))

    def _bundles(self, nonzero: np.ndarray, order: np.ndarray, pairs: bool) -> tuple[np.ndarray, np.ndarray]:
        """Rows of each bundle ``[n, rows]``, columns that its pairs share ``[n]``; `order` has the rows by count."""
        if not pairs:
            short = -len(order) % self.bundle
            bundles = np.concatenate([order, np.repeat(order[-1:], short)]).reshape(-1, self.bundle)
            return bundles, np.zeros(len(bundles), np.int64)
        if not len(order):
            return np.zeros((0, self.bundle), np.int64), np.zeros(0, np.int64)
        pair = order[pair_rows(nonzero[order])]
        common = (nonzero[pair[:, 0]] & nonzero[pair[:, 1]]).sum(1)
        longest = nonzero[pair].sum(2).max(1)
        arranged = np.lexsort((common, longest))
        arranged = np.concatenate([arranged, np.repeat(arranged[-1:], -len(pair) % (self.bundle // 2))])
        bundles = pair[arranged].reshape(-1, self.bundle)
        longest = longest[arranged].reshape(len(bundles), -1).max(1)
        shared = common[arranged].reshape(len(bundles), -1).min(1)
        for size in np.unique(longest):
            alike = longest == size
            shared[alike] = round_down(shared[alike], _GROUP_COST)
        return bundles, shared

    def arrays(self) -> dict[str, np.ndarray]:
        """The packed weight."""
        join = np.concatenate
        return {
            "values": join([*self.values, np.zeros(16)]).astype(np.float32),
            "offsets": join([*self.offsets, np.zeros(16)]).astype(np.uint16),
            "rows": join([*self.rows, np.zeros(0)]).astype(np.int64),
            "group": np.asarray(self.groups, np.int64).reshape(-1, GROUP),
            "group_pointers": np.asarray(self.group_pointers, np.int64),
            "block": np.asarray(self.blocks, np.int64).reshape(-1, 4),
            "block_pointers": np.asarray(self.block_pointers, np.int64),
        }
