"""Columns to columns of another geometry or size: pixels moved, or blended for linear resizing."""

from __future__ import annotations

from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T
from tvm.tirx import PrimFunc

from .ir import Flat, TableReader, build_function
from .isa import Isa
from .merge import MERGE_FIELDS, Place, emit_merges

MOVE_FIELDS = (
    *MERGE_FIELDS,
    "sets",  # of images that are moved together
    "channels",  # of the output
    "channel_block",  # channels that a task does at once
    "input_set",  # elements between sets
    "input_channel",  # elements between channels
    "output_set",
    "output_channel",
)
BLEND_FIELDS = (*MOVE_FIELDS, "blends", "blend_pointers")

# Elements of a task's buffer of merged vectors in `BlendColumns`.
BUFFER_ELEMENTS = 8192

# Pixels that are blended, and entries of a blend in the table: destination, position of each pixel's vector in the
# buffer, position of the weights.
TAPS = 4
BLEND_WIDTH = TAPS + 2


@dataclass
class _Task:
    stripe: object
    channels: object
    read: object
    write: object


def _emit_task(table: TableReader, task) -> _Task:
    """A task is one stripe of one set of images and one block of channels."""
    block = T.bind(table.scalar("channel_block"))
    blocks = T.bind(T.truncdiv(table.scalar("channels") + block - 1, block))
    stripes = T.bind(table.scalar("stripes"))
    place = T.bind(T.truncdiv(task, stripes))
    images = T.bind(T.truncdiv(place, blocks))
    first = T.bind(T.truncmod(place, blocks) * block)
    return _Task(
        stripe=T.bind(T.truncmod(task, stripes)),
        channels=T.bind(T.min(block, table.scalar("channels") - first)),
        read=T.bind(images * table.scalar("input_set") + first * table.scalar("input_channel")),
        write=T.bind(images * table.scalar("output_set") + first * table.scalar("output_channel")),
    )


def _tasks(table: TableReader):
    block = table.scalar("channel_block")
    blocks = T.truncdiv(table.scalar("channels") + block - 1, block)
    return table.scalar("sets") * table.scalar("stripes") * blocks


def emit_move(isa: Isa, source: Flat, table_buffer: Flat, output: Flat) -> None:
    """Emit a kernel that gathers vectors of pixels from columns."""
    table = TableReader(table_buffer, MOVE_FIELDS)
    with T.parallel(0, _tasks(table)) as number:
        task = _emit_task(table, number)
        read = Place(source, task.read, T.bind(table.scalar("input_channel")))
        write = Place(output, task.write, T.bind(table.scalar("output_channel")))
        emit_merges(isa, table, task.stripe, read, write, task.channels)


@dataclass(frozen=True)
class MoveColumns:
    """Move pixels of columns into another geometry."""

    def symbol(self, isa: Isa) -> str:
        """Name of the compiled function."""
        return f"tvm_sparse_move_columns_{isa.name}"

    def build(self, isa: Isa) -> PrimFunc:
        """Build the kernel: ``(x, table, y)``."""
        arguments = [("x", 4, "float32"), ("table", 1, "int32"), ("y", 4, "float32")]
        return build_function(self.symbol(isa), arguments, isa.lanes, lambda *flats: self._body(isa, *flats))

    def _body(self, isa: Isa, source: Flat, table_buffer: Flat, output: Flat) -> None:
        emit_move(isa, source, table_buffer, output)


@dataclass(frozen=True)
class BlendColumns:
    """Weighted sum of four pixels: linear resizing.

    Neighbouring outputs read the same pixels: the vectors of pixels that a stripe needs are merged once into a
    buffer, then each output is four multiply-adds of vectors of the buffer.

    Parameters
    ----------
    residual : bool
        Whether a second tensor, in the output's geometry, is added.
    """

    residual: bool = False

    @property
    def shared_argument(self) -> int | None:
        """Position of the argument that the output may overwrite."""
        return 1 if self.residual else None

    def symbol(self, isa: Isa) -> str:
        """Name of the compiled function."""
        return f"tvm_sparse_blend_columns_{'residual_' if self.residual else ''}{isa.name}"

    def build(self, isa: Isa) -> PrimFunc:
        """Build the kernel: ``(x[, residual], weights, table, y)``; weights ``[k, taps, lanes]``."""
        arguments = [("x", 4, "float32"), ("residual", 4, "float32")][: 2 if self.residual else 1]
        arguments += [("weights", 1, "float32"), ("table", 1, "int32"), ("y", 4, "float32")]
        return build_function(self.symbol(isa), arguments, isa.lanes, lambda *flats: self._body(isa, *flats))

    def _body(self, isa: Isa, source: Flat, *rest: Flat) -> None:
        weights, table_buffer, output = rest[-3:]
        table, lanes = TableReader(table_buffer, BLEND_FIELDS), isa.lanes
        with T.parallel(0, _tasks(table)) as number:
            task = _emit_task(table, number)
            buffer = Flat(T.alloc_buffer((BUFFER_ELEMENTS,), "float32", scope="global"), lanes)
            read = Place(source, task.read, T.bind(table.scalar("input_channel")))
            emit_merges(isa, table, task.stripe, read, Place(buffer, 0, lanes), task.channels)
            step = T.bind(table.scalar("output_channel"))
            begin = T.bind(table.at("blend_pointers", task.stripe))
            count = T.bind(table.at("blend_pointers", task.stripe + 1) - begin)
            with T.serial(0, count) as blend:
                to, *at, factor = (
                    T.bind(table.at("blends", (begin + blend) * BLEND_WIDTH + i)) for i in range(BLEND_WIDTH)
                )
                factors = [T.bind(weights.load_vector(factor + i * lanes)) for i in range(TAPS)]
                with T.serial(0, task.channels) as c:
                    value = factors[0] * buffer.load_vector(at[0] + c * lanes)
                    for position, weight in zip(at[1:], factors[1:], strict=True):
                        value = value + weight * buffer.load_vector(position + c * lanes)
                    place = T.bind(task.write + to + c * step)
                    output.store_vector(place, value + rest[0].load_vector(place) if self.residual else value)
