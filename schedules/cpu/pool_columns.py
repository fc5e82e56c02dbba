"""Max pooling over columns: the maximum over the taps of a window, channel by channel.

Where windows are small a register tile reads them in place, otherwise they are built in a buffer.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T
from tvm.tirx import PrimFunc

from .driver import DRIVER_FIELDS, HALO_FIELDS, Block, emit_tasks
from .ir import Flat, TableReader, build_function, constant, registers
from .isa import Isa
from .window_tile import PANEL_FIELDS, PanelWindow, Result, WindowTile

FIELDS = (*DRIVER_FIELDS, *HALO_FIELDS, "taps", "tap_count")

LOWEST = -3.4028234663852886e38


@dataclass(frozen=True)
class MaxPoolColumns:
    """A kernel of the family.

    Parameters
    ----------
    tile : tuple of int
        Rows and columns ``(R, V)`` of the register tile.
    """

    tile: tuple[int, int]

    def symbol(self, isa: Isa) -> str:
        """Name of the compiled function."""
        return f"tvm_sparse_max_pool_columns_{self.tile[0]}x{self.tile[1]}_{isa.name}"

    def build(self, isa: Isa) -> PrimFunc:
        """Build the kernel: ``(x, table, y)``."""
        arguments = [("x", 4, "float32"), ("table", 1, "int32"), ("y", 4, "float32")]
        return build_function(self.symbol(isa), arguments, isa.lanes, lambda *flats: self._body(isa, *flats))

    def _body(self, isa: Isa, source: Flat, table_buffer: Flat, output: Flat) -> None:
        table = TableReader(table_buffer, FIELDS)
        lanes, (tile_rows, tile_columns) = isa.lanes, self.tile

        def rows(block: Block) -> None:
            first_channel = T.bind(table.at("block", block.index * 4))
            with T.serial(0, table.at("block", block.index * 4 + 1)) as c:
                accumulators = registers(tile_rows * tile_columns, lanes)
                for accumulator in accumulators:
                    accumulator.set(constant(LOWEST, lanes))
                base = T.bind(block.base + c * table.scalar("buffer_channel"))
                with T.serial(0, table.scalar("tap_count")) as tap:
                    origin = T.bind(base + table.at("taps", tap))
                    for s, accumulator in enumerate(accumulators):
                        column, r = divmod(s, tile_rows)
                        vector = block.source.load_vector(origin + block.pitch * column + r * lanes)
                        accumulator.set(T.max(accumulator.value, vector))
                y = T.bind(block.output + (first_channel + c) * table.scalar("output_channel"))
                for s, accumulator in enumerate(accumulators):
                    output.store_vector(y + s * lanes, accumulator.value)

        emit_tasks(isa, table, source, True, self.tile, rows, fill=LOWEST)


@dataclass(frozen=True)
class MaxPoolPanels(WindowTile):
    """The register tile as a kernel; parameters as of the tile."""

    def symbol(self, isa: Isa) -> str:
        """Name of the compiled function."""
        return f"tvm_sparse_max_pool_panels_{self.shape_name}_{isa.name}"

    def build(self, isa: Isa) -> PrimFunc:
        """Build the kernel: ``(x, table, y)``."""
        arguments = [("x", 4, "float32"), ("table", 1, "int32"), ("y", 4, "float32")]
        return build_function(self.symbol(isa), arguments, isa.lanes, lambda *flats: self._body(isa, *flats))

    def _body(self, isa: Isa, source: Flat, table_buffer: Flat, output: Flat) -> None:
        table = TableReader(table_buffer, PANEL_FIELDS)

        def channel(window: PanelWindow, number, result: Result) -> None:
            accumulators = registers(self.vectors, isa.lanes)
            for accumulator in accumulators:
                accumulator.set(constant(LOWEST, isa.lanes))
            for vector, uses, finished in self.read(isa, table, source, window, number, LOWEST, self.sums(isa)):
                for s, _ in uses:
                    accumulators[s].set(T.max(accumulators[s].value, vector))
                for s in finished:
                    result.store(s, accumulators[s].value)

        self.emit_panels(isa, table, output, channel)
