"""What the zeros of every layer are worth, without compiling anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import tvm
from tvm import relax

from tvm_sparse.layout.geometry import Geometry, choose_geometry
from tvm_sparse.plan.choose import dense_cycles, estimate_formats, parse_shape, sparse_cycles
from tvm_sparse.plan.layer import Convolution
from tvm_sparse.sparsity.formats.blocks import count_blocks
from tvm_sparse.sparsity.structure import measure_structure

from .columns.layer_calls import describe_layer, layer_of
from .columns.values import token_geometry
from .context import CompileContext
from .graph import Graph
from .ops import CONV2D, LINEAR, static_shape
from .pipeline import run_until_layers

# A nonzero of the unstructured format: value and 16-bit offset.
_BYTES_PER_NONZERO = 6


def analyze_layers(
    module: tvm.IRModule, context: CompileContext, what_if: Sequence[float]
) -> list[dict[str, Any]]:
    """Describe every layer of a module.

    Parameters
    ----------
    module : tvm.IRModule
        Imported module.
    context : CompileContext
        Target.
    what_if : sequence of float
        Shares of zeros for which speed-ups are estimated.

    Returns
    -------
    list of dict
        Fields of :class:`tvm_sparse.api.LayerAnalysis`.
    """
    main = run_until_layers(module, context)["main"]
    out = []
    for _, call in Graph(main).bindings:
        if isinstance(call, relax.Call) and getattr(call.op, "name", "") in (CONV2D, LINEAR):
            out.append(_describe(call, context, what_if))
    return out


def _describe(call: relax.Call, context: CompileContext, what_if: Sequence[float]) -> dict[str, Any]:
    layer = layer_of(call)
    source, target = _geometries(call, context.isa.lanes)
    kind, shape = describe_layer(call, layer, target)
    structure = measure_structure(layer.weight)

    def speedup(candidate: Convolution) -> float:
        dense = dense_cycles(candidate, source, target, context.isa)
        return round(dense / sparse_cycles(candidate, source, target, context.isa), 2)

    speedups = {}
    if not layer.depthwise:
        costs = estimate_formats(layer, source, target, context.isa)
        speedups["as is"] = round(costs["dense"] / min(costs.values()), 2)
        for zeros in what_if:
            speedups[f"at {zeros:.0%}"] = max(1.0, speedup(_pruned(layer, zeros)))
    nonzeros = int(np.count_nonzero(layer.weight))
    sizes = {"dense": layer.weight.nbytes, "unstructured": nonzeros * _BYTES_PER_NONZERO}
    if structure.name.endswith(" blocks"):
        shape_name = structure.name.partition(" ")[0]
        rows, channels = parse_shape(shape_name)
        # Of each block one offset.
        bytes_per_block = 4 * rows * channels + _BYTES_PER_NONZERO - 4
        sizes[f"block {shape_name}"] = count_blocks(layer.weight, (rows, channels), layer.groups) * bytes_per_block
    return {
        "name": str(call.attrs["name"]),
        "kind": kind,
        "shape": shape,
        "zeros": structure.zeros,
        "structure": structure.name,
        "bytes_dense": layer.weight.nbytes,
        "speedup": speedups,
        "bytes_by_format": sizes,
    }


def _pruned(layer: Convolution, zeros: float) -> Convolution:
    """The layer with a share of its weights zero, evenly spread."""
    keep = np.floor(np.arange(1, layer.weight.size + 1) * (1 - zeros)) > np.floor(
        np.arange(layer.weight.size) * (1 - zeros)
    )
    return replace(layer, weight=keep.reshape(layer.weight.shape).astype(np.float32))


def _geometries(call: relax.Call, lanes: int) -> tuple[Geometry | None, Geometry | None]:
    x, shape = static_shape(call.args[0]), static_shape(call)
    assert x is not None and shape is not None
    if call.op.name == LINEAR:
        rows = int(np.prod(x[:-1]))
        geometry = None if rows * 2 <= lanes else token_geometry(x, lanes)
        return geometry, geometry
    if shape[2:] == (1, 1) and x[2:] == (1, 1):
        return None, None
    target = choose_geometry(shape[0], *shape[2:], lanes)
    if call.args[1].ty.shape[2] == 1 and call.args[1].ty.shape[3] == 1:
        return target, target
    return choose_geometry(x[0], *x[2:], lanes), target
