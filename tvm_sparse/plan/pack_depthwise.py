"""Depth-wise convolutions in columns."""

from __future__ import annotations

from tvm_sparse.layout.geometry import Geometry
from tvm_sparse.schedules.cpu.depthwise_columns import DepthwiseColumns
from tvm_sparse.schedules.cpu.isa import Isa

from .layer import Convolution, PackedLayer
from .pack_columns import pack_sparse
from .pack_panels import pack_panels
from .stationary_depthwise import StationaryDepthwise


def pack_depthwise(layer: Convolution, source: Geometry, target: Geometry, isa: Isa) -> PackedLayer:
    """Pack a depth-wise convolution: input-stationary where its windows allow, else as a sparse layer.

    Parameters
    ----------
    layer : Convolution
        The layer, one input channel a group.
    source, target : Geometry
        Geometry of its input and output.
    isa : Isa
        Instruction set.
    """
    depthwise = StationaryDepthwise.plan(layer, source, target, isa)
    if depthwise is None:
        return pack_sparse(layer, source, target, isa)
    tile = depthwise.tile
    kernel = DepthwiseColumns(
        tile.tile, tile.kernel, tile.stride, tile.places, tile.activation, inner=tile.inner
    )
    return pack_panels(depthwise, kernel, depthwise.arrays, isa)
