"""Depth-wise convolutions that a register tile computes where their input is stored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tvm_sparse.layout.geometry import Geometry
from tvm_sparse.layout.halo import Window
from tvm_sparse.layout.ring import ring_of_panels
from tvm_sparse.schedules.cpu.depthwise_tile import DepthwiseTile
from tvm_sparse.schedules.cpu.epilogue import epilogue_array
from tvm_sparse.schedules.cpu.isa import Isa

from .layer import Convolution
from .stripes import Part

# Taps above which the code of a tile, which unrolls them all, grows too large.
_MAX_TAPS = 25
# Registers beside the accumulators: the weights of nine taps and the vector at hand.
_OTHER_REGISTERS = 10
# Cycles of a vector of the result, and of each tap.
_VECTOR_CYCLES, _TAP_CYCLES = 3.5, 0.6


@dataclass(frozen=True)
class StationaryDepthwise:
    """A depth-wise convolution that the register tile computes, and where its windows are.

    Parameters
    ----------
    layer : Convolution
        The layer, one input channel a group.
    source, target : Geometry
        Geometry of its input and output.
    tile : DepthwiseTile
        The tile.
    """

    layer: Convolution
    source: Geometry
    target: Geometry
    tile: DepthwiseTile

    @staticmethod
    def plan(layer: Convolution, source: Geometry, target: Geometry, isa: Isa) -> StationaryDepthwise | None:
        """Plan it; None where the windows or the instruction set do not allow it."""
        window = layer.window
        (kh, kw), (top, left) = window.kernel, window.padding[:2]
        fits = target.vectors + _OTHER_REGISTERS <= isa.registers and kh * kw <= _MAX_TAPS
        # Lanes move by a single permute on AVX-512 alone.
        if window.dilation != (1, 1) or layer.residual or not fits or isa.name != "avx512":
            return None
        if layer.weight.shape[0] != layer.groups:
            return None
        own = _has_own_vectors(source, target, window)
        tile = DepthwiseTile(target.tile, (kh, kw), window.stride, (top, left), layer.activation.epilogue, own)
        places = tuple(tile.ring())
        if ring_of_panels(source, target, places, layer.groups, (-top, -left), window.stride) is None:
            return None
        return StationaryDepthwise(layer, source, target, tile)

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Weights ``[M * taps]``; bias and parameters of the activation."""
        layer = self.layer
        values = np.ascontiguousarray(layer.weight, np.float32).reshape(-1)
        return values, epilogue_array(layer.bias, layer.activation, layer.slopes)

    @property
    def cycles(self) -> float:
        """Estimated cycles for a vector of the result."""
        return _VECTOR_CYCLES + _TAP_CYCLES * self.layer.weight[0].size

    @property
    def all_panels(self) -> Part:
        """The whole layer, panels stored one after the other."""
        return Part(np.arange(self.target.panels), np.arange(self.source.panels), np.arange(self.target.panels))

    def fields(self, part: Part) -> dict[str, int | np.ndarray]:
        """Where the windows of a part's panels are: the tile's fields of a table."""
        source, target, window, channels = self.source, self.target, self.layer.window, self.layer.groups
        first = (-window.padding[0], -window.padding[1])
        slots = tuple(part.source.tolist())
        ring = ring_of_panels(source, target, tuple(self.tile.ring()), channels, first, window.stride, slots)
        assert ring is not None
        panel = channels * source.vectors * source.lanes
        return {
            "channels": channels,
            "own": part.source[part.stripes] * panel if source == target else np.zeros(0, np.int64),
            "ring": ring.sources[part.stripes],
            "lanes": ring.lanes,
        }


def _has_own_vectors(source: Geometry, target: Geometry, window: Window) -> bool:
    """Whether the pixels that a panel's subimages read of their own parts of the input are whole vectors of it."""
    if window.stride == (1, 1):
        alike = source == target
    else:
        sub = (target.sub_height * window.stride[0], target.sub_width * window.stride[1])
        alike = source.grid == target.grid and (source.sub_height, source.sub_width) == sub
    filled = (source.sub_height * source.grid[0], source.sub_width * source.grid[1])
    return alike and (source.height, source.width) == filled
