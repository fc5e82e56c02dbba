"""Which parts of a network run on groups of how many items: the cheapest sequence of stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

# Calls of a stage at most: each is code of its own for the virtual machine.
_MAX_RUNS = 64
# What a split must gain at least, as a share of the whole.
_MIN_GAIN = 0.02


@dataclass(frozen=True)
class Stage:
    """Consecutive operators that run on groups of one size.

    Parameters
    ----------
    start, stop : int
        Operators ``start`` to ``stop - 1``.
    group : int
        Items of a group; the whole batch in a stage that is not split.
    """

    start: int
    stop: int
    group: int


def group_sizes(batch: int) -> list[int]:
    """Sizes of groups that a batch may be split into, ascending; the last is the batch."""
    divisors = [g for g in range(1, batch + 1) if batch % g == 0]
    return [g for g in divisors if g == batch or g * _MAX_RUNS >= batch]


def choose_stages(
    costs: Sequence[Sequence[float | None]], sizes: Sequence[int], crossing: Callable[[int], float]
) -> tuple[list[Stage], float]:
    """Split a sequence of operators into stages.

    Parameters
    ----------
    costs : sequence of sequence of float or None
        Cost of each operator for each size, for the whole batch; None where it cannot run so.
    sizes : sequence of int
        Sizes of groups, the last one the batch.
    crossing : callable
        Cost of the values that are alive between operator ``i - 1`` and operator ``i``, where groups end there;
        infinite where they must not. With the number of operators: cost of the results.

    Returns
    -------
    list of Stage
        One stage of the whole batch where nothing else is clearly cheaper.
    float
        What the stages save.
    """
    if not costs:
        return [], 0.0
    last = len(sizes) - 1
    infinite = float("inf")
    best = [infinite if cost is None else cost for cost in costs[0]]
    came_from: list[list[int]] = []
    for place in range(1, len(costs)):
        change = crossing(place)
        cheapest = min(range(len(sizes)), key=lambda size: best[size])
        came_from.append([size if best[size] <= best[cheapest] + change else cheapest for size in range(len(sizes))])
        reached = [min(best[size], best[cheapest] + change) for size in range(len(sizes))]
        best = [infinite if cost is None else before + cost for before, cost in zip(reached, costs[place], strict=True)]
    undivided = sum(cost[last] or 0.0 for cost in costs)
    end = crossing(len(costs))
    best = [cost if size == last else cost + end for size, cost in enumerate(best)]
    chosen = min(range(len(sizes)), key=lambda size: best[size])
    if best[chosen] > (1 - _MIN_GAIN) * undivided:
        return [Stage(0, len(costs), sizes[last])], 0.0
    path = [chosen]
    for step in reversed(came_from):
        path.append(step[path[-1]])
    path.reverse()
    stages: list[Stage] = []
    for place, size in enumerate(path):
        if stages and stages[-1].group == sizes[size]:
            stages[-1] = Stage(stages[-1].start, place + 1, sizes[size])
        else:
            stages.append(Stage(place, place + 1, sizes[size]))
    return stages, undivided - best[chosen]
