"""Kernels that compute every channel of every panel from windows of the same channel: tables, parts."""

from __future__ import annotations

from typing import Any

import numpy as np

from tvm_sparse.layout.table import pack_table
from tvm_sparse.schedules.cpu.isa import Isa
from tvm_sparse.schedules.cpu.window_tile import PANEL_FIELDS

from .balance import balanced_chunks
from .layer import PackedLayer
from .stationary_depthwise import StationaryDepthwise
from .stripes import Part, Stripes

# What a further part of the channels costs, as a share of the layer's time: the sources of its windows found again.
_ANOTHER_CHUNK = 0.01


def pack_panels(depthwise: StationaryDepthwise, kernel: Any, arrays: tuple[np.ndarray, ...], isa: Isa) -> PackedLayer:
    """Pack a layer for a kernel that is driven by :data:`.window_tile.PANEL_FIELDS`.

    Parameters
    ----------
    depthwise : StationaryDepthwise
        The layer.
    kernel : object
        The kernel.
    arrays : tuple of numpy.ndarray
        Its constant arguments before the table.
    isa : Isa
        Instruction set.
    """
    source, target, channels = depthwise.source, depthwise.target, depthwise.layer.groups
    chunks = balanced_chunks(target.sets * target.panels, isa.tasks, channels, _ANOTHER_CHUNK)
    elements_in, elements_out = (channels * g.vectors * g.lanes for g in (source, target))

    def table(part: Part) -> np.ndarray:
        return pack_table(
            PANEL_FIELDS,
            {
                "tasks": target.sets * len(part.stripes) * chunks,
                "panels": len(part.stripes),
                "chunks": chunks,
                "chunk": np.linspace(0, channels, chunks + 1).astype(np.int64),
                "input_set": source.panels * elements_in,
                "output_set": target.panels * elements_out,
                "input_channel": source.vectors * source.lanes,
                "output": part.target[part.stripes] * elements_out,
                **depthwise.fields(part),
            },
        )

    panels = tuple(np.arange(target.panels)[:, None])
    stripes = Stripes(source, target, panels, depthwise.layer.window, table) if target.batch == 1 else None
    return PackedLayer(kernel, (*arrays, table(depthwise.all_panels)), stripes)
