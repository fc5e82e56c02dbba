"""Depth-wise convolutions over columns: every panel of every channel by a register tile."""

from __future__ import annotations

from dataclasses import dataclass

from tvm.tirx import PrimFunc

from .depthwise_tile import DepthwiseTile
from .ir import Flat, TableReader, build_function
from .isa import Isa
from .window_tile import PANEL_FIELDS


@dataclass(frozen=True)
class DepthwiseColumns(DepthwiseTile):
    """A kernel of the family; parameters as of the tile."""

    def symbol(self, isa: Isa) -> str:
        """Name of the compiled function."""
        return f"tvm_sparse_depthwise_columns_{self.name}_{isa.name}"

    def build(self, isa: Isa) -> PrimFunc:
        """Build the kernel: ``(x, values, numbers, table, y)``; values are ``[M][taps]``."""
        arguments = [("x", 4, "float32"), ("values", 1, "float32"), ("numbers", 1, "float32")]
        arguments += [("table", 1, "int32"), ("y", 4, "float32")]
        return build_function(self.symbol(isa), arguments, isa.lanes, lambda *flats: self._body(isa, *flats))

    def _body(self, isa: Isa, x: Flat, values: Flat, numbers: Flat, table_buffer: Flat, y: Flat) -> None:
        table = TableReader(table_buffer, PANEL_FIELDS)
        self.emit_panels(
            isa, table, y,
            lambda window, channel, result: self.channel(isa, table, x, values, numbers, window, channel, result),
        )  # fmt: skip
