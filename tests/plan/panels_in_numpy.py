"""Max pooling by the register tile, run in numpy from its table: what the table says is what is computed."""

from __future__ import annotations

import numpy as np

from tvm_sparse.layout.merge import TAKE
from tvm_sparse.plan.layer import PackedLayer
from tvm_sparse.schedules.cpu.pool_columns import LOWEST
from tvm_sparse.schedules.cpu.window_tile import PANEL_FIELDS, window_of_tile

from .columns_in_numpy import Table


def run_pool(packed: PackedLayer, x: np.ndarray, shape: tuple[int, ...], registers: int) -> np.ndarray:
    """Run it on columns; `shape` is that of the output, NaN where nothing is written.

    The vectors of a window are in the order for so many registers.
    """
    kernel, table, lanes = packed.kernel, Table(packed.arrays[-1], PANEL_FIELDS), shape[-1]
    source, output = x.reshape(-1), np.full(int(np.prod(shape)), np.nan)
    panels, chunks = table.scalar("panels"), table.scalar("chunks")
    bases = table.array("base", panels, 1 + max(p.base for p in kernel.places))
    moves = table.array("lane", panels, len({p.lane for p in kernel.places} - {None}))
    inner = table.array("inner", panels)
    bounds = table.array("chunk", chunks + 1)
    for task in range(table.scalar("tasks")):
        place, chunk = divmod(task, chunks)
        image, panel = divmod(place, panels)
        for channel in range(*bounds[chunk : chunk + 2]):
            window = {}
            order = window_of_tile(kernel.tile, kernel.kernel, kernel.stride, registers)
            for at, where in zip(order, kernel.places, strict=True):
                start = image * table.scalar("input_set") + bases[panel, where.base]
                start += channel * table.scalar("input_channel") + where.vector * lanes
                vector = source[start : start + lanes]
                if where.lane is not None and not (kernel.inner and inner[panel]):
                    move = table.scalar("lanes") + moves[panel, where.lane]
                    index = table.blob[move : move + lanes]
                    lane = np.arange(lanes) if where.shifted else index & (lanes - 1)
                    vector = np.where(index & TAKE, vector[lane], LOWEST)
                window[at] = vector
            to = image * table.scalar("output_set") + table.array("output", panels)[panel]
            to += channel * kernel.vectors * lanes
            for s in range(kernel.vectors):
                v, r = divmod(s, kernel.tile[0])
                taps = [
                    window[r * kernel.stride[0] + ky, v * kernel.stride[1] + kx]
                    for ky in range(kernel.kernel[0])
                    for kx in range(kernel.kernel[1])
                ]
                output[to + s * lanes : to + (s + 1) * lanes] = np.max(taps, 0)
    return output.reshape(shape)
