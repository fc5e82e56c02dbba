"""Random pruned weights for hypothesis."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

KINDS = ("random", "zero", "dense", "one full row", "one nonzero", "infinite", "empty rows", "equal rows")


@st.composite
def pruned(draw, shape: tuple[int, ...], kinds: tuple[str, ...] = KINDS) -> np.ndarray:
    """A float32 weight of a shape, with zeros of some kind."""
    rng = np.random.default_rng(draw(st.integers(0, 1 << 16)))
    kind = draw(st.sampled_from(kinds))
    weight = rng.standard_normal(shape).astype("float32")
    weight[weight == 0] = 1
    if kind == "dense":
        return weight
    if kind == "zero":
        return np.zeros(shape, np.float32)
    keep = np.zeros(shape, bool)
    row = draw(st.integers(0, shape[0] - 1))
    if kind == "one full row":
        keep[row] = True
    elif kind == "one nonzero":
        keep[(row, *(draw(st.integers(0, size - 1)) for size in shape[1:]))] = True
    elif kind == "equal rows":
        keep[:] = rng.random(shape[1:]) < 0.5
    else:
        keep = rng.random(shape) < draw(st.sampled_from([0.05, 0.3, 0.9]))
    if kind == "empty rows":
        keep[rng.random(shape[0]) < 0.5] = False
    if kind == "infinite":
        weight[rng.random(shape) < 0.5] = np.inf
        weight[rng.random(shape) < 0.3] = -np.inf
    return np.where(keep, weight, np.float32(0))
