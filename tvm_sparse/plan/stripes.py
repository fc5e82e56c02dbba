"""A layer in parts: the panels that each stripe reads and writes, and the table of some stripes alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tvm_sparse.layout.geometry import Geometry
from tvm_sparse.layout.halo import Window


@dataclass(frozen=True)
class Part:
    """Stripes that one call computes, and where it finds its tensors' panels.

    Parameters
    ----------
    stripes : numpy.ndarray
        ``[n]``: numbers of the stripes.
    source, target : numpy.ndarray
        int64 ``[panels]``: where each panel of the input and of the output is stored, counted in panels.
    """

    stripes: np.ndarray
    source: np.ndarray
    target: np.ndarray


@dataclass(frozen=True)
class Stripes:
    """How a kernel on one image runs in parts.

    Parameters
    ----------
    source, target : Geometry
        Geometry of the input and the output.
    panels : tuple of numpy.ndarray
        Per stripe: panels of the output that it writes, ``[n]``.
    window : Window
        What a pixel of the output reads.
    table : callable
        Makes the table of a part. Its stripes are numbered anew; nothing else of the layer changes.
    lane_macs : int
        Multiply-adds that the whole kernel executes, in all lanes of its vectors.
    plain : bool
        Whether the input is a plain image, stored as a whole; `source` would be its geometry in columns.
    """

    source: Geometry
    target: Geometry
    panels: tuple[np.ndarray, ...]
    window: Window
    table: Callable[[Part], np.ndarray]
    lane_macs: int = 0
    plain: bool = False

    @cached_property
    def reads(self) -> tuple[frozenset[int], ...]:
        """Rows of the source's panels that are read, by row of the target's panels.

        Rows are read as a whole: what happens across is the same for all of them.
        """
        return tuple(self._rows_read(row) for row in range(self.target.panels_down))

    def _rows_read(self, row: int) -> frozenset[int]:
        (height, _), (stride, _), (dilation, _) = self.target.tile, self.window.stride, self.window.dilation
        origin = np.unique(self.target.lane_origin[0])
        y = (origin[origin >= 0][:, None] + row * height + np.arange(height)).reshape(-1)
        y = y[y < self.target.height] * stride - self.window.padding[0]
        at = (y[:, None] + np.arange(self.window.kernel[0]) * dilation).reshape(-1)
        at = at[(at >= 0) & (at < self.source.height)]
        return frozenset((at % self.source.sub_height // self.source.tile[0]).tolist())

    @cached_property
    def of_rows(self) -> dict[int, list[int]] | None:
        """Stripes by the row of panels that they write; None where a stripe writes to several rows."""
        rows: dict[int, list[int]] = {row: [] for row in range(self.target.panels_down)}
        for stripe, panels in enumerate(self.panels):
            written = set((panels // self.target.panels_across).tolist())
            if len(written) != 1:
                return None
            rows[written.pop()].append(stripe)
        return rows
