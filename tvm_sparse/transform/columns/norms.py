"""Normalisations over the channels of tokens in columns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tvm import relax

from tvm_sparse.layout.table import pack_table
from tvm_sparse.schedules.cpu.norm_columns import FIELDS, FIRST, NormColumns

from .to_columns import Lowering, Result, handles


@handles("relax.nn.layer_norm", "relax.nn.rms_norm")
def lower_norm(lowering: Lowering, call: relax.Call) -> Result:
    """Layer or root-mean-square normalisation over the channels of tokens."""
    x, attrs = lowering.columns(call.args[0]), call.attrs
    if x is None or not x.tokens or call.ty.dtype != "float32":
        return None
    if [int(axis) % len(x.shape) for axis in attrs.axes] != [x.channel_axis]:
        return None
    centred = call.op.name == "relax.nn.layer_norm"
    scale: relax.Expr | np.ndarray = np.ones(x.channels, np.float32)
    shift: relax.Expr | np.ndarray = np.zeros(x.channels, np.float32)
    if not centred or attrs.scale:
        scale = lowering.plain(call.args[1])
    if centred and attrs.center:
        shift = lowering.plain(call.args[2])
    first = min(FIRST, x.channels)
    numbers = np.array([float(attrs.epsilon), 1 / x.channels, 1 / first], np.float32)
    values = {
        "panels": x.geometry.sets * x.geometry.panels,
        "vectors": x.geometry.vectors,
        "channels": x.channels,
        "first": first,
    }
    table = pack_table(FIELDS, values)
    arguments = [x.value, scale, shift, numbers, table]
    out = lowering.emitter.kernel(NormColumns(centred), arguments, x.geometry.shape(x.channels))
    return replace(x, value=out)
