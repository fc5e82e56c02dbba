"""Packing a layer in columns, by the name of its format."""

from __future__ import annotations

from tvm_sparse.layout.geometry import Geometry
from tvm_sparse.layout.image_window import Strides
from tvm_sparse.layout.table import TableValues
from tvm_sparse.schedules.cpu.driver import DRIVER_FIELDS
from tvm_sparse.schedules.cpu.isa import Isa

from .choose import faster_winograd, parse_shape
from .layer import Convolution, PackedLayer
from .pack_blocks import pack_blocks
from .pack_columns import pack_dense, pack_sparse
from .pack_depthwise import pack_depthwise
from .pack_pixels import pack_pixels, suits_pixels
from .pack_winograd import pack_winograd

# Formats whose kernels can fill their windows from plain images.
_READ_IMAGES = ("dense", "unstructured")


def pack_layer(
    format_: str, layer: Convolution, source: Geometry, target: Geometry, isa: Isa, image: Strides | None = None
) -> PackedLayer:
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
    image : Strides, optional
        Strides of plain images that the kernel reads instead of columns, if it can: its attribute ``image`` tells.
    """
    kind, _, shape = format_.partition(" ")
    if kind == "block":
        return pack_blocks(layer, source, target, isa, parse_shape(shape))
    if kind == "dense":
        winograd = faster_winograd(layer, target, isa)
        if winograd is not None:
            return pack_winograd(layer, source, target, isa, winograd, image)
        if suits_pixels(layer, target, isa):
            return pack_pixels(layer, source, target, isa)
        return pack_dense(layer, source, target, isa, image=image)
    if kind == "unstructured":
        return pack_sparse(layer, source, target, isa, image=image)
    return pack_depthwise(layer, source, target, isa)


def pack_image_layer(
    format_: str, layer: Convolution, source: Geometry, target: Geometry, isa: Isa, image: Strides
) -> PackedLayer | None:
    """Pack a layer that reads plain images, whose pixels nobody has to bring to columns then.

    Parameters
    ----------
    format_, layer, target, isa
        As of `pack_layer`.
    source : Geometry
        Geometry that the images would have in columns.
    image : Strides
        Strides of the images.

    Returns
    -------
    PackedLayer or None
        None where no kernel of the format can read them.
    """
    if layer.groups > 1 or format_ not in _READ_IMAGES:
        return None
    packed = pack_layer(format_, layer, source, target, isa, image)
    if not packed.kernel.image:
        return None
    table = TableValues(DRIVER_FIELDS, packed.arrays[-1])
    chunks = table.scalar("chunks")
    blocks = int(table.array("block_pointers", chunks + 1)[-1])
    # Where channels lie side by side they are read at once, so a block must hold all.
    return packed if image.channel != 1 or blocks == chunks else None
