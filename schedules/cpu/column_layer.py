"""What the kernels of layers over columns have in common: how they are called, and named."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from tvm.tirx import PrimFunc

from .ir import Flat, build_function
from .isa import Isa


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
    """

    tile: tuple[int, int]
    halo: bool
    activation: str = "clip"
    residual: bool = False

    @property
    @abstractmethod
    def family(self) -> str:
        """Name of the format in the symbol."""

    @property
    def shared_argument(self) -> int | None:
        """Position of the argument that the output may overwrite: the residual is read before any sum is stored."""
        return 1 if self.residual else None

    def symbol(self, isa: Isa) -> str:
        """Name of the compiled function."""
        source = "window" if self.halo else "panel"
        shared = {None: "", 0: "_in_place", 1: "_residual"}[self.shared_argument]
        tile = f"{self.tile[0]}x{self.tile[1]}"
        return f"tvm_sparse_{self.family}_{source}_{tile}_{self.activation}{shared}_{isa.name}"

    def build(self, isa: Isa) -> PrimFunc:
        """Build the kernel: ``(x[, residual], values, offsets, numbers, table, y)``."""
        arguments = [("x", 4, "float32"), ("residual", 4, "float32")][: 2 if self.residual else 1]
        arguments += [
            ("values", 1, "float32"),
            ("offsets", 1, "uint16"),
            ("numbers", 1, "float32"),
            ("table", 1, "int32"),
            ("y", 4, "float32"),
        ]
        return build_function(self.symbol(isa), arguments, isa.lanes, lambda *flats: self._body(isa, *flats))

    @abstractmethod
    def _body(self, isa: Isa, source: Flat, *rest: Flat) -> None:
        """Emit the body."""
