"""The dense register tile: rows x vectors, accumulated over a depth."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tvm.script.ir_builder import tirx as T

from .ir import Register, broadcast, registers
from .isa import Isa

# Elements of dense weights that are fetched ahead. They stream from memory once for every panel, and a core's own
# prefetchers stop at the end of a page.
DENSE_AHEAD = 2048


def row_sizes(isa: Isa, vectors: int) -> tuple[int, ...]:
    """Rows that a tile computes at once, descending: what does not divide the largest takes the smaller ones.

    With 16 registers, 4 rows by 3 vectors or 6 rows by 2 keep both multiply-add units busy; the first takes fewer
    loads, the panel's vectors decide which divides better.
    """
    if isa.registers >= 32 or (vectors % 2 == 0 and vectors % 3):
        return (6, 4, 2, 1)
    return (4, 2, 1)


def pieces(isa: Isa, rows: int, vectors: int) -> list[range]:
    """Cut the vectors of a panel into nearly equal pieces that fit the registers beside `rows` rows."""
    if isa.registers >= 32 or rows < 4:
        size = 4
    else:
        size = 2 if rows > 4 else 3
    count = -(-vectors // size)
    bounds = [vectors * i // count for i in range(count + 1)]
    return [range(a, b) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]


def multiply_tile(
    starts: Sequence,
    width: int,
    lanes: int,
    depth,
    step: Callable[[object], tuple[Sequence, Sequence]],
) -> list[list[Register]]:
    """Emit ``acc[i][s] = start[i] + sum_k weight_k[i] * vector_k[s]``.

    Parameters
    ----------
    starts : sequence of expression
        Start value of each row, a vector.
    width : int
        Vectors of the tile.
    lanes : int
        float32 elements of a vector.
    depth : expression
        Number of steps.
    step : callable
        Given k, returns the `width` vectors and the scalar weight of each row.

    Returns
    -------
    list of list of Register
        The accumulators, by row and vector.
    """
    accumulators = tile_registers(starts, width, lanes)
    with T.serial(0, depth) as k:
        accumulate(accumulators, *step(k), lanes)
    return accumulators


def tile_registers(starts: Sequence, width: int, lanes: int) -> list[list[Register]]:
    """The accumulators of a tile, by row and vector, set to the start value of their row."""
    accumulators = [registers(width, lanes) for _ in starts]
    for row, start in zip(accumulators, starts, strict=True):
        for accumulator in row:
            accumulator.set(start)
    return accumulators


def accumulate(
    accumulators: Sequence[Sequence[Register]], vectors: Sequence, weights: Sequence, lanes: int
) -> None:
    """Emit ``acc[i][s] += weight[i] * vector[s]``: one vector for each column, one scalar for each row."""
    bound = [T.bind(vector) for vector in vectors]
    for row, weight in zip(accumulators, weights, strict=True):
        value = T.bind(broadcast(weight, lanes))
        for accumulator, vector in zip(row, bound, strict=True):
            accumulator.set(accumulator.value + value * vector)
