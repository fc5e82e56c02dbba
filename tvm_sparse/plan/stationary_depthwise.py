"""Depth-wise convolutions that a register tile computes where their input is stored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tvm_sparse.layout.geometry import Geometry
from tvm_sparse.layout.ring import Ring, ring_of_panels
from tvm_sparse.schedules.cpu.depthwise_tile import DepthwiseTile
from tvm_sparse.schedules.cpu.epilogue import epilogue_array
from tvm_sparse.schedules.cpu.isa import Isa
from tvm_sparse.schedules.cpu.lanes import can_merge, can_shift
from tvm_sparse.schedules.cpu.window_tile import MANY_REGISTERS, window_of_tile

from .layer import Convolution
from .stripes import Part

# Taps above which the code of a tile, which unrolls them all, grows too large.
_MAX_TAPS = 25
# Registers beside the accumulators: the weights of nine taps and the vector at hand, or where there are few the bias,
# a weight, a vector and where its lanes are.
_OTHER_REGISTERS, _OTHER_REGISTERS_OF_16 = 10, 4


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
    ring : Ring
        Where the vectors of its windows are.
    """

    layer: Convolution
    source: Geometry
    target: Geometry
    tile: DepthwiseTile
    ring: Ring

    @staticmethod
    def plan(layer: Convolution, source: Geometry, target: Geometry, isa: Isa) -> StationaryDepthwise | None:
        """Plan it; None where the windows or the instruction set do not allow it."""
        window = layer.window
        few_taps = window.kernel[0] * window.kernel[1] <= _MAX_TAPS
        if window.dilation != (1, 1) or layer.residual or not few_taps or not can_merge(isa):
            return None
        if layer.weight.shape[0] != layer.groups:
            return None
        at = window_of_tile(target.tile, window.kernel, window.stride, isa.registers)
        first = (-window.padding[0], -window.padding[1])
        ring = ring_of_panels(source, target, at, first, window.stride, can_shift(isa))
        if ring is None:
            return None
        inner = bool(ring.inner.any() and not ring.inner.all())
        tile = DepthwiseTile(
            target.tile, window.kernel, window.stride, ring.places, layer.activation.epilogue, inner=inner
        )
        others = _OTHER_REGISTERS if isa.registers >= MANY_REGISTERS else _OTHER_REGISTERS_OF_16
        if tile.sums(isa) + others > isa.registers:
            return None
        return StationaryDepthwise(layer, source, target, tile, ring)

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Weights ``[M * taps]``; bias and parameters of the activation."""
        layer = self.layer
        values = np.ascontiguousarray(layer.weight, np.float32).reshape(-1)
        return values, epilogue_array(layer.bias, layer.activation, layer.slopes)

    @property
    def all_panels(self) -> Part:
        """The whole layer, panels stored one after the other."""
        return Part(np.arange(self.target.panels), np.arange(self.source.panels), np.arange(self.target.panels))

    def fields(self, part: Part) -> dict[str, int | np.ndarray]:
        """Where the windows of a part's panels are: the tile's fields of a table."""
        ring, channels, vectors, lanes = self.ring, self.layer.groups, self.source.vectors, self.source.lanes
        panels, first, beside = (a[part.stripes] for a in (ring.panels, ring.vectors, ring.shifts))
        return {
            "channels": channels,
            "base": (part.source[panels] * channels * vectors + first) * lanes + beside,
            "lane": ring.indices[part.stripes] * lanes,
            "lanes": ring.lanes,
            "inner": ring.inner[part.stripes],
        }
