"""Depth-wise convolutions that the 1x1 convolution which reads them computes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tvm import relax

from tvm_sparse.layout.geometry import Geometry
from tvm_sparse.plan.choose import Choice, choose_format
from tvm_sparse.plan.layer import Convolution, PackedLayer
from tvm_sparse.plan.pack_separable import pack_separable
from tvm_sparse.plan.plan import DEPTHWISE
from tvm_sparse.plan.work import count_work

from ..ops import CONV2D, static_shape
from .layer_calls import call_layer, layer_of, note_layer
from .to_columns import Lowering
from .values import Columns, Held


@dataclass(frozen=True)
class Separable:
    """A depth-wise convolution that its reader computes.

    Parameters
    ----------
    call : relax.Call
        Its call.
    layer : Convolution
        The layer.
    x : Columns
        Its input.
    packed : PackedLayer
        Kernel of both layers, and their arrays.
    target : Geometry
        Geometry of its output, and of the reader's.
    choice : Choice
        Format of the reader.
    """

    call: relax.Call
    layer: Convolution
    x: Columns
    packed: PackedLayer
    target: Geometry
    choice: Choice


def hold_depthwise(
    lowering: Lowering, call: relax.Call, layer: Convolution, x: Columns, target: Geometry
) -> Held | None:
    """Leave a depth-wise convolution to the layer that reads it, where that is a 1x1 convolution which can compute it.

    Parameters
    ----------
    lowering : Lowering
        The lowering.
    call : relax.Call
        Call of the depth-wise convolution.
    layer : Convolution
        The depth-wise convolution.
    x : Columns
        Its input.
    target : Geometry
        Geometry of its output.
    """
    plan, isa = lowering.context.plan, lowering.context.isa
    reader, place = lowering.sole_reader(call) or (None, 0)
    if reader is None or place != 0 or getattr(reader.op, "name", "") != CONV2D:
        return None
    pointwise, shape = layer_of(reader), static_shape(reader)
    if not pointwise.pointwise or pointwise.groups > 1 or shape is None or 0 in shape or target.pixels == 1:
        return None
    if choose_format(plan, str(call.attrs["name"]), layer, x.geometry, target, isa).format != DEPTHWISE:
        return None
    choice = choose_format(plan, str(reader.attrs["name"]), pointwise, target, target, isa)
    packed = pack_separable(layer, pointwise, choice.format, x.geometry, target, isa)
    return None if packed is None else Held(Separable(call, layer, x, packed, target, choice))


def lower_separable(
    lowering: Lowering, call: relax.Call, layer: Convolution, separable: Separable, out_shape: tuple[int, ...]
) -> Columns:
    """A 1x1 convolution with the depth-wise convolution that it reads."""
    isa, packed, x, target = lowering.context.isa, separable.packed, separable.x, separable.target
    work = count_work(layer, packed, isa, x.geometry, target, depthwise=separable.layer)
    out = call_layer(lowering, call, layer, packed, x, target, work, False)
    name = str(call.attrs["name"])
    first = replace(packed, arrays=packed.arrays[:-4], stripes=None)
    why = f"computed panel by panel with {name}, which alone reads it"
    note_layer(lowering, separable.call, separable.layer, first, Choice(DEPTHWISE, 1.0, why), None, target)
    rest = replace(packed, arrays=packed.arrays[-4:])
    note_layer(lowering, call, layer, rest, separable.choice, work, target, after=separable.layer)
    return Columns(out, target, layer.weight.shape[0], out_shape, False)
