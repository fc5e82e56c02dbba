"""Dense convolutions that fast algorithms compute with fewer multiplications."""

from __future__ import annotations

from dataclasses import replace
from itertools import product as pairs_of

import numpy as np

from tvm_sparse.layout.geometry import Geometry
from tvm_sparse.layout.image_window import Strides
from tvm_sparse.schedules.cpu import winograd_columns
from tvm_sparse.schedules.cpu.driver import BUFFER_ELEMENTS
from tvm_sparse.schedules.cpu.epilogue import epilogue_array
from tvm_sparse.schedules.cpu.isa import Isa
from tvm_sparse.schedules.cpu.winograd_columns import WinogradKernel, register_tile
from tvm_sparse.sparsity.formats.toom_cook import can_compute
from tvm_sparse.sparsity.formats.winograd import WinogradColumns

from .layer import Convolution, PackedLayer
from .layer_tables import LayerTables
from .pack_columns import DENSE_PRODUCT_CYCLES, count_chunks, even_block
from .pack_rows import MEMORY_BYTES
from .places import Places

# Most outputs that are computed together along an axis: more need larger numbers, whose rounding errors grow.
_MOST_OUTPUTS = 4
# Measured: products over what the units could do, loads a cycle; cycles of each vector of sums and of outputs when sums
# are stored and combined, of each vector of combined inputs.
_PRODUCT_LOSS, _LOADS, _SUM_CYCLES, _OUTPUT_CYCLES, _INPUT_CYCLES = 1.1, 1.7, 2.8, 3.5, 3.0


def winograd_kernel(layer: Convolution, target: Geometry, isa: Isa) -> WinogradKernel | None:
    """The fastest kernel of the family for a layer; None where there is none.

    Parameters
    ----------
    layer : Convolution
        The layer.
    target : Geometry
        Geometry of its output.
    isa : Isa
        Instruction set.
    """
    window, rows = layer.window, layer.weight.shape[0]
    shares = layer.groups == 1 and rows > 0 and window.dilation == (1, 1) and max(window.kernel) > 1
    # Infinite weights would spread as NaN.
    if not shares or not np.isfinite(layer.weight).all():
        return None
    choices = [
        [m for m in range(1, min(_MOST_OUTPUTS, extent) + 1) if can_compute(m, taps, stride)]
        for extent, taps, stride in zip(target.tile, window.kernel, window.stride, strict=True)
    ]
    pairs = [outputs for outputs in pairs_of(*choices) if outputs != (1, 1)]
    kernels = [_even_strips(kernel_of(layer, target.tile, outputs, 1), rows, isa) for outputs in pairs]
    return min((k for k in kernels if _fits(k, isa)), key=lambda k: winograd_cycles(layer, k, isa), default=None)


def kernel_of(layer: Convolution, tile: tuple[int, int], outputs: tuple[int, int], strip: int) -> WinogradKernel:
    """The kernel of a layer for some outputs that are computed together, and rows of a strip."""
    return WinogradKernel(
        tile, True, layer.activation.epilogue, layer.residual,
        kernel=layer.window.kernel, stride=layer.window.stride, outputs=outputs, strip=strip,
    )  # fmt: skip


