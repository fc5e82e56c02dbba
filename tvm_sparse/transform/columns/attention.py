"""Attention in columns."""

from __future__ import annotations

from math import sqrt

import numpy as np
from tvm import relax

from tvm_sparse.layout.geometry import choose_geometry
from tvm_sparse.layout.table import pack_table
from tvm_sparse.schedules.cpu.attention_columns import FIELDS, GROUP, AttentionColumns

from ..ops import static_shape
from .to_columns import Columns, Lowering, Result, handles


@handles("relax.nn.attention", "relax.nn.attention_bias")
def lower_attention(lowering: Lowering, call: relax.Call) -> Result:
    """Attention of heads that are reshapes of tokens in columns; masks that depend on the key alone.

    Keys and values are in columns already; queries may be made so.
    """
    q, k, v = (lowering.in_place(argument) for argument in call.args[:3])
    shape = static_shape(call)
    if k is None or v is None or shape is None or call.attrs.causal_mask is not None:
        return None
    batch, keys = shape[0], k.geometry.pixels
    if any(c.geometry.batch != batch or len(c.shape) != 4 or c.shape[2] != shape[2] for c in (k, v)):
        return None
    if k.geometry != v.geometry:
        return None
    mask = call.args[3] if len(call.args) > 3 else None
    if mask is not None and static_shape(mask) not in ((batch, 1, 1, keys), (1, 1, 1, keys)):
        return None
    if q is None or q.geometry.batch != batch or len(q.shape) != 4:
        # A few queries, which their linear layer reads and writes as plain rows.
        q = lowering.emitter.sequence_columns(lowering.plain(call.args[0]))
    q, k, v = (_in_own_vectors(lowering, x) for x in (q, k, v))
    heads, depth, value_depth = shape[2], q.channels // shape[2], v.channels // shape[2]
    scale = call.attrs.scale
    factor = 1 / sqrt(depth) if scale is None else float(getattr(scale, "value", scale))
    table = pack_table(FIELDS, _table(q, k, v, heads, depth, value_depth))
    kernel = AttentionColumns(q.geometry.vectors, mask is not None)
    arguments: list[relax.Expr | np.ndarray] = [q.value, k.value, v.value]
    if mask is not None:
        value = lowering.plain(mask)
        if static_shape(mask) != (batch, 1, 1, keys):
            value = lowering.emitter.emit(relax.op.broadcast_to(value, (batch, 1, 1, keys)))
        arguments.append(value)
    arguments += [np.array([factor], np.float32), table]
    out = lowering.emitter.kernel(kernel, arguments, q.geometry.shape(v.channels))
    result = Columns(out, q.geometry, v.channels, shape, True, heads)
    few = lowering.is_few(batch * q.geometry.pixels)
    return lowering.emitter.plain(result) if few else result


def _in_own_vectors(lowering: Lowering, x: Columns) -> Columns:
    """Pixels as tokens, each image in vectors of its own."""
    geometry = x.geometry
    if geometry.images == 1:
        return x
    alone = choose_geometry(geometry.batch, geometry.height, geometry.width, geometry.lanes, most_images=1)
    return lowering.emitter.with_geometry(x, alone)


def _table(q: Columns, k: Columns, v: Columns, heads: int, depth: int, value_depth: int) -> dict[str, int | np.ndarray]:
    queries, keys = q.geometry, k.geometry
    width, key_lanes = queries.vectors * queries.lanes, keys.vectors * keys.lanes
    y, x = keys.nearest_pixel
    tokens = np.where(keys.used, y * keys.width + x, -1).reshape(-1, GROUP)
    # Groups of neighbouring lanes; those without any key are left out.
    groups = np.flatnonzero((tokens >= 0).any(1))
    at_panel, at_lane = np.divmod(groups * GROUP, key_lanes)
    return {
        "images": queries.batch,
        "heads": heads,
        "query_panels": queries.panels,
        "depth": depth,
        "value_depth": value_depth,
        "query_base": q.first * width,
        "query_image": queries.panels * q.stored * width,
        "query_panel": q.stored * width,
        "key_base": k.first * key_lanes,
        "key_image": keys.panels * k.stored * key_lanes,
        "key_lanes": key_lanes,
        "value_base": v.first * key_lanes,
        "value_image": keys.panels * v.stored * key_lanes,
        "output_panel": v.channels * width,
        "tokens": keys.pixels,
        "groups": len(groups),
        "group_keys": at_panel * (k.stored * key_lanes) + at_lane,
        "group_values": at_panel * (v.stored * key_lanes) + at_lane,
        "key_tokens": tokens[groups],
    }
