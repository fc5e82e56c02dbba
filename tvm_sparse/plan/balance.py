"""How many parts a layer's channels are cut into, so that the cores finish together."""

from __future__ import annotations


def balanced_chunks(units: int, cores: int, most: int, overhead: float, least: int = 1) -> int:
    """Parts that a layer's channels are cut into for every unit of its pixels.

    Each core gets as many tasks, a part of a unit each, as its share rounded up. More parts make the shares more even,
    but each repeats what is done once per unit.

    Parameters
    ----------
    units : int
        Pieces of the pixels that cores can work on side by side, such as panels.
    cores : int
        Cores to plan for.
    most : int
        Largest number of parts.
    overhead : float
        What each further part repeats, as a share of a layer's time.
    least : int
        Smallest number of parts, where one would be too large for other reasons.

    Returns
    -------
    int
        The number of parts that ends first, at least 1 and at most `most`.
    """

    def duration(parts: int) -> float:
        return -(-units * parts // cores) / (units * parts) * (1 + overhead * (parts - 1))

    # One of so many numbers as there are cores makes the shares even.
    most = max(most, 1)
    return min(range(min(least, most), min(least + cores - 1, most) + 1), key=duration)
