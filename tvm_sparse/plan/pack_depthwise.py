"""Depth-wise convolutions in columns."""

from __future__ import annotations

import numpy as np

from tvm_sparse.layout.geometry import Geometry
from tvm_sparse.layout.halo import Window
from tvm_sparse.layout.ring import ring_of_panels
from tvm_sparse.layout.table import pack_table
from tvm_sparse.schedules.cpu import depthwise_columns
from tvm_sparse.schedules.cpu.epilogue import epilogue_array
from tvm_sparse.schedules.cpu.isa import Isa

from .balance import balanced_chunks
from .layer import Convolution, PackedLayer
from .pack_columns import pack_sparse
from .stripes import Part, Stripes

# Taps above which the code of a tile, which unrolls them all, grows too large.
_MAX_TAPS = 25
# Registers beside the accumulators: the weights of nine taps and the vector at hand.
_OTHER_REGISTERS = 10
# What a further part of the channels costs, as a share of the layer's time: the sources of its windows found again.
_ANOTHER_CHUNK = 0.01


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
    return _pack_stationary(layer, source, target, isa) or pack_sparse(layer, source, target, isa)


def _pack_stationary(
    layer: Convolution, source: Geometry, target: Geometry, isa: Isa
) -> PackedLayer | None:
    window, channels = layer.window, layer.groups
    (kh, kw), (top, left) = window.kernel, window.padding[:2]
    fits = target.vectors + _OTHER_REGISTERS <= isa.registers and kh * kw <= _MAX_TAPS
    # Lanes move by a single permute on AVX-512 alone.
    if window.dilation != (1, 1) or layer.residual or not fits or isa.name != "avx512":
        return None
    if layer.weight.shape[0] != channels:
        return None
    own = _has_own_vectors(source, target, window)
    kernel = depthwise_columns.DepthwiseColumns(
        target.tile, (kh, kw), window.stride, (top, left), layer.activation.epilogue, own
    )
    places, first = tuple(kernel.ring()), (-top, -left)
    if ring_of_panels(source, target, places, channels, first, window.stride) is None:
        return None
    chunks = balanced_chunks(target.batch * target.panels, isa.tasks, channels, _ANOTHER_CHUNK)
    elements_in, elements_out = (channels * g.vectors * g.lanes for g in (source, target))

    def table(part: Part) -> np.ndarray:
        slots = tuple(part.source.tolist())
        ring = ring_of_panels(source, target, places, channels, first, window.stride, slots)
        assert ring is not None
        return pack_table(
            depthwise_columns.FIELDS,
            {
                "tasks": target.batch * len(part.stripes) * chunks,
                "panels": len(part.stripes),
                "chunks": chunks,
                "chunk": np.linspace(0, channels, chunks + 1).astype(np.int64),
                "channels": channels,
                "input_image": source.panels * elements_in,
                "output_image": target.panels * elements_out,
                "input_channel": source.vectors * source.lanes,
                "own": part.source[part.stripes] * elements_in if source == target else np.zeros(0, np.int64),
                "output": part.target[part.stripes] * elements_out,
                "ring": ring.sources[part.stripes],
                "lanes": ring.lanes,
            },
        )

    whole = table(Part(np.arange(target.panels), np.arange(source.panels), np.arange(target.panels)))
    panels = tuple(np.arange(target.panels)[:, None])
    stripes = Stripes(source, target, panels, window, table) if target.batch == 1 else None
    values = np.ascontiguousarray(layer.weight, np.float32).reshape(-1)
    numbers = epilogue_array(layer.bias, layer.activation, layer.slopes)
    return PackedLayer(kernel, (values, numbers, whole), stripes)


def _has_own_vectors(source: Geometry, target: Geometry, window: Window) -> bool:
    """Whether the pixels that a panel's subimages read of their own parts of the input are whole vectors of it."""
    if window.stride == (1, 1):
        alike = source == target
    else:
        sub = (target.sub_height * window.stride[0], target.sub_width * window.stride[1])
        alike = source.grid == target.grid and (source.sub_height, source.sub_width) == sub
    filled = (source.sub_height * source.grid[0], source.sub_width * source.grid[1])
    return alike and (source.height, source.width) == filled
