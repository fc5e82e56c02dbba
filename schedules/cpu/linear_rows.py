"""Linear layers of few rows (batch 1): weights are read once, straight from memory.

Dense: 64 outputs at a time, their weights interleaved as ``[k][64]``; each input is broadcast. Sparse: rows of 16-bit
columns and values, four sums a row so that the multiply-adds do not wait for each other.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T
from tvm.tirx import PrimFunc

from .epilogue import emit_activation
from .ir import Flat, TableReader, as_int, broadcast, build_function, constant, registers
from .isa import Isa

DENSE_FIELDS = ("rows", "depth", "outputs", "strips")
SPARSE_FIELDS = ("rows", "depth", "outputs", "strips", "pointers")

# Vectors of outputs that a strip computes together.
STRIP_VECTORS = 8


def _arguments(rank: int, residual: bool, *constants: tuple[str, int, str]) -> list[tuple[str, int, str]]:
    inputs = [("x", rank, "float32"), ("residual", rank, "float32")][: 2 if residual else 1]
    return [*inputs, *constants, ("numbers", 1, "float32"), ("table", 1, "int32"), ("y", rank, "float32")]


@dataclass(frozen=True)
class DenseRows:
    """Dense linear layer on ``[..., K]``, a few rows.

    Parameters
    ----------
    rank : int
        Rank of input and output.
    activation : str
        Kind of the activation.
    residual : bool
        Whether a tensor of the output's shape is added before the activation.
    """

    rank: int
    activation: str = "clip"
    residual: bool = False

    def symbol(self, isa: Isa) -> str:
        """Name of the compiled function."""
        suffix = "_residual" if self.residual else ""
        return f"tvm_sparse_dense_rows_{self.rank}d_{self.activation}{suffix}_{isa.name}"

    def build(self, isa: Isa) -> PrimFunc:
        """Build the kernel: ``(x[, residual], values, numbers, table, y)``."""
        arguments = _arguments(self.rank, self.residual, ("values", 1, "float32"))
        return build_function(self.symbol(isa), arguments, isa.lanes, lambda *flats: self._body(isa, *flats))

    def _body(self, isa: Isa, source: Flat, *rest: Flat) -> None:
        residual = rest[0] if self.residual else None
        values, numbers, table_buffer, output = rest[-4:]
        table, lanes = TableReader(table_buffer, DENSE_FIELDS), isa.lanes
        width = STRIP_VECTORS * lanes
        with T.parallel(0, table.scalar("strips")) as strip:
            depth, outputs = T.bind(table.scalar("depth")), T.bind(table.scalar("outputs"))
            scratch = Flat(T.alloc_buffer((STRIP_VECTORS * lanes,), "float32", scope="global"), lanes)
            with T.serial(0, table.scalar("rows")) as row:
                accumulators = registers(STRIP_VECTORS, lanes)
                for accumulator in accumulators:
                    accumulator.set(constant(0.0, lanes))
                base = T.bind(strip * depth * width)
                with T.serial(0, depth) as k:
                    x = T.bind(broadcast(source[row * depth + k], lanes))
                    for v, accumulator in enumerate(accumulators):
                        weight = values.load_vector(base + k * width + v * lanes)
                        accumulator.set(accumulator.value + x * weight)
                for v, accumulator in enumerate(accumulators):
                    scratch.store_vector(v * lanes, accumulator.value)
                count = T.bind(T.min(outputs - strip * width, T.int32(width)))
                with T.serial(0, count) as i:
                    channel = T.bind(strip * width + i)
                    _finish(
                        self.activation, scratch[i], row * outputs + channel, channel, outputs,
                        numbers, residual, output,
                    )  # fmt: skip


@dataclass(frozen=True)
class SparseRows:
    """Unstructured sparse linear layer on ``[..., K]``, a few rows; parameters as in :class:`DenseRows`."""

    rank: int
    activation: str = "clip"
    residual: bool = False

    def symbol(self, isa: Isa) -> str:
        """Name of the compiled function."""
        suffix = "_residual" if self.residual else ""
        return f"tvm_sparse_sparse_rows_{self.rank}d_{self.activation}{suffix}_{isa.name}"

    def build(self, isa: Isa) -> PrimFunc:
        """Build the kernel: ``(x[, residual], values, columns, numbers, table, y)``."""
        arguments = _arguments(self.rank, self.residual, ("values", 1, "float32"), ("columns", 1, "uint16"))
        return build_function(self.symbol(isa), arguments, isa.lanes, lambda *flats: self._body(isa, *flats))

    def _body(self, isa: Isa, source: Flat, *rest: Flat) -> None:
        residual = rest[0] if self.residual else None
        values, columns, numbers, table_buffer, output = rest[-5:]
        table = TableReader(table_buffer, SPARSE_FIELDS)
        with T.parallel(0, table.scalar("strips")) as strip:
            depth, outputs = T.bind(table.scalar("depth")), T.bind(table.scalar("outputs"))
            size = T.bind(T.truncdiv(outputs + table.scalar("strips") - 1, table.scalar("strips")))
            count = T.bind(T.max(T.min(outputs - strip * size, size), T.int32(0)))
            with T.serial(0, table.scalar("rows")) as row:
                with T.serial(0, count) as i:
                    channel = T.bind(strip * size + i)
                    begin = T.bind(table.at("pointers", channel))
                    number = T.bind(table.at("pointers", channel + 1) - begin)
                    sums = [T.alloc_buffer((1,), "float32", scope="global") for _ in range(4)]
                    for partial in sums:
                        T.buffer_store(partial, T.float32(0), [0])

                    def multiply(position, partial, row=row, depth=depth) -> None:
                        x = source[row * depth + as_int(columns[position])]
                        T.buffer_store(partial, partial[0] + values[position] * x, [0])

                    quads = T.bind(T.truncdiv(number, 4))
                    with T.serial(0, quads) as quad:
                        for j in range(4):
                            multiply(begin + quad * 4 + j, sums[j])
                    with T.serial(0, number - quads * 4) as j:
                        multiply(begin + quads * 4 + j, sums[0])
                    total = (sums[0][0] + sums[1][0]) + (sums[2][0] + sums[3][0])
                    _finish(
                        self.activation, total, row * outputs + channel, channel, outputs,
                        numbers, residual, output,
                    )  # fmt: skip


def _finish(
    activation: str, value, position, channel, outputs, numbers: Flat, residual: Flat | None, output: Flat
) -> None:
    """Bias, residual, activation and store of one sum."""
    total = value + numbers[channel]
    if residual is not None:
        total = total + residual[position]
    output.store(position, emit_activation(activation, T.bind(total), numbers, outputs, channel, 1))
