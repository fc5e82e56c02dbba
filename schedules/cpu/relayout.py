"""Relayouts between plain tensors and columns, and the mean over all pixels of an image."""

from __future__ import annotations

from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T
from tvm.tirx import PrimFunc

from .ir import Flat, TableReader, build_function, constant, registers
from .isa import Isa

TO_COLUMNS_FIELDS = (
    "images", "panels", "channels", "vectors", "image_stride", "channel_stride", "pixels",
)  # fmt: skip
TO_IMAGES_FIELDS = ("images", "channels", "image_pixels", "image_stride", "channel_stride", "pixels")
TO_TOKENS_FIELDS = ("images", "channels", "image_pixels", "image_stride", "channel_stride", "pixels")
MEAN_FIELDS = ("images", "panels", "channels", "vectors", "masks")


@dataclass(frozen=True)
class ToColumns:
    """Gather columns from a tensor of any strides.

    Parameters
    ----------
    rank : int
        Rank of the input tensor.
    """

    rank: int

    def symbol(self, isa: Isa) -> str:
        """Name of the compiled function."""
        return f"tvm_sparse_to_columns_{self.rank}d_{isa.name}"

    def build(self, isa: Isa) -> PrimFunc:
        """Build the kernel: ``(x, table, y)``."""
        arguments = [("x", self.rank, "float32"), ("table", 1, "int32"), ("y", 4, "float32")]
        return build_function(self.symbol(isa), arguments, isa.lanes, lambda *flats: self._body(isa, *flats))

    def _body(self, isa: Isa, source: Flat, table_buffer: Flat, output: Flat) -> None:
        table, lanes = TableReader(table_buffer, TO_COLUMNS_FIELDS), isa.lanes
        with T.parallel(0, table.scalar("images") * table.scalar("panels")) as place:
            image = T.bind(T.truncdiv(place, table.scalar("panels")))
            panel = T.bind(T.truncmod(place, table.scalar("panels")))
            channels, vectors = T.bind(table.scalar("channels")), T.bind(table.scalar("vectors"))
            with T.serial(0, vectors) as s:
                at = T.bind(table.vector("pixels", (panel * vectors + s) * lanes))
                with T.serial(0, channels) as c:
                    base = T.bind(
                        image * table.scalar("image_stride") + c * table.scalar("channel_stride")
                    )
                    y = ((place * channels + c) * vectors + s) * lanes
                    output.store_vector(y, source.buffer[at + T.Broadcast(base, lanes)])


@dataclass(frozen=True)
class ToImages:
    """Bring columns back to ``[N, C, H, W]``."""

    def symbol(self, isa: Isa) -> str:
        """Name of the compiled function."""
        return f"tvm_sparse_to_images_{isa.name}"

    def build(self, isa: Isa) -> PrimFunc:
        """Build the kernel: ``(x, table, y)``."""
        arguments = [("x", 4, "float32"), ("table", 1, "int32"), ("y", 4, "float32")]
        return build_function(self.symbol(isa), arguments, isa.lanes, lambda *flats: self._body(isa, *flats))

    def _body(self, isa: Isa, source: Flat, table_buffer: Flat, output: Flat) -> None:
        table, lanes = TableReader(table_buffer, TO_IMAGES_FIELDS), isa.lanes
        with T.parallel(0, table.scalar("images") * table.scalar("channels")) as place:
            channel = T.bind(T.truncmod(place, table.scalar("channels")))
            image = T.bind(T.truncdiv(place, table.scalar("channels")))
            pixels = T.bind(table.scalar("image_pixels"))
            base = T.bind(image * table.scalar("image_stride") + channel * table.scalar("channel_stride"))
            with T.serial(0, T.truncdiv(pixels, lanes)) as step:
                at = table.vector("pixels", step * lanes) + T.Broadcast(base, lanes)
                output.store_vector(place * pixels + step * lanes, source.buffer[at])
            done = T.bind(T.truncdiv(pixels, lanes) * lanes)
            with T.serial(0, pixels - done) as rest:
                index = T.bind(done + rest)
                output.store(place * pixels + index, source[base + table.at("pixels", index)])


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
        return build_function(self.symbol(isa), arguments, isa.lanes, lambda *flats: self._body(isa, *flats))

    def _body(self, isa: Isa, source: Flat, table_buffer: Flat, output: Flat) -> None:
        table, lanes = TableReader(table_buffer, TO_TOKENS_FIELDS), isa.lanes
        with T.parallel(0, table.scalar("images") * table.scalar("image_pixels")) as place:
            image = T.bind(T.truncdiv(place, table.scalar("image_pixels")))
            pixel = T.bind(T.truncmod(place, table.scalar("image_pixels")))
            base = T.bind(image * table.scalar("image_stride") + table.at("pixels", pixel))
            channels = T.bind(table.scalar("channels"))
            stride = T.bind(table.scalar("channel_stride"))
            with T.serial(0, T.truncdiv(channels, lanes)) as step:
                at = T.Ramp(base + step * lanes * stride, stride, lanes)
                output.store_vector(place * channels + step * lanes, source.buffer[at])
            done = T.bind(T.truncdiv(channels, lanes) * lanes)
            with T.serial(0, channels - done) as rest:
                index = T.bind(done + rest)
                output.store(place * channels + index, source[base + index * stride])


@dataclass(frozen=True)
class MeanColumns:
    """Mean over the pixels of each image and channel: columns to ``[N, C, 1, 1]``."""

    def symbol(self, isa: Isa) -> str:
        """Name of the compiled function."""
        return f"tvm_sparse_mean_columns_{isa.name}"

    def build(self, isa: Isa) -> PrimFunc:
        """Build the kernel: ``(x, scale, table, y)``; the scale is one over the pixels."""
        arguments = [
            ("x", 4, "float32"), ("scale", 1, "float32"), ("table", 1, "int32"), ("y", 4, "float32"),
        ]  # fmt: skip
        return build_function(self.symbol(isa), arguments, isa.lanes, lambda *flats: self._body(isa, *flats))

    def _body(self, isa: Isa, source: Flat, scale: Flat, table_buffer: Flat, output: Flat) -> None:
        table, lanes = TableReader(table_buffer, MEAN_FIELDS), isa.lanes
        floats, ints = f"float32x{lanes}", f"int32x{lanes}"
        with T.parallel(0, table.scalar("images") * table.scalar("channels")) as place:
            channels = T.bind(table.scalar("channels"))
            image, channel = T.bind(T.truncdiv(place, channels)), T.bind(T.truncmod(place, channels))
            panels, vectors = T.bind(table.scalar("panels")), T.bind(table.scalar("vectors"))
            (total,) = registers(1, lanes)
            total.set(constant(0.0, lanes))
            with T.serial(0, panels) as panel:
                base = T.bind((((image * panels) + panel) * channels + channel) * vectors * lanes)
                with T.serial(0, vectors) as s:
                    mask = table.vector("masks", (panel * vectors + s) * lanes)
                    bits = T.reinterpret(ints, source.load_vector(base + s * lanes))
                    total.set(total.value + T.reinterpret(floats, T.bitwise_and(bits, mask)))
            lanes_sum = T.Shuffle([total.value], [0])
            for lane in range(1, lanes):
                lanes_sum = lanes_sum + T.Shuffle([total.value], [lane])
            output.store(place, lanes_sum * scale[0])
