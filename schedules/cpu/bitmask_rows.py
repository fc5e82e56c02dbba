"""Sparse linear layers of few rows whose weights are many: a bit for each weight says whether it is there.

Sixteen weights at a time are expanded from those that are stored, and multiplied with sixteen neighbouring inputs.
Nothing is gathered, and a bit takes less memory than a column; but every zero costs a lane.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T
from tvm.tirx import PrimFunc

from .ir import Flat, TableReader, as_int, as_long, build_function, constant, intrinsic, registers
from .isa import Isa
from .linear_rows import SPARSE_FIELDS, add_lanes, emit_rows, row_arguments

# Weights of a mask.
WIDTH = 16
# Sums that run side by side, and masks of a step.
_SUMS = 4


def can_expand(isa: Isa) -> bool:
    """Whether the CPU expands weights by a mask."""
    return isa.name == "avx512"


@dataclass(frozen=True)
class BitmaskRows:
    """A kernel of the family; parameters as in :class:`.linear_rows.DenseRows`. The depth is a multiple of `WIDTH`."""

    rank: int
    activation: str = "clip"
    residual: bool = False

    def symbol(self, isa: Isa) -> str:
        """Name of the compiled function."""
        suffix = "_residual" if self.residual else ""
        return f"tvm_sparse_bitmask_rows_{self.rank}d_{self.activation}{suffix}_{isa.name}"

    def build(self, isa: Isa) -> PrimFunc:
        """Build the kernel: ``(x[, residual], values, masks, numbers, table, y)``."""
        arguments = row_arguments(self.rank, self.residual, ("values", 1, "float32"), ("masks", 1, "uint16"))
        return build_function(self.symbol(isa), arguments, isa.lanes, lambda *flats: self._body(*flats))

    def _body(self, source: Flat, *rest: Flat) -> None:
        residual = rest[0] if self.residual else None
        values, masks, numbers, table_buffer, output = rest[-5:]
        table = TableReader(table_buffer, SPARSE_FIELDS)

        def multiply(row, channel) -> object:
            depth = T.bind(table.scalar("depth"))
            steps = T.bind(T.truncdiv(depth, WIDTH))
            inputs, first_mask = T.bind(as_long(row * depth)), T.bind(as_long(channel * steps))
            position = T.alloc_buffer((1,), "int64", scope="global")
            T.buffer_store(position, as_long(table.at("pointers", channel)), [0])
            sums = registers(_SUMS, WIDTH)
            for partial in sums:
                partial.set(constant(0.0, WIDTH))

            def step(number, partial) -> None:
                mask = T.bind(masks[first_mask + number])
                stored = T.bind(values.load_vector(position[0]))
                there = T.reinterpret("uint1x16", mask)
                name = "llvm.x86.avx512.mask.expand"
                weights = intrinsic(name, stored, constant(0.0, WIDTH), there, dtype="float32x16")
                partial.set(partial.value + weights * source.load_vector(inputs + number * WIDTH))
                T.buffer_store(position, position[0] + as_long(T.popcount(as_int(mask))), [0])

            several = T.bind(T.truncdiv(steps, _SUMS))
            with T.serial(0, as_long(several)) as i:
                for j, partial in enumerate(sums):
                    step(i * _SUMS + j, partial)
            with T.serial(0, as_long(steps - several * _SUMS)) as i:
                step(as_long(several * _SUMS) + i, sums[0])
            return add_lanes(sums, WIDTH)

        emit_rows(self.activation, table, numbers, residual, output, multiply)
