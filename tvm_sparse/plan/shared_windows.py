"""Panels that lie below each other share their windows.

Their windows overlap: each row of panels of a 3x3 convolution reads two of the rows that the one above has read. Built
once for a column of panels, they take a third to a half of the time, and each K-block's weights are read once for all
of them. Each panel reads a part of the buffer that fits the first-level cache; the whole lies in the second-level one.
"""

from __future__ import annotations

from tvm_sparse.layout.geometry import Geometry
from tvm_sparse.schedules.cpu.driver import SHARED_BUFFER_ELEMENTS
from tvm_sparse.schedules.cpu.isa import Isa

from .balance import balanced_chunks
from .layer import Convolution
from .parts import window_channels

# Share of a layer's time that windows take, which every part of the output channels builds again.
_BUILT_SHARE = 0.15


def shared_panels(layer: Convolution, source: Geometry, target: Geometry, isa: Isa, sums_share: float) -> int:
    """Rows of panels that an unstructured layer builds windows for at once, so that each core builds the fewest.

    Images beyond the second-level cache stay row by row: their layers may run in strips with their neighbours.

    Parameters
    ----------
    layer : Convolution
        The layer.
    source, target : Geometry
        Geometry of its input and output.
    isa : Isa
        Instruction set.
    sums_share : float
        Share of the second-level cache that sums fill before a layer's output channels are cut into parts, each of
        which builds windows of its own.
    """
    rows, channels = layer.weight.shape[0], layer.weight.shape[1] * layer.groups
    window = layer.window
    large = source.set_bytes(channels) > isa.l2_bytes // 2
    if large or layer.groups > 1 or max(window.dilation) > 1 or window.kernel[0] <= window.stride[0]:
        return 1
    block = min(channels, window_channels(layer, target, isa))
    # Vectors of windows that the core builds which builds most.
    best, best_lines = 1, float("inf")
    for down in range(1, target.panels_down + 1):
        height, width = window.extent(down * target.tile[0], target.tile[1])
        # Columns of the grid have an odd number of rows, of each phase of the stride.
        elements = (height + 2 * window.stride[0]) * width * target.lanes
        if down > 1 and elements * block > SHARED_BUFFER_ELEMENTS:
            break
        units = target.sets * -(-target.panels_down // down) * target.panels_across
        sums = 4 * rows * target.vectors * target.lanes * down / (sums_share * isa.l2_bytes)
        chunks = balanced_chunks(units, isa.tasks, rows, _BUILT_SHARE, max(1, round(sums)))
        lines = -(-units * chunks // isa.tasks) * height * width
        if lines < best_lines:
            best, best_lines = down, lines
    return best
