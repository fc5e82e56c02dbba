"""How many parts the tile of an unstructured layer is computed in.

A part shares each weight's broadcast, and what a row of a K-block takes beside its nonzeros. Large parts share more;
small ones leave room for more channels in a K-block, so that partial sums are stored and read less often.
"""

from __future__ import annotations

from math import ceil, gcd, prod

import numpy as np

from tvm_sparse.layout.geometry import Geometry
from tvm_sparse.schedules.cpu.isa import Isa
from tvm_sparse.schedules.cpu.sparse_columns import can_pair

from .layer import Convolution

# Cycles of a nonzero, and of each vector it is multiplied with; of a row of a block, and of each vector of its sums.
_NONZERO_CYCLES, _PRODUCT_CYCLES = 0.5, 0.55
_ROW_CYCLES, _SUM_CYCLES = 6, 2.3
# Nonzeros that a row must have in a K-block, so that pairs of rows share enough columns: 3 to 14 % of the time from
# 20 % density on, nothing below.
PAIRED_NONZEROS = 26
# Cycles of a nonzero where rows are paired, over those without: the more nonzeros, the more are shared; measured up to
# that density.
_PAIRED, _PAIRED_PER_DENSITY, _PAIRED_MOST = 1.06, 0.41, 0.5
# Share of the first-level cache that a K-block of a sparse layer fills, beside weights and sums that stream through it.
_BLOCK_SHARE = 0.8
# Most vectors of a part: with 16 registers, where a vector holds fewer pixels, and with 32.
_MOST, _MOST_OF_32 = 14, 8
# Bytes after which a first-level cache stores lines in the same sets again: those of a page, on all these machines.
_SET_BYTES = 4096


def block_bytes(vectors: int, part: int, isa: Isa) -> float:
    """Bytes of a K-block of which a part of a panel's vectors is read.

    Channels are stored one after the other; where the other parts lie in between, lines may share few of the sets.
    """
    period = gcd(4 * isa.lanes * vectors, _SET_BYTES)
    whole = 4 * isa.lanes * part / period
    return _BLOCK_SHARE * isa.l1_bytes * whole / ceil(whole)


def window_channels(layer: Convolution, target: Geometry, isa: Isa) -> int:
    """Channels of a K-block whose windows of one panel fill their share of the first-level cache."""
    return max(1, int(_BLOCK_SHARE * isa.l1_bytes) // (4 * target.lanes * prod(layer.window.extent(*target.tile))))


def choose_parts(layer: Convolution, vectors: int, isa: Isa) -> int:
    """Parts of a panel's vectors that take the fewest cycles.

    Parameters
    ----------
    layer : Convolution
        A pointwise layer.
    vectors : int
        Vectors of the panel.
    isa : Isa
        Instruction set.
    """
    most = _MOST_OF_32 if isa.registers >= 32 else _MOST
    return min(range(ceil(vectors / most), vectors + 1), key=lambda parts: panel_cycles(layer, vectors, parts, isa))


def panel_cycles(
    layer: Convolution, vectors: int, parts: int, isa: Isa, window: float = 1.0, loss: float = 1.0
) -> float:
    """Estimated cycles of the products and sums of a panel.

    Parameters
    ----------
    layer : Convolution
        The layer.
    vectors, parts : int
        Vectors of the panel, and parts that they are computed in.
    isa : Isa
        Instruction set.
    window : float
        Vectors that a channel's window has, over those of a part.
    loss : float
        What a nonzero takes, over one of a plain 1x1 layer.
    """
    rows, nonzeros = layer.weight.shape[0], int(np.count_nonzero(layer.weight))
    part, blocks = ceil(vectors / parts), 1
    if layer.groups == 1:
        touched = layer.weight.shape[1] * 4 * part * isa.lanes * window
        blocks = max(1, round(touched / block_bytes(vectors, part, isa)))
        if can_pair(part, isa) and nonzeros >= PAIRED_NONZEROS * blocks * rows:
            density = nonzeros / max(1, layer.weight.size)
            loss *= min(1.0, _PAIRED - _PAIRED_PER_DENSITY * min(_PAIRED_MOST, density))
    per_nonzero = loss * (_NONZERO_CYCLES * parts + _PRODUCT_CYCLES * vectors)
    per_row = blocks * (_ROW_CYCLES * parts + _SUM_CYCLES * vectors)
    return nonzeros * per_nonzero + rows * per_row
