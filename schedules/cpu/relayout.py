"""Relayouts between plain tensors and columns, and the mean over all pixels of an image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T
from tvm.tirx import PrimFunc

from tvm_sparse.layout.transpose import QUAD

from .ir import Flat, TableReader, as_long, build_function, constant, registers
from .isa import Isa
from .lanes import mask_lanes
from .move_columns import emit_move
from .quads import load_quads, transpose_quads

_PLAIN_FIELDS = (
    "sets",  # of images that share vectors
    "parts",  # tasks of a set's block of channels
    "plain_set",  # elements between sets
    "plain_channel",  # elements between channels
    "columns_set",
    "columns_channel",
    "quads",
    "quad_parts",  # first of each task
    "channels",  # for which a task repeats what it does
    "channel_block",  # and for how many of them each does
    "steps",  # times that each quad is applied at once, to channels 0, 4, 8, ...
    "last_step",  # and at the end to this channel
    "gathers",
    "gather_parts",
)
TO_COLUMNS_FIELDS = _PLAIN_FIELDS
FROM_COLUMNS_FIELDS = (*_PLAIN_FIELDS, "elements", "element_parts")
MEAN_FIELDS = ("sets", "panels", "channels", "vectors", "masks")


@dataclass(frozen=True)
class ToColumns:
    """Bring a plain tensor of any strides to columns.

    Parameters
    ----------
    rank : int
        Rank of the input tensor.
    """

    rank: int

    @property
    def view_arguments(self) -> tuple[int, ...]:
        """Positions of arguments that may begin inside of a larger tensor."""
        return (0,)

    @property
    def unaligned_arguments(self) -> tuple[int, ...]:
        """Positions of arguments whose memory may begin at any element."""
        return (0,)

    def symbol(self, isa: Isa) -> str:
        """Name of the compiled function."""
        return f"tvm_sparse_to_columns_{self.rank}d_{isa.name}"

    def build(self, isa: Isa) -> PrimFunc:
        """Build the kernel: ``(x, table, y)``."""
        arguments = [("x", self.rank, "float32"), ("table", 1, "int32"), ("y", 4, "float32")]
        return build_function(
            self.symbol(isa), arguments, isa.lanes, lambda *flats: self._body(isa, *flats),
            views=("x",), unaligned=("x",),
        )  # fmt: skip

    def _body(self, isa: Isa, source: Flat, table_buffer: Flat, output: Flat) -> None:
        table, lanes = TableReader(table_buffer, TO_COLUMNS_FIELDS), isa.lanes

        def quad(numbers: list, plain, columns) -> None:
            places, starts = numbers[:QUAD], numbers[QUAD:]
            vectors = load_quads(source, [plain + start for start in starts], lanes)
            for place, vector in zip(places, vectors, strict=True):
                output.store_vector(columns + place, vector)

        def gather(at, plain, columns) -> None:
            elements = table.vector("gathers", at + 1) + T.Broadcast(T.Cast("int32", plain), lanes)
            output.store_vector(columns + table.at("gathers", at), source.buffer[elements])

        _emit_parts(table, QUAD + lanes, quad, [("gather_parts", 1 + lanes, gather)])


@dataclass(frozen=True)
class ToImages:
    """Bring columns back to ``[N, C, H, W]``.

    Parameters
    ----------
    merge : bool
        Whether vectors of the image are merged from vectors of columns, driven by `MOVE_FIELDS`; otherwise columns
        are transposed, driven by `FROM_COLUMNS_FIELDS`.
    """

    merge: bool = False

    def symbol(self, isa: Isa) -> str:
        """Name of the compiled function."""
        return f"tvm_sparse_to_images_{'merge_' if self.merge else ''}{isa.name}"

    def build(self, isa: Isa) -> PrimFunc:
        """Build the kernel: ``(x, table, y)``."""
        arguments = [("x", 4, "float32"), ("table", 1, "int32"), ("y", 4, "float32")]
        emit = emit_move if self.merge else _emit_from_columns
        return build_function(self.symbol(isa), arguments, isa.lanes, lambda *flats: emit(isa, *flats))


@dataclass(frozen=True)
class ToTokens:
    """Bring columns back to ``[..., C]``, channels innermost.

    Parameters
    ----------
    rank : int
        Rank of the output tensor.
    """

    rank: int

    def symbol(self, isa: Isa) -> str:
        """Name of the compiled function."""
        return f"tvm_sparse_to_tokens_{self.rank}d_{isa.name}"

    def build(self, isa: Isa) -> PrimFunc:
        """Build the kernel: ``(x, table, y)``."""
        arguments = [("x", 4, "float32"), ("table", 1, "int32"), ("y", self.rank, "float32")]
        return build_function(
            self.symbol(isa), arguments, isa.lanes, lambda *flats: _emit_from_columns(isa, *flats)
        )


def _emit_from_columns(isa: Isa, source: Flat, table_buffer: Flat, output: Flat) -> None:
    """Emit a kernel from columns to a plain tensor."""
    table, lanes = TableReader(table_buffer, FROM_COLUMNS_FIELDS), isa.lanes

    def quad(numbers: list, plain, columns) -> None:
        vectors = [T.bind(source.load_vector(columns + place)) for place in numbers[:QUAD]]
        rows = transpose_quads(vectors, lanes)
        # The first lane last: those without pixels write to the same place before it.
        for lane in reversed(range(lanes)):
            group = lane // QUAD * QUAD
            four = T.Shuffle([rows[lane % QUAD]], list(range(group, group + QUAD)))
            T.buffer_store(output.buffer, four, [T.Ramp(plain + numbers[QUAD + lane], T.int64(1), QUAD)])

    def gather(at, plain, columns) -> None:
        elements = table.vector("gathers", at + 1) + T.Broadcast(T.Cast("int32", columns), lanes)
        output.store_vector(plain + table.at("gathers", at), source.buffer[elements])

    def element(at, plain, columns) -> None:
        value = source[columns + as_long(table.at("elements", at))]
        output.store(plain + as_long(table.at("elements", at + 1)), value)

    _emit_parts(table, QUAD + lanes, quad, [("gather_parts", 1 + lanes, gather), ("element_parts", 2, element)])


def _emit_parts(table: TableReader, quad_width: int, quad: Callable, rest: list[tuple[str, int, Callable]]) -> None:
    """Emit the loops over tasks, what they do, and channels.

    Parameters
    ----------
    table : TableReader
        Table with `_PLAIN_FIELDS`.
    quad_width : int
        Table entries of a quad.
    quad : callable
        Emits a quad; called with its entries, and the channel's origin in the plain tensor and in columns.
    rest : list of tuple
        What is done for single channels: the field with the first one of each task, its table entries, and a callable
        that emits one; called with its position in its array, and the origins.
    """
    block = table.scalar("channel_block")
    blocks = T.truncdiv(table.scalar("channels") + block - 1, block)
    with T.parallel(0, table.scalar("sets") * blocks * table.scalar("parts")) as task:
        part = T.bind(T.truncmod(task, table.scalar("parts")))
        place = T.bind(T.truncdiv(task, table.scalar("parts")))
        images, first = T.bind(T.truncdiv(place, blocks)), T.bind(T.truncmod(place, blocks) * block)
        channels = T.bind(as_long(T.min(block, table.scalar("channels") - first)))
        plain_step = T.bind(as_long(table.scalar("plain_channel")))
        columns_step = T.bind(as_long(table.scalar("columns_channel")))
        plain = T.bind(as_long(images * table.scalar("plain_set")) + first * plain_step)
        columns = T.bind(as_long(images * table.scalar("columns_set")) + first * columns_step)

        def operations(name: str, emit: Callable) -> None:
            begin = T.bind(table.at(name, part))
            count = T.bind(table.at(name, part + 1) - begin)
            with T.serial(0, channels) as channel:
                with T.serial(0, count) as number:
                    emit(T.bind(begin + number), channel)

        def origins(channel) -> tuple:
            return T.bind(plain + channel * plain_step), T.bind(columns + channel * columns_step)

        def apply_quad(number, channel) -> None:
            at = T.bind(number * quad_width)
            numbers = [T.bind(as_long(table.at("quads", at + i))) for i in range(quad_width)]
            with T.serial(0, as_long(table.scalar("steps"))) as step:
                last = as_long(table.scalar("last_step"))
                quad(numbers, *origins(channel + T.min(step * QUAD, last)))

        operations("quad_parts", apply_quad)
        for name, width, emit in rest:
            operations(name, lambda n, channel, w=width, e=emit: e(T.bind(n * w), *origins(channel)))


@dataclass(frozen=True)
class MeanColumns:
    """Mean over the pixels of each image and channel: columns to ``[N, C, 1, 1]``.

    Parameters
    ----------
    images, image_lanes : int
        Images that share vectors, and lanes of each; an image by itself may have any lanes.
    """

    images: int = 1
    image_lanes: int = 0

    def symbol(self, isa: Isa) -> str:
        """Name of the compiled function."""
        shared = f"{self.images}x{self.image_lanes}_" if self.images > 1 else ""
        return f"tvm_sparse_mean_columns_{shared}{isa.name}"

    def build(self, isa: Isa) -> PrimFunc:
        """Build the kernel: ``(x, scale, table, y)``; the scale is one over the pixels."""
        arguments = [
            ("x", 4, "float32"), ("scale", 1, "float32"), ("table", 1, "int32"), ("y", 4, "float32"),
        ]  # fmt: skip
        return build_function(self.symbol(isa), arguments, isa.lanes, lambda *flats: self._body(isa, *flats))

    def _body(self, isa: Isa, source: Flat, scale: Flat, table_buffer: Flat, output: Flat) -> None:
        table, lanes = TableReader(table_buffer, MEAN_FIELDS), isa.lanes
        with T.parallel(0, table.scalar("sets") * table.scalar("channels")) as place:
            channels = T.bind(table.scalar("channels"))
            set_number, channel = T.bind(T.truncdiv(place, channels)), T.bind(T.truncmod(place, channels))
            panels, vectors = T.bind(table.scalar("panels")), T.bind(table.scalar("vectors"))
            (total,) = registers(1, lanes)
            total.set(constant(0.0, lanes))
            with T.serial(0, panels) as panel:
                base = T.bind((((set_number * panels) + panel) * channels + channel) * vectors * lanes)
                with T.serial(0, vectors) as s:
                    mask = table.vector("masks", (panel * vectors + s) * lanes)
                    total.set(total.value + mask_lanes(mask, source.load_vector(base + s * lanes), lanes))
            count = self.image_lanes if self.images > 1 else lanes
            for image in range(self.images):
                lanes_sum, *rest = (T.Shuffle([total.value], [image * count + lane]) for lane in range(count))
                for value in rest:
                    lanes_sum = lanes_sum + value
                output.store((set_number * self.images + image) * channels + channel, lanes_sum * scale[0])
