"""Random geometries and windows for hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from tvm_sparse.layout.geometry import Geometry, choose_geometry
from tvm_sparse.layout.halo import Window

LANES = st.sampled_from([4, 8, 16])


@st.composite
def geometries(draw, size=None, batch=None, lanes=None, limit: int = 40) -> Geometry:
    """Geometries of images up to `limit` squared (and of signals of height 1): chosen ones, and any other.

    Images of a batch may share vectors.
    """
    height, width = size or (draw(st.integers(1, limit) | st.just(1)), draw(st.integers(1, limit)))
    batch = batch or draw(st.integers(1, 4))
    lanes = lanes or draw(LANES)
    if draw(st.booleans()):
        return choose_geometry(batch, height, width, lanes)
    images = draw(st.sampled_from([n for n in (1, 2, 4) if batch % n == 0]))
    down = draw(st.integers(1, lanes // images))
    across = draw(st.integers(1, lanes // images // down))
    tile = draw(st.tuples(st.integers(1, 5), st.integers(1, 4)))
    return Geometry(batch, height, width, lanes, (down, across), tile, images)


@st.composite
def windows(draw) -> Window:
    """Windows with strides above the kernel's size, and padding above it, on each side its own."""
    pair = st.tuples(st.integers(1, 4), st.integers(1, 4))
    return Window(
        kernel=draw(pair),
        stride=draw(pair),
        dilation=draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        padding=tuple(draw(st.lists(st.integers(0, 5), min_size=4, max_size=4))),
    )
