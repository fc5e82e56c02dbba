"""Windows filled from a plain image, driven by :mod:`tvm_sparse.layout.image_window`."""

from __future__ import annotations

from tvm.script.ir_builder import tirx as T

from tvm_sparse.layout.image_window import IMAGE_KINDS, RUN, RUN_KINDS
from tvm_sparse.layout.transpose import QUAD

from .ir import Flat, TableReader, as_long
from .isa import Isa
from .lanes import mask_lanes
from .quads import load_quads

# Fields of the tables of kernels that read plain images.
IMAGE_FIELDS = (
    *(f"image_{kind}" for kind in (*IMAGE_KINDS, *RUN_KINDS)),
    "image_pointers",
    "image_lanes",
    "image_masks",
    "image_step",  # elements between channels that the operations are repeated for; 0: they fill all channels
)


def emit_image_window(
    isa: Isa, table: TableReader, source: Flat, window: Flat, stripe, image, channel, channels
) -> None:
    """Emit what fills the windows of a stripe.

    Parameters
    ----------
    isa : Isa
        Instruction set.
    table : TableReader
        Table with `IMAGE_FIELDS`, ``stripes`` and ``buffer_channel``.
    source, window : Flat
        The plain images, and the buffer.
    stripe, image, channel, channels : expression
        The stripe, the image's first element, the first channel and how many.
    """
    lanes = isa.lanes
    step_in, step_out = (T.bind(as_long(table.scalar(name))) for name in ("image_step", "buffer_channel"))
    first = T.bind(as_long(image) + as_long(channel) * step_in)
    repeats = T.bind(as_long(T.Select(step_in > 0, channels, 1)))

    def masks(entry) -> list:
        return [T.bind(table.vector("image_masks", entry + i * lanes)) for i in range(QUAD)]

    def operations(row: int) -> tuple:
        """Emit the stripe's first operation, and how many, by row of the pointers."""
        pointer = row * (table.scalar("stripes") + 1) + stripe
        begin = T.bind(table.at("image_pointers", pointer))
        return begin, T.bind(table.at("image_pointers", pointer + 1) - begin)

    def entries(kind: str, number, width: int) -> list:
        at = T.bind(number * width)
        return [T.bind(table.at(f"image_{kind}", at + i)) for i in range(width)]

    for row, (run_kind, kind) in enumerate(zip(RUN_KINDS, IMAGE_KINDS, strict=False)):
        begin, count = operations(row)
        with T.serial(0, count) as number:
            distances, quad, quads = entries(run_kind, begin + number, RUN)
            # The same for all quads of the run: they stay in registers, or beside them.
            lane_starts = [T.bind(first + as_long(table.at("image_lanes", distances + i))) for i in range(lanes)]
            with T.serial(0, repeats) as c:
                shift, target = T.bind(c * step_in), T.bind(c * step_out)
                with T.serial(0, quads) as i:
                    numbers = entries(kind, quad + i, IMAGE_KINDS[kind])
                    at = T.bind(as_long(numbers[QUAD]) + shift)
                    vectors = load_quads(source, [lane + at for lane in lane_starts], lanes)
                    if kind == "masked_quads":
                        kept = masks(numbers[-1])
                        vectors = [mask_lanes(mask, v, lanes) for v, mask in zip(vectors, kept, strict=True)]
                    for place, vector in zip(numbers[:QUAD], vectors, strict=True):
                        window.store_vector(target + as_long(place), vector)
    begin, count = operations(len(RUN_KINDS))
    with T.serial(0, count) as number:
        place, element, distances, mask = entries("singles", begin + number, IMAGE_KINDS["singles"])
        kept, *_ = masks(mask)
        elements = T.bind(table.vector("image_lanes", distances))
        with T.serial(0, repeats) as c:
            origin = T.bind(T.Cast("int32", first + as_long(element) + c * step_in))
            vector = source.buffer[elements + T.Broadcast(origin, lanes)]
            window.store_vector(as_long(place) + c * step_out, mask_lanes(kept, vector, lanes))
