"""Depth-wise convolutions over columns: every panel of every channel by a register tile."""

from __future__ import annotations

from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T
from tvm.tirx import PrimFunc

from .depthwise_tile import WINDOW_FIELDS, DepthwiseTile
from .ir import Flat, TableReader, as_long, build_function
from .isa import Isa

FIELDS = (
    "tasks",
    "panels",  # that are written in an image
    "chunks",
    "chunk",  # first channel of each chunk
    "input_image",  # elements between images
    "output_image",
    "input_channel",  # elements between channels
    "output",  # per panel: its first element in the image that is written
    *WINDOW_FIELDS,
)


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
        table, lanes = TableReader(table_buffer, FIELDS), isa.lanes
        vectors = self.tile[0] * self.tile[1]
        with T.parallel(0, table.scalar("tasks")) as task:
            chunk = T.bind(T.truncmod(task, table.scalar("chunks")))
            place = T.bind(T.truncdiv(task, table.scalar("chunks")))
            panel = T.bind(T.truncmod(place, table.scalar("panels")))
            number = T.bind(T.truncdiv(place, table.scalar("panels")))
            image = T.bind(as_long(number * table.scalar("input_image")))
            output = T.bind(as_long(number * table.scalar("output_image") + table.at("output", panel)))
            first = T.bind(table.at("chunk", chunk))
            count = T.bind(table.at("chunk", chunk + 1) - first)
            window = self.window_of(table, image, panel)
            with T.serial(0, count) as number:
                channel = T.bind(first + number)
                target = T.bind(output + as_long(channel * (vectors * lanes)))
                self.channel(
                    isa, table, x, values, numbers, window, channel,
                    lambda s, value, target=target: y.store_vector(target + s * lanes, value),
                )  # fmt: skip
