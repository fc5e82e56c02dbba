"""Values in columns, and emitting kernel calls and relayouts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from tvm import relax

from tvm_sparse.layout import relayout
from tvm_sparse.layout.geometry import Geometry, choose_geometry
from tvm_sparse.layout.table import pack_table
from tvm_sparse.plan.pack_moves import pack_move
from tvm_sparse.schedules.cpu import relayout as kernels

from ..context import CompileContext, Kernel
from ..ops import static_shape


@dataclass(frozen=True)
class Columns:
    """A tensor stored in columns.

    Parameters
    ----------
    value : relax.Expr
        float32 ``[batch * panels, channels, vectors, lanes]``.
    geometry : Geometry
        Where its pixels live.
    channels : int
        Channels.
    shape : tuple of int
        Logical shape: ``[N, C, H, W]``, or ``[..., C]`` for tokens.
    tokens : bool
        Whether the channels are the last axis of the logical shape (rather than the second).
    heads : int
        Attention heads that the channels of tokens are split into: the logical shape is ``[..., heads, C / heads]``.
        Only attention and reshapes read such a tensor in columns.
    """

    value: relax.Expr
    geometry: Geometry
    channels: int
    shape: tuple[int, ...]
    tokens: bool
    heads: int = 1

    @property
    def channel_axis(self) -> int:
        """Axis of the channels in the logical shape."""
        return len(self.shape) - 1 if self.tokens else 1


class Emitter:
    """Emits kernel calls into the function that is being built.

    Parameters
    ----------
    builder : relax.BlockBuilder
        Builder, inside of a dataflow block.
    context : CompileContext
        The compilation.
    """

    def __init__(self, builder: relax.BlockBuilder, context: CompileContext):
        self.builder = builder
        self.context = context

    @property
    def lanes(self) -> int:
        """float32 elements of a vector."""
        return self.context.isa.lanes

    def emit(self, expression: relax.Expr) -> relax.Var:
        """Bind an expression."""
        return self.builder.emit(expression)

    def kernel(
        self, kernel: Kernel, arguments: Sequence[relax.Expr | np.ndarray], shape: Sequence[int]
    ) -> relax.Var:
        """Call a kernel that writes one float32 tensor."""
        values = [relax.const(a) if isinstance(a, np.ndarray) else a for a in arguments]
        out = relax.TensorType(tuple(shape), "float32")
        return self.emit(relax.call_dps_packed(self.context.use(kernel), values, out_ty=out))

    def image_columns(self, value: relax.Expr) -> Columns:
        """Bring ``[N, C, H, W]`` to columns."""
        shape = static_shape(value)
        assert shape is not None
        batch, channels, height, width = shape
        geometry = choose_geometry(batch, height, width, self.lanes)
        return self._gather(value, geometry, channels, shape, False, width, 1, height * width)

    def token_columns(self, value: relax.Expr) -> Columns:
        """Bring ``[..., C]`` to columns; the second last axis (and what precedes it) are tokens."""
        shape = static_shape(value)
        assert shape is not None
        geometry = token_geometry(shape, self.lanes)
        return self._gather(value, geometry, shape[-1], shape, True, 0, shape[-1], 1)

    def _gather(
        self, value: relax.Expr, geometry: Geometry, channels: int, shape: tuple[int, ...], tokens: bool,
        row_stride: int, column_stride: int, channel_stride: int,
    ) -> Columns:  # fmt: skip
        table = pack_table(
            kernels.TO_COLUMNS_FIELDS,
            {
                "images": geometry.batch,
                "panels": geometry.panels,
                "channels": channels,
                "vectors": geometry.vectors,
                "image_stride": geometry.pixels * channels,
                "channel_stride": channel_stride,
                "pixels": relayout.pixels_from_image(geometry, row_stride, column_stride),
            },
        )
        out = self.kernel(kernels.ToColumns(len(shape)), [value, table], geometry.shape(channels))
        return Columns(out, geometry, channels, shape, tokens)

    def move_pixels(
        self, columns: Columns, geometry: Geometry, y: np.ndarray, x: np.ndarray, shape: tuple[int, ...],
        channels: int | None = None, shift: np.ndarray | None = None,
    ) -> Columns:  # fmt: skip
        """Gather pixels into another geometry.

        Parameters
        ----------
        columns : Columns
            Source.
        geometry : Geometry
            Target.
        y, x : numpy.ndarray
            Pixel of the source for each pixel of the target, ``[height, width]``.
        shape : tuple of int
            Logical shape of the result.
        channels : int, optional
            Channels of the result, where it has fewer than the source.
        shift : numpy.ndarray, optional
            Channel that each pixel of the target starts from, ``[height, width]``.
        """
        source = columns.geometry
        pixels = relayout.pixels_from_columns(geometry, source, columns.channels, y, x)
        if shift is not None:
            panel, vector = np.meshgrid(
                np.arange(geometry.panels), np.arange(geometry.vectors), indexing="ij"
            )
            at_y, at_x = geometry.pixel(panel, vector)
            clipped = np.clip(at_y, 0, geometry.height - 1), np.clip(at_x, 0, geometry.width - 1)
            pixels = pixels + shift[clipped] * source.vectors * source.lanes
        count = channels or columns.channels
        packed = pack_move(pixels, source, geometry, columns.channels, count, self.context.isa)
        out = self.kernel(packed.kernel, [columns.value, *packed.arrays], geometry.shape(count))
        return Columns(out, geometry, count, shape, columns.tokens)

    def with_geometry(self, columns: Columns, geometry: Geometry) -> Columns:
        """Relayout a tensor to another geometry of the same images (no-op where it is there already)."""
        if columns.geometry == geometry:
            return columns
        if columns.geometry.batch != geometry.batch:
            # Tokens cut into sequences in another way: through the plain tensor.
            plain = self.plain(replace(columns, shape=(geometry.batch * geometry.pixels, columns.channels)))
            shape = (geometry.batch, geometry.pixels, columns.channels)
            moved = self.token_columns(self.emit(relax.op.reshape(plain, shape)))
            return replace(moved, shape=columns.shape)
        y, x = np.meshgrid(np.arange(geometry.height), np.arange(geometry.width), indexing="ij")
        return self.move_pixels(columns, geometry, y, x, columns.shape)

    def plain(self, columns: Columns) -> relax.Var:
        """Bring columns back to the logical tensor."""
        if columns.heads > 1:
            merged = replace(columns, heads=1, shape=(*columns.shape[:-2], columns.channels))
            return self.emit(relax.op.reshape(self.plain(merged), columns.shape))
        geometry = columns.geometry
        elements = geometry.vectors * geometry.lanes
        values = {
            "images": geometry.batch,
            "channels": columns.channels,
            "image_pixels": geometry.pixels,
            "image_stride": geometry.panels * columns.channels * elements,
            "channel_stride": elements,
            "pixels": relayout.image_pixels(geometry, columns.channels),
        }
        if columns.tokens:
            table = pack_table(kernels.TO_TOKENS_FIELDS, values)
            kernel: Kernel = kernels.ToTokens(len(columns.shape))
        else:
            table = pack_table(kernels.TO_IMAGES_FIELDS, values)
            kernel = kernels.ToImages()
        return self.kernel(kernel, [columns.value, table], columns.shape)


def token_geometry(shape: Sequence[int], lanes: int) -> Geometry:
    """Geometry of ``[..., C]``: the last axis before the channels is the width, those before are the batch."""
    return choose_geometry(prod(shape[:-2]), 1, shape[-2], lanes)
