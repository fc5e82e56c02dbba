"""Values in columns, and emitting kernel calls and relayouts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from tvm import relax

from tvm_sparse.layout import relayout
from tvm_sparse.layout.geometry import Geometry, choose_geometry
from tvm_sparse.layout.image_window import Strides
from tvm_sparse.plan.pack_moves import pack_move
from tvm_sparse.plan.pack_plain import pack_from_columns, pack_to_columns
from tvm_sparse.plan.stripes import Stripes

from ..calls import call_of
from ..context import CompileContext, Kernel
from ..ops import static_shape
from ..rewrite import tensor


@dataclass(frozen=True)
class Columns:
    """A tensor stored in columns.

    Parameters
    ----------
    value : relax.Expr
        float32 ``[batch * panels, stored channels, vectors, lanes]``.
    geometry : Geometry
        Where its pixels live.
    channels : int
        Channels.
    shape : tuple of int
        Logical shape: ``[N, C, H, W]`` (or ``[N, C, H * W]``), or ``[..., C]`` for tokens, whose pixels are numbered
        row by row.
    tokens : bool
        Whether the channels are the last axis of the logical shape (rather than the second).
    heads : int
        Attention heads that the channels of tokens are split into: the logical shape is ``[..., heads, C / heads]``.
        Only attention and reshapes read such a tensor in columns.
    first : int
        First channel within the stored ones: a range of the channels of a wider tensor, as attention reads its
        queries, keys and values. For other readers `Emitter.whole` copies it.
    """

    value: relax.Expr
    geometry: Geometry
    channels: int
    shape: tuple[int, ...]
    tokens: bool
    heads: int = 1
    first: int = 0

    @property
    def stored(self) -> int:
        """Channels of the stored tensor."""
        shape = static_shape(self.value)
        return self.channels if shape is None else shape[1]

    @property
    def is_range(self) -> bool:
        """Whether only some of the stored channels belong to the tensor."""
        return self.channels != self.stored

    @property
    def channel_axis(self) -> int:
        """Axis of the channels in the logical shape."""
        return len(self.shape) - 1 if self.tokens else 1


@dataclass(frozen=True)
class Held:
    """A value that nobody makes: the only operator that reads it computes it too.

    Parameters
    ----------
    what : object
        What that operator's handler needs to know.
    """

    what: object


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
        self._copies: dict[tuple[relax.Expr, int, int], relax.Var] = {}
        self._moved: dict[tuple[relax.Expr, Geometry], relax.Expr] = {}

    @property
    def lanes(self) -> int:
        """float32 elements of a vector."""
        return self.context.isa.lanes

    def emit(self, expression: relax.Expr) -> relax.Var:
        """Bind an expression."""
        return self.builder.emit(expression)

    def kernel(
        self,
        kernel: Kernel,
        arguments: Sequence[relax.Expr | np.ndarray],
        shape: Sequence[int],
        layer: str | None = None,
        stripes: Stripes | None = None,
    ) -> relax.Var:
        """Call a kernel that writes one float32 tensor.

        The call is marked with the name of the plan's layer, and with how it runs in parts.
        """
        values = [tensor(a) if isinstance(a, np.ndarray) else a for a in arguments]
        out = relax.TensorType(tuple(shape), "float32")
        key = None if stripes is None else str(len(self.context.stripes))
        if key is not None and stripes is not None:
            self.context.stripes[key] = stripes
        return self.emit(relax.call_dps_packed(call_of(self.context.use(kernel), layer, key), values, out_ty=out))

    def image_columns(self, value: relax.Expr) -> Columns:
        """Bring ``[N, C, H, W]`` to columns."""
        shape = static_shape(value)
        assert shape is not None
        batch, channels, height, width = shape
        geometry = choose_geometry(batch, height, width, self.lanes)
        value, strides = self.plain_image(value)
        return self._gather(value, geometry, channels, shape, False, strides)

    def plain_image(self, value: relax.Expr) -> tuple[relax.Expr, Strides]:
        """The plain tensor that holds ``[N, C, H, W]``, and its strides: with the channels last if it is so."""
        shape = static_shape(value)
        assert shape is not None
        _, channels, height, width = shape
        channels_last = self._channels_last(value)
        if channels_last is not None:
            return channels_last, Strides(width * channels, channels, 1)
        return value, Strides(width, 1, height * width)

    def _channels_last(self, value: relax.Expr) -> relax.Expr | None:
        """What ``[N, C, H, W]`` is made of, where that is a transpose of ``[N, H, W, C]``."""
        call = self.builder.lookup_binding(value) if isinstance(value, relax.Var) else value
        if not isinstance(call, relax.Call) or getattr(call.op, "name", "") != "relax.permute_dims":
            return None
        axes = call.attrs.axes
        return call.args[0] if axes is not None and [int(a) for a in axes] == [0, 3, 1, 2] else None

    def token_columns(self, value: relax.Expr) -> Columns:
        """Bring ``[..., C]`` to columns; every other axis counts tokens."""
        shape = static_shape(value)
        assert shape is not None
        geometry = token_geometry(shape, self.lanes)
        strides = Strides(geometry.width * shape[-1], shape[-1], 1)
        return self._gather(value, geometry, shape[-1], shape, True, strides)

    def sequence_columns(self, value: relax.Expr) -> Columns:
        """Bring ``[batch, tokens, heads, depth]`` to columns, each sequence to panels of its own."""
        shape = static_shape(value)
        assert shape is not None
        batch, tokens, heads, depth = shape
        geometry = choose_geometry(batch, 1, tokens, self.lanes, tokens=True)
        channels = heads * depth
        strides = Strides(tokens * channels, channels, 1)
        return replace(self._gather(value, geometry, channels, shape, True, strides), heads=heads)

    def _gather(
        self, value: relax.Expr, geometry: Geometry, channels: int, shape: tuple[int, ...], tokens: bool,
        strides: Strides,
    ) -> Columns:  # fmt: skip
        packed = pack_to_columns(geometry, channels, strides, len(shape))
        out = self.kernel(packed.kernel, [value, *packed.arrays], geometry.shape(channels))
        return Columns(out, geometry, channels, shape, tokens)

    def whole(self, columns: Columns) -> Columns:
        """Copy a range of channels to a tensor of its own, once for all readers (no-op for others)."""
        if not columns.is_range:
            return columns
        begin, end = columns.first, columns.first + columns.channels
        key = (columns.value, begin, end)
        if key not in self._copies:
            self._copies[key] = self.emit(relax.op.strided_slice(columns.value, axes=[1], begin=[begin], end=[end]))
        return replace(columns, value=self._copies[key], first=0)

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
        columns = self.whole(columns)
        source = columns.geometry
        pixels = relayout.pixels_from_columns(geometry, source, columns.channels, y, x)
        if shift is not None:
            first = shift[geometry.nearest_pixel] * source.vectors * source.lanes
            pixels = pixels + np.tile(first, (len(pixels) // geometry.panels, 1, 1))
        count = channels or columns.channels
        packed = pack_move(pixels, source, geometry, columns.channels, count, self.context.isa)
        out = self.kernel(packed.kernel, [columns.value, *packed.arrays], geometry.shape(count))
        return Columns(out, geometry, count, shape, columns.tokens)

    def with_geometry(self, columns: Columns, geometry: Geometry) -> Columns:
        """Relayout a tensor to another geometry of the same images, once for all readers (no-op where it is there)."""
        columns = self.whole(columns)
        if columns.geometry == geometry:
            return columns
        key = (columns.value, geometry)
        if key not in self._moved:
            self._moved[key] = self._relayout(columns, geometry).value
        return replace(columns, value=self._moved[key], geometry=geometry)

    def _relayout(self, columns: Columns, geometry: Geometry) -> Columns:
        source = columns.geometry
        if (source.batch, source.pixels) != (geometry.batch, geometry.pixels):
            # Tokens cut into sequences in another way: through the plain tensor.
            plain = self.plain(replace(columns, shape=(geometry.batch * geometry.pixels, columns.channels)))
            shape = (geometry.batch, geometry.height, geometry.width, columns.channels)
            value = self.emit(relax.op.reshape(plain, shape))
            row = geometry.width * columns.channels
            strides = Strides(row, columns.channels, 1)
            return self._gather(value, geometry, columns.channels, columns.shape, True, strides)
        pixel = np.arange(geometry.pixels).reshape(geometry.height, geometry.width)
        y, x = np.divmod(pixel, source.width)
        return self.move_pixels(columns, geometry, y, x, columns.shape)

    def plain(self, columns: Columns) -> relax.Var:
        """Bring columns back to the logical tensor."""
        columns = self.whole(columns)
        if columns.heads > 1:
            merged = replace(columns, heads=1, shape=(*columns.shape[:-2], columns.channels))
            return self.emit(relax.op.reshape(self.plain(merged), columns.shape))
        geometry = columns.geometry
        if not columns.tokens and len(columns.shape) != 4:
            whole = (geometry.batch, columns.channels, geometry.height, geometry.width)
            return self.emit(relax.op.reshape(self.plain(replace(columns, shape=whole)), columns.shape))
        height, width, channels = geometry.height, geometry.width, columns.channels
        if columns.tokens:
            strides = Strides(width * channels, channels, 1)
        else:
            strides = Strides(width, 1, height * width)
        packed = pack_from_columns(geometry, channels, strides, len(columns.shape), self.context.isa)
        return self.kernel(packed.kernel, [columns.value, *packed.arrays], columns.shape)


def token_geometry(shape: Sequence[int], lanes: int) -> Geometry:
    """Geometry of ``[..., C]``.

    Four axes are images with the channels last, three are sequences, two are one sequence. Sequences that do not fill
    a vector are joined.
    """
    if len(shape) >= 4:
        return choose_geometry(prod(shape[:-3]), shape[-3], shape[-2], lanes)
    if len(shape) == 3 and shape[1] < lanes:
        return choose_geometry(1, 1, shape[0] * shape[1], lanes, tokens=True)
    return choose_geometry(prod(shape[:-2]), 1, shape[-2], lanes, tokens=True)
