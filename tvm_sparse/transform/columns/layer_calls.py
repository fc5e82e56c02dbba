"""Calls of layers' kernels, and what the plan notes of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tvm import relax

from tvm_sparse.layout.geometry import Geometry
from tvm_sparse.layout.halo import Window
from tvm_sparse.plan.choose import Choice
from tvm_sparse.plan.layer import Convolution, PackedLayer
from tvm_sparse.plan.plan import LayerPlan, LayerWork
from tvm_sparse.schedules.cpu.epilogue import Activation

from ..graph import constant
from ..ops import LINEAR, window_of
from .to_columns import Columns, Lowering


def layer_of(call: relax.Call) -> Convolution:
    """The layer of a call, a linear one as 1x1 convolution."""
    attrs = call.attrs
    weight, bias = constant(call.args[1]), constant(call.args[2])
    assert weight is not None and bias is not None
    has_residual, has_slopes = int(attrs["residual"]), int(attrs["slopes"])
    slopes = constant(call.args[3 + has_residual]) if has_slopes else None
    if call.op.name == LINEAR:
        weight, window, groups = weight[:, :, None, None], Window((1, 1)), 1
    else:
        window, groups = window_of(attrs, weight.shape[2:]), int(attrs["groups"])
    activation = Activation(str(attrs["activation"]), tuple(float(p) for p in attrs["parameters"]))
    return Convolution(weight, bias, window, groups, activation, slopes, bool(has_residual))


def call_layer(
    lowering: Lowering, call: relax.Call, layer: Convolution, packed: PackedLayer, x: Columns, target: Geometry,
    work: LayerWork, tokens: bool,
) -> relax.Var:  # fmt: skip
    """Call a packed layer's kernel on columns.

    Parameters
    ----------
    lowering : Lowering
        The lowering.
    call : relax.Call
        The layer's call in the old function: its name, and its residual if it has one.
    layer : Convolution
        The layer.
    packed : PackedLayer
        Its kernel and arrays.
    x : Columns
        Input.
    target : Geometry
        Geometry of the output.
    work : LayerWork
        What the kernel does.
    tokens : bool
        Whether the channels are the last axis of the output.
    """
    stripes = packed.stripes and replace(packed.stripes, lane_macs=work.lane_macs)
    arguments: list[relax.Expr | np.ndarray] = [x.value]
    if layer.residual:
        other = call.args[3]
        residual = lowering.to_token_columns(other) if tokens else lowering.to_image_columns(other)
        arguments.append(lowering.emitter.with_geometry(residual, target).value)
    shape, name = target.shape(layer.weight.shape[0]), str(call.attrs["name"])
    return lowering.emitter.kernel(packed.kernel, [*arguments, *packed.arrays], shape, name, stripes)


def note_layer(
    lowering: Lowering, call: relax.Call, layer: Convolution, packed: PackedLayer, choice: Choice,
    work: LayerWork | None, target: Geometry | None, after: Convolution | None = None,
) -> None:  # fmt: skip
    """Note in the plan what became of a layer.

    Parameters
    ----------
    lowering : Lowering
        The lowering, whose plan receives the note.
    call : relax.Call
        The layer's call in the old function.
    layer : Convolution
        The layer.
    packed : PackedLayer
        Its kernel and arrays.
    choice : Choice
        Its format, and why.
    work : LayerWork or None
        What the kernel does; None where it is another layer's that does it.
    target : Geometry or None
        Geometry of the output; None for plain rows.
    after : Convolution, optional
        Depth-wise convolution that the kernel computes first.
    """
    kind, shape = describe_layer(call, layer, target)
    if after is not None:
        kind = f"{_kind(after)} + {kind}"
    lowering.context.plan.layers.append(
        LayerPlan(
            name=str(call.attrs["name"]),
            kind=kind,
            shape=shape,
            density=float(np.count_nonzero(layer.weight) / max(1, layer.weight.size)),
            format=choice.format,
            kernel=packed.kernel.symbol(lowering.context.isa),
            bytes_dense=layer.weight.nbytes,
            bytes_packed=packed.nbytes,
            speedup_estimate=round(choice.speedup, 2),
            why=choice.why,
            work=work,
        )
    )


def describe_layer(call: relax.Call, layer: Convolution, target: Geometry | None) -> tuple[str, str]:
    """Kind and shape of a layer as the plan shows them, such as ``("conv 3x3 s2", "64x32 @56x56")``."""
    rows, per_group = layer.weight.shape[:2]
    image = f" @{target.height}x{target.width}" if target else ""
    return "linear" if call.op.name == LINEAR else _kind(layer), f"{rows}x{per_group}{image}"


def _kind(layer: Convolution) -> str:
    """Kind of a convolution."""
    kh, kw = layer.weight.shape[2:]
    kind = f"depthwise {kh}x{kw}" if layer.depthwise else f"conv {kh}x{kw}"
    if layer.window.stride != (1, 1):
        kind += f" s{layer.window.stride[0]}"
    if layer.groups > 1 and not layer.depthwise:
        kind += f" g{layer.groups}"
    return kind
