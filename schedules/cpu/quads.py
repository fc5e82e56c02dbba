"""Four vectors at once from a plain tensor: each lane's four elements lie side by side and are transposed."""

from __future__ import annotations

from collections.abc import Sequence

from tvm.script.ir_builder import tirx as T

from tvm_sparse.layout.transpose import QUAD

from .ir import Flat


def load_quads(source: Flat, starts: Sequence, lanes: int) -> list:
    """Emit four vectors, of the four elements from each lane's start on; starts are 64 bit."""
    rows = [source.buffer[T.Ramp(start, T.int64(1), QUAD)] for start in starts]
    # Vector i of these holds row i of each four rows.
    parts = [[rows[group + i] for group in range(0, lanes, QUAD)] for i in range(QUAD)]
    return transpose_quads([T.bind(p[0] if len(p) == 1 else T.Shuffle(p, list(range(lanes)))) for p in parts], lanes)


def transpose_quads(vectors: Sequence, lanes: int) -> list:
    """Transpose inside of each four lanes of four vectors."""
    a, b, c, d = vectors

    def shuffle(x, y, pattern):
        """Take from both: `pattern` for each four lanes, where the second vector's are numbered from 4."""
        index = [g + p if p < QUAD else lanes + g + p - QUAD for g in range(0, lanes, QUAD) for p in pattern]
        return T.bind(T.Shuffle([x, y], index))

    pairs = [(shuffle(a, b, half), shuffle(c, d, half)) for half in ((0, 4, 1, 5), (2, 6, 3, 7))]
    return [shuffle(*pair, half) for pair in pairs for half in ((0, 1, 4, 5), (2, 3, 6, 7))]
