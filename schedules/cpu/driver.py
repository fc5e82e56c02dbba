"""The frame that all column kernels share: tasks, K-blocks, the window's buffer, tiles.

A task is one stripe of one image and one chunk of the output channels. For each K-block of the chunk it fills the
buffer with the windows of the block's channels (or reads the stored panel itself), then computes the rows of the
block for every tile of the stripe. Everything here is run-time data from the layer's table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T

from .ir import Flat, TableReader, as_long, constant
from .isa import Isa
from .lanes import merge_lanes

# Fields of every column kernel's table, before those of its own.
DRIVER_FIELDS = (
    "tasks",
    "chunks",
    "stripes",
    "input_image",  # elements between images, panels are within
    "input_channel",  # elements between channels
    "output_image",
    "output_panel",
    "output_channel",
    "channels_out",
    "tile_pointers",
    "tile_source",  # per tile: origin in the buffer, or in the image where nothing is built
    "tile_output",  # per tile: origin in the output image
    "pitch",  # elements between columns of a tile in the buffer
    "buffer_channel",  # elements of the buffer for one channel
    "block_pointers",
    "block",
)
HALO_FIELDS = ("halo_pointers", "halo_copy", "halo_one", "halo_two", "halo_more", "halo_lanes")

# Elements of a task's private buffer: a K-block's windows. The packer keeps blocks below.
BUFFER_ELEMENTS = 16384


@dataclass
class Block:
    """What the rows of a K-block need to know, as expressions."""

    index: object  # number of the block
    first: object  # 1 where sums start from the bias
    last: object  # 1 where sums are finished
    source: Flat  # the buffer, or the input
    base: object  # origin of the tile and block in `source`
    output: object  # origin of the tile in the output
    pitch: object  # elements between columns of the tile in `source`


def emit_tasks(
    isa: Isa,
    table: TableReader,
    source: Flat,
    halo: bool,
    rows: Callable[[Block], None],
    fill: float = 0.0,
) -> None:
    """Emit the loops over tasks, blocks and tiles.

    Parameters
    ----------
    isa : Isa
        Instruction set.
    table : TableReader
        The layer's table, with `DRIVER_FIELDS` (and `HALO_FIELDS`).
    source : Flat
        The input in columns.
    halo : bool
        Whether windows are built in a buffer; otherwise the input's panels are read in place.
    rows : callable
        Emits the work of one block on one tile.
    fill : float
        Value of pixels outside of the image.
    """
    lanes = isa.lanes
    with T.parallel(0, table.scalar("tasks")) as task:
        chunk = T.bind(T.truncmod(task, table.scalar("chunks")))
        place = T.bind(T.truncdiv(task, table.scalar("chunks")))
        stripe = T.bind(T.truncmod(place, table.scalar("stripes")))
        image = T.bind(T.truncdiv(place, table.scalar("stripes")))
        input_base = T.bind(image * table.scalar("input_image"))
        output_base = T.bind(image * table.scalar("output_image"))
        first_block = T.bind(table.at("block_pointers", chunk))
        blocks = T.bind(table.at("block_pointers", chunk + 1) - first_block)
        first_tile = T.bind(table.at("tile_pointers", stripe))
        tiles = T.bind(table.at("tile_pointers", stripe + 1) - first_tile)
        if halo:
            window = Flat(T.alloc_buffer((BUFFER_ELEMENTS,), "float32", scope="global"), lanes)
        with T.serial(0, blocks) as step:
            index = T.bind(first_block + step)
            channel = T.bind(table.at("block", index * 4))
            origin = T.bind(input_base + channel * table.scalar("input_channel"))
            if halo:
                channels = T.bind(table.at("block", index * 4 + 1))
                _emit_window(isa, table, source, window, stripe, origin, channels, fill)
            with T.serial(0, tiles) as tile:
                start = T.bind(table.at("tile_source", first_tile + tile))
                rows(
                    Block(
                        index=index,
                        first=T.bind(table.at("block", index * 4 + 2)),
                        last=T.bind(table.at("block", index * 4 + 3)),
                        source=window if halo else source,
                        base=start if halo else T.bind(origin + start),
                        output=T.bind(output_base + table.at("tile_output", first_tile + tile)),
                        pitch=T.bind(table.scalar("pitch")),
                    )
                )


def _emit_window(
    isa: Isa, table: TableReader, source: Flat, window: Flat, stripe, origin, channels, fill: float
) -> None:
    """Fill the buffer with the windows of a block: operations outside, channels inside."""
    lanes = isa.lanes
    stride_in = T.bind(table.scalar("input_channel"))
    stride_out = T.bind(table.scalar("buffer_channel"))

    def operations(kind: int, name: str, width: int, apply: Callable) -> None:
        pointer = kind * (table.scalar("stripes") + 1) + stripe
        begin = T.bind(table.at("halo_pointers", pointer))
        count = T.bind(table.at("halo_pointers", pointer + 1) - begin)
        with T.serial(0, count) as operation:
            fields = [T.bind(table.at(name, (begin + operation) * width + i)) for i in range(width)]
            vectors = {
                i: T.bind(table.vector("halo_lanes", fields[i] * lanes)) for i in range(2, width, 2)
            }
            with T.serial(0, channels) as c:
                target = fields[0] + c * stride_out
                loads = {
                    i: source.load_vector(origin + fields[i] + c * stride_in) for i in range(1, width, 2)
                }
                window.store_vector(target, apply(window.load_vector(target), loads, vectors))

    begin = T.bind(table.at("halo_pointers", stripe))
    runs = T.bind(table.at("halo_pointers", stripe + 1) - begin)
    with T.serial(0, runs) as run:
        target, origin_in, count, step = (
            T.bind(as_long(table.at("halo_copy", (begin + run) * 4 + i))) for i in range(4)
        )
        with T.serial(0, as_long(channels)) as c:
            read = T.bind(as_long(origin) + origin_in + c * as_long(stride_in))
            write = T.bind(target + c * as_long(stride_out))
            with T.serial(0, count) as i:
                window.store_vector(write + i * lanes, source.load_vector(read + i * step))
    outside = constant(fill, lanes)
    operations(1, "halo_one", 3, lambda old, x, at: merge_lanes(isa, outside, at[2], x[1]))
    operations(
        2,
        "halo_two",
        5,
        lambda old, x, at: merge_lanes(isa, merge_lanes(isa, outside, at[2], x[1]), at[4], x[3]),
    )
    operations(3, "halo_more", 3, lambda old, x, at: merge_lanes(isa, old, at[2], x[1]))
