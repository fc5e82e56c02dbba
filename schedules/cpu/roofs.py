"""What a CPU reaches at best: multiply-adds on registers, vectors read into multiply-adds, vectors written.

The loops do the work of the kernels' inner loops and nothing else; a buffer's size decides which level of memory
serves it.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T
from tvm.tirx import PrimFunc

from .ir import Flat, as_long, build_function, registers
from .isa import Isa

# Operations of one step of the loop: chains of additions that wait four cycles each, on two units.
ACCUMULATORS = 12


@dataclass(frozen=True)
class Roof:
    """A kernel that keeps one resource busy.

    Parameters
    ----------
    kind : str
        ``"multiply"``: multiply-adds on registers; ``"read"``: one vector load for each multiply-add;
        ``"write"``: vector stores.
    """

    kind: str

    def symbol(self, isa: Isa) -> str:
        """Name of the compiled function."""
        return f"tvm_sparse_roof_{self.kind}_{isa.name}"

    def build(self, isa: Isa) -> PrimFunc:
        """Build the kernel: ``(numbers, counts, buffer, sums)``.

        ``counts`` holds the number of tasks, which run in parallel, the steps that a task's part of the buffer has (a
        power of two), and the steps to do. A step takes ``ACCUMULATORS`` vectors of the buffer; ``sums`` has so many
        vectors for each task, and ``numbers`` are two vectors, a factor and a summand.
        """
        dtypes = {"numbers": "float32", "counts": "int32", "buffer": "float32", "sums": "float32"}
        arguments = [(name, 1, dtype) for name, dtype in dtypes.items()]
        return build_function(self.symbol(isa), arguments, isa.lanes, lambda *flats: self._body(isa, *flats))

    def _body(self, isa: Isa, numbers: Flat, counts: Flat, buffer: Flat, sums: Flat) -> None:
        width = ACCUMULATORS * isa.lanes
        with T.parallel(0, counts[0]) as task:
            size = T.bind(counts[1])
            factor, summand = T.bind(numbers.load_vector(0)), T.bind(numbers.load_vector(isa.lanes))
            base = T.bind(as_long(task) * as_long(size) * width)
            accumulators = registers(ACCUMULATORS, isa.lanes)
            own = T.bind(task * width)
            for i, accumulator in enumerate(accumulators):
                accumulator.set(sums.load_vector(own + i * isa.lanes))
            # One loop, however small the buffer: leaving an inner one would cost a mispredicted branch each time.
            with T.serial(0, counts[2]) as step:
                at = T.bind(base + as_long(step & (size - 1)) * width)
                for i, accumulator in enumerate(accumulators):
                    if self.kind == "multiply":
                        accumulator.set(accumulator.value * factor + summand)
                    elif self.kind == "read":
                        accumulator.set(accumulator.value + factor * buffer.load_vector(at + i * isa.lanes))
                    else:
                        buffer.store_vector(at + i * isa.lanes, accumulator.value)
            for i, accumulator in enumerate(accumulators):
                sums.store_vector(own + i * isa.lanes, accumulator.value)
