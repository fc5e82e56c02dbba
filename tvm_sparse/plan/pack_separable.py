"""A depth-wise convolution and the 1x1 convolution that alone reads it, as one layer.

Each task computes the depth-wise convolution of a panel, some channels at a time, and multiplies it with the weights
of the 1x1 convolution while it is in the first-level cache: it is never stored, and no core reads what another wrote.
"""

from __future__ import annotations

from tvm_sparse.layout.geometry import Geometry
from tvm_sparse.layout.table import TableValues
from tvm_sparse.schedules.cpu.driver import DRIVER_FIELDS
from tvm_sparse.schedules.cpu.isa import Isa

from .layer import Convolution, PackedLayer
from .pack_columns import pack_dense, pack_sparse
from .pack_pixels import suits_pixels
from .stationary_depthwise import StationaryDepthwise

# Panels that the busiest core may have, over its share of them: computing both layers at once gains a tenth.
_UNEVEN = 1.2


def pack_separable(
    depthwise: Convolution, pointwise: Convolution, format_: str, source: Geometry, target: Geometry, isa: Isa
) -> PackedLayer | None:
    """Pack both layers for one kernel.

    Parameters
    ----------
    depthwise, pointwise : Convolution
        The layers, the second one a 1x1 convolution that reads the first one's output in place.
    format_ : str
        Format of the second one's weights, as in :class:`.choose.Choice`.
    source, target : Geometry
        Geometry of the first one's input and of both outputs.
    isa : Isa
        Instruction set.

    Returns
    -------
    PackedLayer or None
        None where the kernels cannot do it, or where there are too few panels for the cores: parts of the second one's
        output channels, which they could share instead, would each compute the depth-wise convolution.
    """
    panels = target.sets * target.panels
    if -(-panels // isa.tasks) * isa.tasks > _UNEVEN * panels:
        return None
    packers = {"unstructured": pack_sparse, "dense": pack_dense}
    if format_ not in packers or (format_ == "dense" and suits_pixels(pointwise, target, isa)):
        return None
    stationary = StationaryDepthwise.plan(depthwise, source, target, isa)
    if stationary is None:
        return None
    packed = packers[format_](pointwise, source, target, isa, stationary)
    driver = TableValues(DRIVER_FIELDS, packed.arrays[-1])
    return packed if driver.scalar("chunks") == 1 else None
