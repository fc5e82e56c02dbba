"""Tables of the column kernels: of a whole layer, and of some of its stripes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tvm_sparse.layout.geometry import Geometry
from tvm_sparse.layout.image_window import Strides
from tvm_sparse.layout.table import pack_table
from tvm_sparse.schedules.cpu.isa import Isa

from .layer import Convolution
from .places import Places
from .stationary_depthwise import StationaryDepthwise
from .stripes import Part, Stripes


@dataclass(frozen=True)
class LayerTables:
    """What the tables of a layer are made of.

    Parameters
    ----------
    layer : Convolution
        The layer.
    source, target : Geometry
        Geometry of its input and output.
    part_limit : int or None
        As of :meth:`.places.Places.plan`.
    isa : Isa
        Instruction set.
    fields : sequence of str
        Fields of the kernel's table.
    packed : mapping
        ``block`` and ``block_pointers`` of the packed weight.
    values : mapping
        The fields beside those of the driver.
    depthwise : StationaryDepthwise, optional
        Depth-wise convolution that the kernel computes first; the layer then reads its output, and the geometry of the
        input is that of the depth-wise convolution's.
    image : Strides, optional
        Strides of the plain images that the layer reads; the geometry of the input gives their size then.
    """

    layer: Convolution
    source: Geometry
    target: Geometry
    part_limit: int | None
    isa: Isa
    fields: Sequence[str]
    packed: Mapping[str, np.ndarray]
    values: Mapping[str, int | np.ndarray]
    depthwise: StationaryDepthwise | None = None
    image: Strides | None = None

    def whole(self, places: Places) -> np.ndarray:
        """Table of the whole layer."""
        return self._table(places, None, self.depthwise and self.depthwise.all_panels)

    def stripes(self, places: Places) -> Stripes | None:
        """How to run the layer in parts; None for a batch of images, whose panels are not those of one.

        None, too, where rows of panels share windows.
        """
        if self.source.batch > 1 or places.shared:
            return None
        panels = np.split(places.tile_panel, places.tile_pointers[1:-1])
        window = (self.depthwise or self).layer.window
        plain = self.image is not None
        return Stripes(self.source, self.target, tuple(panels), window, self._part, plain=plain)

    def _part(self, part: Part) -> np.ndarray:
        if self.depthwise is not None:
            places = Places.of_buffer(self.target)
        else:
            slots = tuple(part.source.tolist())
            places = Places.plan(self.layer, self.source, self.target, self.part_limit, self.isa, slots, self.image)
        return self._table(places.part(part.stripes), part.target, part)

    def _table(self, places: Places, slots: np.ndarray | None, part: Part | None) -> np.ndarray:
        block, pointers = self.packed["block"], self.packed["block_pointers"]
        driver = places.table(self.layer, self.source, self.target, block, pointers, slots)
        windows = {} if self.depthwise is None or part is None else self.depthwise.fields(part)
        return pack_table(self.fields, {**driver, **self.values, **windows})
