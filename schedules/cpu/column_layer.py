"""What the kernels of layers over columns have in common: how they are called, and named."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from tvm.script.ir_builder import tirx as T
from tvm.tirx import PrimFunc

from .depthwise_tile import DepthwiseTile
from .driver import FillBuffer
from .image_window import IMAGE_FIELDS, emit_image_window
from .ir import Flat, TableReader, as_long, build_function
from .isa import Isa
from .window_tile import WINDOW_FIELDS, PanelWindow, Result


@dataclass(frozen=True)
class ColumnLayer(ABC):
    """A convolution or linear layer over columns, weights packed in one format.

    Parameters
    ----------
    tile : tuple of int
        Rows and columns ``(R, V)`` of the register tile.
    halo : bool
        Whether windows are built in a buffer; otherwise panels are read in place (1x1, linear).
    activation : str
        What the epilogue applies, one of :data:`.epilogue.KINDS`, ``"none"`` or ``"relu"``.
    residual : bool
        Whether a second tensor, in the output's geometry, is added before the activation.
    depthwise : DepthwiseTile, optional
        Depth-wise convolution before a 1x1: each task fills the buffer with what it makes of a panel.
    image : bool
        Whether the windows are filled from plain images, of any alignment.
    streamed : bool
        Whether weights come from memory, and are fetched ahead.
    """

    tile: tuple[int, int]
    halo: bool
    activation: str = "clip"
    residual: bool = False
    depthwise: DepthwiseTile | None = field(default=None, kw_only=True)
    image: bool = field(default=False, kw_only=True)
    streamed: bool = field(default=True, kw_only=True)

    @property
    @abstractmethod
    def family(self) -> str:
        """Name of the format in the symbol."""

    @property
    def shared_argument(self) -> int | None:
        """Position of the argument that the output may overwrite: the residual is read before any sum is stored."""
        return 1 if self.residual else None

    @property
    def view_arguments(self) -> tuple[int, ...]:
        """Positions of arguments that may begin inside of a larger tensor."""
        return (0,) if self.image else ()

    @property
    def unaligned_arguments(self) -> tuple[int, ...]:
        """Positions of arguments whose memory may begin at any element."""
        return (0,) if self.image else ()

    def symbol(self, isa: Isa) -> str:
        """Name of the compiled function."""
        source = "image" if self.image else "window" if self.halo else "panel"
        if self.depthwise is not None:
            source = f"depthwise_{self.depthwise.name}"
        shared = {None: "", 0: "_in_place", 1: "_residual"}[self.shared_argument]
        return f"tvm_sparse_{self.family}_{source}_{self.tile_name}_{self.activation}{shared}_{isa.name}"

    @property
    def tile_name(self) -> str:
        """The tile in the symbol."""
        return f"{self.tile[0]}x{self.tile[1]}" + ("" if self.streamed else "_cached")

    def build(self, isa: Isa) -> PrimFunc:
        """Build the kernel: ``(x[, residual][, weights, numbers], values, offsets, numbers, table, y)``.

        The weights and numbers in the middle are those of the depth-wise convolution.
        """
        arguments = [("x", 4, "float32"), ("residual", 4, "float32")][: 2 if self.residual else 1]
        if self.depthwise is not None:
            arguments += [("depthwise_values", 1, "float32"), ("depthwise_numbers", 1, "float32")]
        arguments += [
            ("values", 1, "float32"),
            ("offsets", 1, "uint16"),
            ("numbers", 1, "float32"),
            ("table", 1, "int32"),
            ("y", 4, "float32"),
        ]
        loose = ("x",) if self.image else ()
        return build_function(
            self.symbol(isa), arguments, isa.lanes, lambda *flats: self._body(isa, *flats), views=loose, unaligned=loose
        )

    @property
    def window_fields(self) -> tuple[str, ...]:
        """Fields of the table beside those of the family: where windows of a depth-wise convolution or an image are."""
        if self.depthwise is not None:
            return WINDOW_FIELDS
        return IMAGE_FIELDS if self.image else ()

    def _fill_buffer(
        self, isa: Isa, table: TableReader, source: Flat, rest: tuple[Flat, ...]
    ) -> FillBuffer | None:
        """What fills the buffer with the depth-wise convolution, or with windows of an image, where there is one."""
        depthwise, lanes = self.depthwise, isa.lanes
        if self.image:
            return lambda buffer, *where: emit_image_window(isa, table, source, buffer, *where)
        if depthwise is None:
            return None
        values, numbers = rest[-7:-5]

        def emit(buffer: Flat, stripe, image, first, count) -> None:
            def channel(window: PanelWindow, number) -> None:
                target = T.bind(as_long(number * (depthwise.vectors * lanes)))
                index = T.bind(first + number)
                depthwise.channel(isa, table, source, values, numbers, window, index, Result(buffer, target))

            window = depthwise.window_of(table, as_long(image), stripe)
            depthwise.each_channel(table, stripe, window, count, channel)

        return emit

    @abstractmethod
    def _body(self, isa: Isa, source: Flat, *rest: Flat) -> None:
        """Emit the body."""