def _even_strips(kernel: WinogradKernel, rows: int, isa: Isa) -> WinogradKernel:
    """The kernel with strips that fill registers, and are about equal."""
    most = register_tile(isa, kernel.vectors)[0]
    return replace(kernel, strip=-(-rows // -(-rows // most)))


def _fits(kernel: WinogradKernel, isa: Isa) -> bool:
    """Whether the buffers hold a channel, and the sums of a strip."""
    (height, width), (down, across) = kernel.window, kernel.axes
    elements = kernel.vectors * isa.lanes
    return (
        # Rows of strided windows are stored by phase, all phases with as many rows as the first: at most twice as many.
        2 * height * width * isa.lanes <= BUFFER_ELEMENTS
        and down.products * across.products * elements <= winograd_columns.COMBINED_ELEMENTS
        and kernel.strip * kernel.points * elements <= winograd_columns.SUMS_ELEMENTS
        and len(kernel.squares[0]) * down.products * width * isa.lanes <= winograd_columns.CHANNEL_ELEMENTS
    )


def winograd_cycles(layer: Convolution, kernel: WinogradKernel, isa: Isa) -> float:
    """Estimated cycles of a kernel for each panel, without building windows."""
    rows, channels = layer.weight.shape[:2]
    (down, across), squares = kernel.axes, kernel.vectors
    products = down.products * across.products
    padded = -(-rows // kernel.strip) * kernel.strip
    # Two multiply-adds a cycle, or less than two loads: of the vectors, of a weight for each row, of memory.
    width = register_tile(isa, squares)[1]
    loads = (kernel.strip + width) / kernel.strip / width * squares / _LOADS
    multiply = padded * channels * products * max(squares / 2 * _PRODUCT_LOSS, loads, 4 / MEMORY_BYTES)
    blocks = -(-channels * products * squares * isa.lanes // winograd_columns.COMBINED_ELEMENTS)
    finish = rows * (_SUM_CYCLES * kernel.points * squares + _OUTPUT_CYCLES * kernel.tile[0] * kernel.tile[1])
    combined = products * squares + len(kernel.squares[0]) * down.products * kernel.window[1]
    return multiply + blocks * finish + channels * _INPUT_CYCLES * combined


def pack_winograd(
    layer: Convolution, source: Geometry, target: Geometry, isa: Isa, kernel: WinogradKernel,
    image: Strides | None = None,
) -> PackedLayer:  # fmt: skip
    """Pack a layer for a kernel of the family.

    Parameters
    ----------
    layer : Convolution
        The layer.
    source, target : Geometry
        Geometry of its input and output.
    isa : Isa
        Instruction set.
    kernel : WinogradKernel
        The kernel, as of `winograd_kernel`.
    image : Strides, optional
        Strides of plain images that the kernel reads instead of columns.
    """
    kernel = replace(kernel, image=image is not None)
    channels = layer.weight.shape[1]
    places = Places.plan(layer, source, target, None, isa, image=image)
    assert places.tile == kernel.tile, "windows that fit the buffer are those of whole panels"
    down, across = kernel.axes
    per_channel = down.products * across.products * kernel.vectors * isa.lanes
    limit = min(places.channel_limit, winograd_columns.COMBINED_ELEMENTS // per_channel)
    block = even_block(channels, limit, limit)
    chunks = count_chunks(layer, source, target, places, block, isa, layer.weight.size * DENSE_PRODUCT_CYCLES)
    fmt = WinogradColumns(down, across, block, kernel.strip, chunks)
    packed = fmt.pack(layer.weight)
    number = np.zeros((down.products, across.products), np.int64)
    number[tuple(np.transpose(fmt.order))] = np.arange(len(fmt.order))
    row_places, column_places = _window_places(places, layer, isa.lanes)
    values = {
        "part": packed["part"],
        "points": fmt.points,
        "product": number,
        "row_places": row_places,
        "column_places": column_places,
    }
    fields = (*winograd_columns.FIELDS, *kernel.window_fields)
    tables = LayerTables(layer, source, target, None, isa, fields, packed, values, image=image)
    numbers = epilogue_array(layer.bias, layer.activation, layer.slopes)
    arrays = (packed["values"], packed["offsets"], numbers, tables.whole(places))
    return PackedLayer(kernel, arrays, tables.stripes(places))


def _window_places(places: Places, layer: Convolution, lanes: int) -> list[np.ndarray]:
    """Elements from a tile's origin to the rows, and to the columns, of its window: taps of the tile's outputs."""
    out = []
    down, across = places.taps[:, 0], places.taps[0] - places.taps[0, 0]
    for axis, (step, taps) in enumerate(((lanes, down), (places.pitch, across))):
        output, tap = np.meshgrid(np.arange(places.tile[axis]), np.arange(len(taps)), indexing="ij")
        found = np.zeros((places.tile[axis] - 1) * layer.window.stride[axis] + len(taps), np.int64)
        found[output * layer.window.stride[axis] + tap] = taps[tap] + output * step
        out.append(found)
    return out
