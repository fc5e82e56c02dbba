"""Turn a linear layer on a few plain rows into a kernel and its arrays."""

from __future__ import annotations

import numpy as np

from tvm_sparse.layout.table import pack_table
from tvm_sparse.schedules.cpu import bitmask_rows, linear_rows
from tvm_sparse.schedules.cpu.epilogue import epilogue_array
from tvm_sparse.schedules.cpu.isa import Isa
from tvm_sparse.sparsity.formats.rows import BitmaskRowsFormat, DenseStrips, SparseRowsFormat

from .layer import Convolution, PackedLayer

# Parts of a sparse layer's outputs that may run in parallel.
_STRIPS = 16
# Bytes of weights that come from beyond the second-level cache in a cycle.
MEMORY_BYTES = 9
# Cycles of a sparse row beside its nonzeros.
_OUTPUT_CYCLES = 30


def use_bitmask(nonzeros: int, outputs: int, depth: int, isa: Isa) -> bool:
    """Whether a bit for every weight is read and expanded faster than a column for every nonzero."""
    if not bitmask_rows.can_expand(isa) or depth % bitmask_rows.WIDTH:
        return False
    return _bitmask_cycles(nonzeros, outputs, depth) < _columns_cycles(nonzeros, isa)


def sparse_rows_cycles(nonzeros: int, outputs: int, depth: int, isa: Isa) -> float:
    """Estimated cycles of the better sparse kernel on one row."""
    if use_bitmask(nonzeros, outputs, depth, isa):
        return _bitmask_cycles(nonzeros, outputs, depth) + outputs * _OUTPUT_CYCLES
    return _columns_cycles(nonzeros, isa) + outputs * _OUTPUT_CYCLES


def _columns_cycles(nonzeros: int, isa: Isa) -> float:
    """A value and a column from memory, or the loads of the inputs: measured, by gathers and one by one."""
    return nonzeros * max(6 / MEMORY_BYTES, 0.71 if linear_rows.can_gather(isa) else 0.95)


def _bitmask_cycles(nonzeros: int, outputs: int, depth: int) -> float:
    """Measured for a mask: expanding takes three cycles, unaligned loads of many values more."""
    masks = outputs * depth / bitmask_rows.WIDTH
    return max(2.9 * masks, 2.1 * masks + 0.39 * nonzeros, (4 * nonzeros + 2 * masks) / MEMORY_BYTES)


def pack_rows(layer: Convolution, rows: int, rank: int, sparse: bool, isa: Isa) -> PackedLayer:
    """Pack a linear layer for plain rows ``[..., K]``.

    Parameters
    ----------
    layer : Convolution
        The layer, as 1x1 convolution.
    rows : int
        Rows of the input.
    rank : int
        Rank of input and output.
    sparse : bool
        Whether to use the unstructured kernel.
    isa : Isa
        Instruction set.
    """
    weight = layer.weight[:, :, 0, 0]
    numbers = epilogue_array(layer.bias, layer.activation, layer.slopes)
    values: dict[str, int | np.ndarray] = {"rows": rows, "depth": weight.shape[1], "outputs": weight.shape[0]}
    nonzeros = int(np.count_nonzero(weight))
    if sparse and use_bitmask(nonzeros, *weight.shape, isa):
        packed = BitmaskRowsFormat(bitmask_rows.WIDTH).pack(weight)
        values |= {"strips": min(_STRIPS, weight.shape[0]), "pointers": packed["pointers"]}
        table = pack_table(linear_rows.SPARSE_FIELDS, values)
        bitmask = bitmask_rows.BitmaskRows(rank, layer.activation.kind, layer.residual)
        return PackedLayer(bitmask, (packed["values"], packed["masks"], numbers, table))
    if sparse:
        gather = linear_rows.can_gather(isa)
        packed = SparseRowsFormat(linear_rows.row_unit(isa, gather)).pack(weight)
        values |= {"strips": min(_STRIPS, weight.shape[0]), "pointers": packed["pointers"]}
        table = pack_table(linear_rows.SPARSE_FIELDS, values)
        kernel = linear_rows.SparseRows(rank, layer.activation.kind, layer.residual, gather)
        columns = packed["columns"] if gather else packed["columns"].view(np.int64)
        return PackedLayer(kernel, (packed["values"], columns, numbers, table))
    width = linear_rows.STRIP_VECTORS * isa.lanes
    packed = DenseStrips(width).pack(weight)
    values |= {"strips": -(-weight.shape[0] // width)}
    table = pack_table(linear_rows.DENSE_FIELDS, values)
    dense = linear_rows.DenseRows(rank, layer.activation.kind, layer.residual)
    return PackedLayer(dense, (packed["values"], numbers, table))
