"""Packing a layer in columns, by the name of its format."""

from __future__ import annotations

from tvm_sparse.layout.geometry import Geometry
from tvm_sparse.schedules.cpu.isa import Isa

from .choose import faster_winograd, parse_shape
from .layer import Convolution, PackedLayer
from .pack_blocks import pack_blocks
from .pack_columns import pack_dense, pack_sparse
from .pack_depthwise import pack_depthwise
from .pack_pixels import pack_pixels, suits_pixels
from .pack_winograd import pack_winograd


def pack_layer(format_: str, layer: Convolution, source: Geometry, target: Geometry, isa: Isa) -> PackedLayer:
    """Pack a layer.

    Parameters
    ----------
    format_ : str
        As in :class:`.choose.Choice`.
    layer : Convolution
        The layer.
    source, target : Geometry
        Geometry of its input and output.
    isa : Isa
        Instruction set.
    """
    kind, _, shape = format_.partition(" ")
    if kind == "block":
        return pack_blocks(layer, source, target, isa, parse_shape(shape))
    if kind == "dense":
        winograd = faster_winograd(layer, target, isa)
        if winograd is not None:
            return pack_winograd(layer, source, target, isa, winograd)
        if suits_pixels(layer, target, isa):
            return pack_pixels(layer, source, target, isa)
    packers = {"dense": pack_dense, "unstructured": pack_sparse, "depthwise": pack_depthwise}
    return packers[kind](layer, source, target, isa)
