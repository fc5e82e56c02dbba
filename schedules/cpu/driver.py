"""The frame that all column kernels share: tasks, K-blocks, the window's buffer, tiles.

A task is one stripe of one set of images and one chunk of the output channels. For each K-block of the chunk it fills
the buffer with the windows of the block's channels (or reads the stored panel itself), then computes the rows of the
block for every tile of the stripe. Everything here is run-time data from the layer's table.

Stripes that are parts of one panel write lines of memory that lie side by side, in turn: two cores would take them from
each other all the time. So the parts of a panel follow each other in the order of tasks, which a thread takes in
blocks, and it is chunks that keep the cores busy where panels are few.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T

from tvm_sparse.layout.halo_operations import KINDS, QUARTERS

from .ir import Flat, TableReader, as_long, constant
from .isa import Isa
from .lanes import load_quarters, merge_lanes, take_lanes

# Fields of every column kernel's table, before those of its own.
DRIVER_FIELDS = (
    "tasks",
    "chunks",
    "stripes",
    "parts",  # stripes that share a panel
    "input_set",  # elements between sets of images, panels are within
    "input_channel",  # elements between channels
    "output_set",
    "output_panel",
    "output_channel",
    "channels_out",
    "tile_pointers",
    "tile_source",  # per tile: origin in the buffer, or in the set where nothing is built
    "tile_output",  # per tile: origin in the output's set
    "pitch",  # elements between columns of a tile in the buffer
    "buffer_channel",  # elements of the buffer for one channel
    "block_pointers",
    "block",
)
HALO_FIELDS = (
    "halo_pointers",
    "halo_lanes",
    "halo_channels",  # elements from a block's first channel to each
    *(f"halo_{kind}" for kind in KINDS),
)

# Emits what fills a task's buffer, given the buffer, the stripe, the set's first element, and the block's first
# channel and number of channels.
FillBuffer = Callable[[Flat, object, object, object, object], None]

# Elements of a task's private buffer: a K-block's windows. The packer keeps blocks below; those of a single panel below
# half of it: panels that share a buffer need more, but each reads a part of it.
SHARED_BUFFER_ELEMENTS = 65536
BUFFER_ELEMENTS = SHARED_BUFFER_ELEMENTS // 2


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
    tile: object  # number of the tile
    sums: Flat | None  # the task's buffer for sums


def emit_tasks(
    isa: Isa,
    table: TableReader,
    source: Flat,
    halo: bool,
    tile: tuple[int, int],
    rows: Callable[[Block], None],
    fill: float = 0.0,
    sums: int = 0,
    fill_buffer: FillBuffer | None = None,
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
    tile : tuple of int
        Rows and columns of the register tile.
    rows : callable
        Emits the work of one block on one tile.
    fill : float
        Value of pixels outside of the image.
    sums : int
        Elements of a buffer that keeps what `rows` stores there from block to block.
    fill_buffer : callable, optional
        Emits what fills the buffer; default: the windows of the input that the table gives.
    """
    lanes = isa.lanes
    with T.parallel(0, table.scalar("tasks")) as task:
        parts = T.bind(table.scalar("parts"))
        whole = T.bind(T.truncdiv(task, parts))
        chunk = T.bind(T.truncmod(whole, table.scalar("chunks")))
        place = T.bind(T.truncdiv(whole, table.scalar("chunks")) * parts + T.truncmod(task, parts))
        stripe = T.bind(T.truncmod(place, table.scalar("stripes")))
        images = T.bind(T.truncdiv(place, table.scalar("stripes")))
        input_base = T.bind(images * table.scalar("input_set"))
        output_base = T.bind(images * table.scalar("output_set"))
        first_block = T.bind(table.at("block_pointers", chunk))
        blocks = T.bind(table.at("block_pointers", chunk + 1) - first_block)
        first_tile = T.bind(table.at("tile_pointers", stripe))
        tiles = T.bind(table.at("tile_pointers", stripe + 1) - first_tile)
        if halo:
            window = Flat(T.alloc_buffer((SHARED_BUFFER_ELEMENTS,), "float32", scope="global"), lanes)
        kept = Flat(T.alloc_buffer((sums,), "float32", scope="global"), lanes) if sums else None
        with T.serial(0, blocks) as step:
            index = T.bind(first_block + step)
            channel = T.bind(table.at("block", index * 4))
            origin = T.bind(input_base + channel * table.scalar("input_channel"))
            if halo:
                channels = T.bind(table.at("block", index * 4 + 1))
                if fill_buffer is None:
                    _emit_window(isa, table, source, window, tile, stripe, origin, channels, fill)
                else:
                    fill_buffer(window, stripe, input_base, channel, channels)
            with T.serial(0, tiles) as number:
                start = T.bind(table.at("tile_source", first_tile + number))
                rows(
                    Block(
                        index=index,
                        first=T.bind(table.at("block", index * 4 + 2)),
                        last=T.bind(table.at("block", index * 4 + 3)),
                        source=window if halo else source,
                        base=start if halo else T.bind(origin + start),
                        output=T.bind(output_base + table.at("tile_output", first_tile + number)),
                        pitch=T.bind(table.scalar("pitch")),
                        tile=T.bind(first_tile + number),
                        sums=kept,
                    )
                )


