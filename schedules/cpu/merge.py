"""Runs the programs of :mod:`tvm_sparse.layout.merge`: pixels of columns gathered by merging vectors."""

from __future__ import annotations

from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T

from .ir import Flat, TableReader, as_long
from .isa import Isa
from .lanes import can_merge, merge_lanes, merge_two, permute_lanes

MERGE_FIELDS = ("stripes", "operations", "pointers", "lanes", "spacing", "channel_offsets")


@dataclass
class Place:
    """Where the vectors of some channels are: an array, the first channel's origin, elements between channels."""

    array: Flat
    origin: object
    step: object


def emit_merges(isa: Isa, table: TableReader, stripe, source: Place, target: Place, channels) -> None:
    """Emit the loops that make the vectors of a stripe: operations outside, channels inside.

    So the lane indices of an operation stay in registers.

    Parameters
    ----------
    isa : Isa
        Instruction set.
    table : TableReader
        Table with `MERGE_FIELDS`.
    stripe, channels : expression
        Stripe, and number of channels.
    source, target : Place
        What is read and written.
    """
    stripes = T.bind(table.scalar("stripes"))

    def operations(kind: int, width: int, emit) -> None:
        pointer = kind * (stripes + 1) + stripe
        begin = T.bind(table.at("pointers", pointer))
        count = T.bind(T.truncdiv(table.at("pointers", pointer + 1) - begin, width))
        with T.serial(0, count) as operation:
            emit([T.bind(table.at("operations", begin + operation * width + i)) for i in range(width)])

    def lanes_at(number):
        return T.bind(table.vector("lanes", number * isa.lanes))

    def places(channel):
        """Element of a channel in the source and in the target."""
        read = as_long(source.origin) + as_long(table.at("channel_offsets", channel))
        return T.bind(read), as_long(target.origin) + channel * as_long(target.step)

    def copy(fields) -> None:
        destination, first, count, step = (as_long(field) for field in fields)
        spacing = T.bind(as_long(table.scalar("spacing")))
        with T.serial(0, as_long(channels)) as c:
            read = T.bind(as_long(source.origin) + first + c * as_long(source.step))
            at = T.bind(as_long(target.origin) + destination + c * as_long(target.step))
            with T.serial(0, count) as i:
                target.array.store_vector(at + i * spacing, source.array.load_vector(read + i * step))

    def merge(fields, sources: int) -> None:
        indices = [lanes_at(number) for number in fields[1 + sources :]]
        destination, *firsts = (T.bind(as_long(field)) for field in fields[: 1 + sources])
        with T.serial(0, as_long(channels)) as c:
            read, write = places(c)
            vectors = [source.array.load_vector(read + first) for first in firsts]
            if sources == 1:
                value = permute_lanes(isa, indices[0], vectors[0])
            else:
                value = merge_two(isa, vectors[0], indices[0], vectors[1])
            for index, vector in zip(indices[1:], vectors[2:], strict=True):
                value = merge_lanes(isa, value, index, vector)
            target.array.store_vector(write + destination, value)

    def gather(fields) -> None:
        elements = lanes_at(fields[1])
        with T.serial(0, as_long(channels)) as c:
            read, write = places(c)
            offset = T.Broadcast(T.Cast("int32", read), isa.lanes)
            target.array.store_vector(write + fields[0], source.array.buffer[elements + offset])

    operations(0, 4, copy)
    if not can_merge(isa):
        operations(isa.lanes + 1, 2, gather)
        return
    for sources in range(1, isa.lanes + 1):
        operations(sources, 1 + sources + max(1, sources - 1), lambda fields, n=sources: merge(fields, n))
