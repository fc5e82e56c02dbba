"""Choosing a format per layer, by estimated cycles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tvm_sparse.layout.geometry import Geometry
from tvm_sparse.schedules.cpu.block_columns import block_pieces
from tvm_sparse.schedules.cpu.isa import Isa
from tvm_sparse.schedules.cpu.winograd_columns import WinogradKernel
from tvm_sparse.sparsity.formats.blocks import count_blocks

from .layer import Convolution
from .pack_blocks import BLOCK_SHARE, block_part, block_rows
from .pack_pixels import computed_pixels, suits_pixels
from .pack_rows import MEMORY_BYTES, sparse_rows_cycles
from .pack_winograd import winograd_cycles, winograd_kernel
from .parts import choose_parts, panel_cycles
from .places import part_size
from .plan import BLOCK_SHAPES, DEPTHWISE, Plan

# What a fast algorithm must gain: it stores more weights, and its estimates are up to a fifth too low.
_WINOGRAD_GAIN = 1.12
# Measured: of a vector of a window; of windows that the nonzeros of a kernel read; over what the units could do.
_WINDOW_CYCLES = 4.5
_SPARSE_WINDOWS = 1.2
_DENSE_LOSS, _BLOCK_LOSS = 1.09, 1.1
# Blocks are filled with zeros where they store more weights than that over nonzeros; what they must then win by.
_FILLED, _FILLED_MARGIN = 1.05, 1.1
# Cycles of a stored weight in blocks of one row over those of the unstructured kernel, which computes several rows at
# once: fewer offsets do not make up for that.
_NARROW_BLOCK_LOSS = 1.13
# Cycles to start and end a strip on one piece of a tile, beside what each of its vectors takes.
_STRIP_CYCLES = 18


@dataclass(frozen=True)
class Choice:
    """A format with its reason.

    Parameters
    ----------
    format : str
        ``"dense"``, ``"unstructured"``, ``"depthwise"``, or ``"block 4x1"`` (or another shape).
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
    dense = dense_cycles(layer, source, target, isa)
    if override == "dense":
        return Choice("dense", 1.0, "asked for by the plan")
    if override != "auto":
        kind, _, shape = override.partition(" ")
        format_, cycles = _cheapest(layer, source, target, isa, kind, shape or plan.block_shape)
        return Choice(format_, dense / cycles, "asked for by the plan")
    if plan.sparsity == "off":
        return Choice("dense", 1.0, "sparsity is off")
    if zeros < plan.threshold:
        return Choice("dense", 1.0, f"{zeros:.0%} zeros, below the threshold of {plan.threshold:.0%}")
    if plan.sparse_format == "dense":
        return Choice("dense", 1.0, "the only format asked for")
    format_, cycles = _cheapest(layer, source, target, isa, plan.sparse_format, plan.block_shape)
    if cycles >= dense:
        return Choice("dense", 1.0, f"sparse would run at {dense / cycles:.2f} times the dense speed")
    return Choice(format_, dense / cycles, f"{zeros:.0%} zeros")


def prefers_rows(plan: Plan, name: str, layer: Convolution, rows: int, geometry: Geometry, isa: Isa) -> bool:
    """Whether a linear layer on a few rows is faster row by row than with the rows in the lanes of vectors.

    Parameters
    ----------
    plan, name, layer, isa
        As of `choose_format`.
    rows : int
        Rows of the input.
    geometry : Geometry
        Where the rows would be in columns.

    Returns
    -------
    bool
        True for dense layers: their weights come from memory once, and the kernel for plain rows streams them faster.
        True for a single row, which fills no vectors.
    """
    if rows == 1:
        return True
    if choose_format(plan, name, layer, None, None, isa).format == "dense":
        return True
    nonzeros = int(np.count_nonzero(layer.weight))
    alone = sparse_rows_cycles(nonzeros, *layer.weight.shape[:2], isa)
    return rows * alone <= sparse_cycles(layer, geometry, geometry, isa)


def _cheapest(
    layer: Convolution, source: Geometry | None, target: Geometry | None, isa: Isa, kind: str, shape: str
) -> tuple[str, float]:
    """The sparse format of a kind (``"auto"``: of any) with the fewest cycles."""
    costs = estimate_formats(layer, source, target, isa)
    plain = {"unstructured": costs["unstructured"]}
    blocks = {n: c for n, c in costs.items() if n.startswith("block") and shape in ("auto", n.partition(" ")[2])}
    winners = {n: c for n, c in blocks.items() if _beats(layer, n, c, costs["unstructured"])}
    # A few plain rows have no kernel for blocks, and some channels are no whole number of blocks.
    wanted = {"auto": {**plain, **winners}, "block": blocks, "unstructured": plain}[kind] or plain
    return min(wanted.items(), key=lambda item: item[1])


def _beats(layer: Convolution, block: str, cycles: float, unstructured: float) -> bool:
    """Whether a block format beats the unstructured one: clearly, where its blocks are filled with zeros."""
    if not unstructured / _FILLED_MARGIN < cycles < unstructured:
        return cycles < unstructured
    shape = parse_shape(block.partition(" ")[2])
    stored = count_blocks(layer.weight, shape, layer.groups) * shape[0] * shape[1]
    return stored <= _FILLED * np.count_nonzero(layer.weight)


