"""Choosing a format per layer, by estimated cycles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tvm_sparse.layout.geometry import Geometry
from tvm_sparse.schedules.cpu.isa import Isa

from .layer import Convolution
from .places import part_size
from .plan import DEPTHWISE, Plan


@dataclass(frozen=True)
class Choice:
    """A format with its reason.

    Parameters
    ----------
    format : str
        ``"dense"``, ``"unstructured"`` or ``"depthwise"``.
    speedup : float
        Estimated cycles of the dense kernel over those of the chosen one.
    why : str
        Reason, for the user.
    """

    format: str
    speedup: float
    why: str


def choose_format(
    plan: Plan, name: str, layer: Convolution, source: Geometry | None, target: Geometry | None, isa: Isa
) -> Choice:
    """Choose the format of a layer.

    Parameters
    ----------
    plan : Plan
        Options and the user's overrides.
    name : str
        Name of the layer.
    layer : Convolution
        The layer.
    source, target : Geometry or None
        Geometry of input and output; None for a few plain rows.
    isa : Isa
        Instruction set.
    """
    override = plan.overrides.get(name, "auto")
    if layer.depthwise and target is not None:
        if override == "dense":
            return Choice("dense", 1.0, "asked for by the plan")
        return Choice(DEPTHWISE, 1.0, "one input channel a group: every weight is used as it is")
    # Not 1 - density: a layer that has exactly the threshold's share must not miss it by rounding.
    zeros = (layer.weight.size - np.count_nonzero(layer.weight)) / max(1, layer.weight.size)
    speedup = dense_cycles(layer, target, isa) / sparse_cycles(layer, source, target, isa)
    if override != "auto":
        return Choice(override, speedup if override != "dense" else 1.0, "asked for by the plan")
    if plan.sparsity == "off":
        return Choice("dense", 1.0, "sparsity is off")
    if zeros < plan.threshold:
        return Choice("dense", 1.0, f"{zeros:.0%} zeros, below the threshold of {plan.threshold:.0%}")
    if plan.sparse_format == "dense" or speedup <= 1:
        return Choice("dense", 1.0, f"sparse would run at {speedup:.2f} times the dense speed")
    return Choice("unstructured", speedup, f"{zeros:.0%} zeros")


def dense_cycles(layer: Convolution, target: Geometry | None, isa: Isa) -> float:
    """Estimated cycles of the dense kernel, per panel (or plain row)."""
    if target is None:
        # Bound by reading the weights from memory, 8 bytes a cycle.
        return layer.weight.nbytes / 8
    return layer.weight.size * target.vectors / 2 * 1.15


def sparse_cycles(layer: Convolution, source: Geometry | None, target: Geometry | None, isa: Isa) -> float:
    """Estimated cycles of the unstructured kernel, per panel (or plain row)."""
    nonzeros = int(np.count_nonzero(layer.weight))
    if target is None or source is None:
        return nonzeros * 1.3 + layer.weight.shape[0] * 12
    vectors = target.vectors
    parts = 1
    if layer.pointwise and source == target:
        parts = vectors // part_size(vectors)
        vectors //= parts
    # Two vector loads a cycle, one more load for each weight; chains of additions wait four cycles.
    per_nonzero = max((vectors + 1) / 2, 4.0)
    # A K-block fills the first-level cache; a window has more vectors than the tile.
    channels = layer.weight.shape[1] * layer.groups
    touched = channels * 4 * vectors * isa.lanes * (1.5 if max(layer.window.kernel) > 1 else 1.0)
    blocks = max(1.0, touched / isa.l1_bytes) if layer.groups == 1 else 1.0
    # Each row of a block starts, adds earlier sums and stores.
    per_row = blocks * (2.5 * vectors + 14)
    return parts * (nonzeros * per_nonzero + layer.weight.shape[0] * per_row)
