"""Depth-wise convolutions in columns."""

from __future__ import annotations

import numpy as np

from tvm_sparse.layout.geometry import Geometry
from tvm_sparse.layout.table import pack_table
from tvm_sparse.schedules.cpu import depthwise_columns
from tvm_sparse.schedules.cpu.isa import Isa

from .balance import balanced_chunks
from .layer import Convolution, PackedLayer
from .pack_columns import pack_sparse
from .stationary_depthwise import StationaryDepthwise
from .stripes import Part, Stripes

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
    stationary = StationaryDepthwise.plan(layer, source, target, isa)
    return pack_sparse(layer, source, target, isa) if stationary is None else _pack_stationary(stationary, isa)


def _pack_stationary(depthwise: StationaryDepthwise, isa: Isa) -> PackedLayer:
    source, target, channels, tile = depthwise.source, depthwise.target, depthwise.layer.groups, depthwise.tile
    kernel = depthwise_columns.DepthwiseColumns(
        tile.tile, tile.kernel, tile.stride, tile.places, tile.activation
    )
    chunks = balanced_chunks(target.batch * target.panels, isa.tasks, channels, _ANOTHER_CHUNK)
    elements_in, elements_out = (channels * g.vectors * g.lanes for g in (source, target))

    def table(part: Part) -> np.ndarray:
        return pack_table(
            depthwise_columns.FIELDS,
            {
                "tasks": target.batch * len(part.stripes) * chunks,
                "panels": len(part.stripes),
                "chunks": chunks,
                "chunk": np.linspace(0, channels, chunks + 1).astype(np.int64),
                "input_image": source.panels * elements_in,
                "output_image": target.panels * elements_out,
                "input_channel": source.vectors * source.lanes,
                "output": part.target[part.stripes] * elements_out,
                **depthwise.fields(part),
            },
        )

    panels = tuple(np.arange(target.panels)[:, None])
    stripes = Stripes(source, target, panels, depthwise.layer.window, table) if target.batch == 1 else None
    return PackedLayer(kernel, (*depthwise.arrays, table(depthwise.all_panels)), stripes)