def estimate_formats(
    layer: Convolution, source: Geometry | None, target: Geometry | None, isa: Isa
) -> dict[str, float]:
    """Estimated cycles of every format that a layer can have, per panel (or plain row)."""
    costs = {
        "dense": dense_cycles(layer, source, target, isa),
        "unstructured": sparse_cycles(layer, source, target, isa),
    }
    if source is not None and target is not None:
        for shape in BLOCK_SHAPES:
            rows, channels = parse_shape(shape)
            if layer.weight.shape[1] % channels == 0:
                costs[f"block {shape}"] = block_cycles(layer, (rows, channels), source, target, isa)
    return costs


def parse_shape(shape: str) -> tuple[int, int]:
    """Rows and channels of ``"4x1"``."""
    rows, channels = shape.split("x")
    return int(rows), int(channels)


def window_cycles(layer: Convolution, source: Geometry, target: Geometry) -> float:
    """Estimated cycles to build the windows of one panel; none where panels are read in place."""
    if layer.pointwise and source == target:
        return 0.0
    extent = layer.window.extent(*target.tile)
    return _WINDOW_CYCLES * extent[0] * extent[1] * layer.weight.shape[1] * layer.groups


def dense_cycles(layer: Convolution, source: Geometry | None, target: Geometry | None, isa: Isa) -> float:
    """Estimated cycles of the dense kernel, per panel (or plain row)."""
    if target is None or source is None:
        return layer.weight.nbytes / MEMORY_BYTES
    kernel = faster_winograd(layer, target, isa)
    if kernel is None:
        cycles = _direct_cycles(layer, target, isa)
    else:
        cycles = winograd_cycles(layer, kernel, isa) * _WINOGRAD_GAIN
    return cycles + window_cycles(layer, source, target)


def faster_winograd(layer: Convolution, target: Geometry, isa: Isa) -> WinogradKernel | None:
    """The kernel of a fast algorithm, where one is faster than multiplying every weight with every pixel."""
    kernel = winograd_kernel(layer, target, isa)
    if kernel is not None and winograd_cycles(layer, kernel, isa) * _WINOGRAD_GAIN < _direct_cycles(layer, target, isa):
        return kernel
    return None


def _direct_cycles(layer: Convolution, target: Geometry, isa: Isa) -> float:
    """Estimated cycles of the dense products of a panel."""
    vectors = computed_pixels(target, isa) / isa.lanes if suits_pixels(layer, target, isa) else target.vectors
    return layer.weight.size * vectors / 2 * _DENSE_LOSS


def sparse_cycles(layer: Convolution, source: Geometry | None, target: Geometry | None, isa: Isa) -> float:
    """Estimated cycles of the unstructured kernel, per panel (or plain row)."""
    nonzeros = int(np.count_nonzero(layer.weight))
    if target is None or source is None:
        return sparse_rows_cycles(nonzeros, *layer.weight.shape[:2], isa)
    windows = window_cycles(layer, source, target)
    parts = 1 if windows else choose_parts(layer, target.vectors, isa)
    # A window has more vectors than the tile.
    window = 1.5 if max(layer.window.kernel) > 1 else 1.0
    loss = _SPARSE_WINDOWS if windows else 1.0
    return panel_cycles(layer, target.vectors, parts, isa, window, loss) + windows


def block_cycles(layer: Convolution, shape: tuple[int, int], source: Geometry, target: Geometry, isa: Isa) -> float:
    """Estimated cycles of the block kernel, per panel."""
    rows, width = block_rows(shape[0], isa), shape[1]
    if rows == 1:
        # As the unstructured kernel, with zeros that are multiplied.
        filled = count_blocks(layer.weight, shape, layer.groups) * width
        nonzeros = int(np.count_nonzero(layer.weight))
        loss = _NARROW_BLOCK_LOSS * filled / max(1, nonzeros) if filled else 1.0
        return sparse_cycles(layer, source, target, isa) * loss
    vectors, parts = target.vectors, 1
    if layer.pointwise and source == target:
        size = part_size(vectors, block_part(isa))
        vectors, parts = size, vectors // size
    pieces = [len(piece) for piece in block_pieces(isa, rows, vectors)]
    # Two multiply-adds or two loads a cycle; sums wait four cycles.
    per_block = sum(max(rows * s / 2, (rows + s + 0.5) / 2, 4.0) for s in pieces)
    touched = layer.weight.shape[1] * 4 * target.vectors * isa.lanes
    k_blocks = max(1.0, touched / (BLOCK_SHARE * isa.l1_bytes))
    per_strip = k_blocks * sum(_STRIP_CYCLES + 0.75 * rows * s for s in pieces)
    strips = layer.weight.shape[0] / rows
    blocks = count_blocks(layer.weight, (rows, 1), layer.groups)
    return parts * (blocks * per_block * _BLOCK_LOSS + strips * per_strip) + window_cycles(layer, source, target)
