"""Turn a linear layer on a few plain rows into a kernel and its arrays."""

from __future__ import annotations

import numpy as np

from tvm_sparse.layout.table import pack_table
from tvm_sparse.schedules.cpu import linear_rows
from tvm_sparse.schedules.cpu.epilogue import epilogue_array
from tvm_sparse.schedules.cpu.isa import Isa
from tvm_sparse.sparsity.formats.rows import DenseStrips, SparseRowsFormat

from .layer import Convolution, PackedLayer

# Parts of a sparse layer's outputs that may run in parallel.
_STRIPS = 16


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
    if sparse:
        packed = SparseRowsFormat().pack(weight)
        values |= {"strips": min(_STRIPS, weight.shape[0]), "pointers": packed["pointers"]}
        table = pack_table(linear_rows.SPARSE_FIELDS, values)
        kernel = linear_rows.SparseRows(rank, layer.activation.kind, layer.residual)
        return PackedLayer(kernel, (packed["values"], packed["columns"], numbers, table))
    width = linear_rows.STRIP_VECTORS * isa.lanes
    packed = DenseStrips(width).pack(weight)
    values |= {"strips": -(-weight.shape[0] // width)}
    table = pack_table(linear_rows.DENSE_FIELDS, values)
    dense = linear_rows.DenseRows(rank, layer.activation.kind, layer.residual)
    return PackedLayer(dense, (packed["values"], numbers, table))