def _emit_window(
    isa: Isa,
    table: TableReader,
    source: Flat,
    window: Flat,
    tile: tuple[int, int],
    stripe,
    origin,
    channels,
    fill: float,
) -> None:
    """Fill the buffer with the windows of a block: operations outside, channels inside."""
    lanes = isa.lanes
    stride_out = T.bind(as_long(table.scalar("buffer_channel")))
    outside = constant(fill, lanes)

    def operations(kind: str, apply: Callable) -> None:
        """Loops over the operations of a kind and the channels; `apply` gets the entries and both origins."""
        pointer = list(KINDS).index(kind) * (table.scalar("stripes") + 1) + stripe
        begin = T.bind(table.at("halo_pointers", pointer))
        count = T.bind(table.at("halo_pointers", pointer + 1) - begin)
        width = KINDS[kind]
        with T.serial(0, count) as operation:
            at = (begin + operation) * width
            entries = [T.bind(as_long(table.at(f"halo_{kind}", at + i))) for i in range(width)]
            prepared = {i: T.bind(table.vector("halo_lanes", entries[i] * lanes)) for i in _INDICES[kind]}
            with T.serial(0, as_long(channels)) as c:
                # From the table: computed, LLVM keeps a pointer for each address of the loop and runs out of registers.
                read = T.bind(as_long(origin) + as_long(table.at("halo_channels", c)))
                write = T.bind(c * stride_out)
                apply(entries, prepared, read, write)

    def copy(entries, _indices, read, write) -> None:
        target, first, count, step = entries
        with T.serial(0, count) as i:
            window.store_vector(write + target + i * lanes, source.load_vector(read + first + i * step))

    def run(length: int, down: bool) -> Callable:
        def apply(entries, indices, read, write) -> None:
            target, first, *steps = entries
            jump, step = (lanes, steps[0]) if down else steps[:2]
            to, start = T.bind(write + target), T.bind(read + first)
            for i in range(length):
                value = source.load_vector(start + step * i)
                for index in indices.values():
                    value = merge_lanes(isa, outside, index, value)
                window.store_vector(to + jump * i, value)

        return apply

    def merge(entries, indices, read, write, old=outside) -> None:
        value = old
        for position, index in indices.items():
            value = merge_lanes(isa, value, index, source.load_vector(read + entries[position - 1]))
        window.store_vector(write + entries[0], value)

    def more(entries, indices, read, write) -> None:
        merge(entries, indices, read, write, window.load_vector(write + entries[0]))

    def quarters(entries, indices, read, write) -> None:
        value = load_quarters(source, [read + start for start in entries[1:-1]], lanes)
        window.store_vector(write + entries[0], take_lanes(outside, indices[1 + QUARTERS], value, lanes))

    operations("copy", copy)
    for length, down in ((tile[0], True), (tile[1], False)):
        if length > 1:
            for kind in ("copy", "one"):
                operations(f"{kind}_{'down' if down else 'across'}", run(length, down))
    operations("one", merge)
    operations("two", merge)
    operations("more", more)
    operations("quarters", quarters)


# Entries that are lane indices.
_INDICES = {
    **dict.fromkeys(("copy", "copy_down", "copy_across"), ()),
    "one_down": (3,),
    "one_across": (4,),
    "one": (2,),
    "two": (2, 4),
    "more": (2,),
    "quarters": (1 + QUARTERS,),
}
