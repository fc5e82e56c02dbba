"""Depth-wise convolutions of a panel by a register tile.

With 32 registers the accumulators of a tile, the weights of 3x3 taps and the vectors at hand stay in registers, so the
multiply-adds do not wait for loads. With 16, sums are stored as soon as their last vector is read.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T

from .epilogue import emit_activation, emit_stored_activation, is_applied_in_memory
from .ir import Flat, TableReader, broadcast, registers
from .isa import Isa
from .window_tile import PanelWindow, Result, WindowTile


@dataclass(frozen=True)
class DepthwiseTile(WindowTile):
    """A depth-wise convolution of one panel.

    Parameters
    ----------
    activation : str
        Kind of the epilogue's activation.
    """

    activation: str = "clip"

    @property
    def name(self) -> str:
        """Name in symbols."""
        return f"{self.shape_name}_{self.activation}"

    def channel(
        self, isa: Isa, table: TableReader, x: Flat, values: Flat, numbers: Flat, window: PanelWindow, channel,
        result: Result,
    ) -> None:  # fmt: skip
        """Emit one channel of a panel.

        Parameters
        ----------
        isa : Isa
            Instruction set.
        table : TableReader
            Table with the window's fields and ``input_channel``.
        x, values, numbers : Flat
            The input, the weights ``[M][taps]``, bias and parameters of the activation.
        window : PanelWindow
            Where the window is.
        channel : expression
            The channel.
        result : Result
            Where the result is stored.
        """
        lanes, taps = isa.lanes, self.kernel[0] * self.kernel[1]
        accumulators = registers(self.vectors, lanes)
        start = T.bind(broadcast(numbers[channel], lanes))
        for accumulator in accumulators:
            accumulator.set(start)
        first = T.bind(channel * taps)
        channels = table.scalar("channels")
        weights: dict[int, object] = {}
        kind, in_memory = self.activation, is_applied_in_memory(self.activation, isa)
        held = self.sums(isa) + self.kernel[1] * min(self.tile[0], self.kernel[0])
        for vector, uses, finished in self.read(isa, table, x, window, channel, 0.0, held):
            for s, tap in uses:
                if tap not in weights:
                    weights[tap] = T.bind(broadcast(values[first + tap], lanes))
                accumulators[s].set(accumulators[s].value + weights[tap] * vector)
            for s in finished:
                value = accumulators[s].value
                if not in_memory:
                    value = emit_activation(kind, value, numbers, channels, channel, lanes)
                result.store(s, value)
        if in_memory:
            emit_stored_activation(
                kind, result.array, result.start, self.vectors, numbers, channels, channel, lanes
            )
