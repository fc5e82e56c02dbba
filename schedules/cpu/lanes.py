"""Moving lanes between vectors, per instruction set."""

from __future__ import annotations

from tvm.script.ir_builder import tirx as T

from .ir import Flat, intrinsic
from .isa import Isa


def merge_lanes(isa: Isa, kept, index, source):
    """Replace lanes of `kept` by lanes of `source`.

    Parameters
    ----------
    isa : Isa
        Instruction set.
    kept, source : expression
        float32 vectors.
    index : expression
        int32 vector. A lane with the sign bit takes the source's lane given by the bits below `isa.lanes`; a lane
        without it keeps the value of `kept`. Bit ``log2(lanes)`` is set where the sign bit is, so that the index
        also serves a two-source permute.

    Returns
    -------
    expression
        float32 vector.
    """
    if isa.name == "avx512":
        return intrinsic("llvm.x86.avx512.vpermi2var.ps.512", kept, index, source, dtype="float32x16")
    if isa.name == "avx2":
        moved = permute_lanes(isa, index, source)
        mask = T.reinterpret("float32x8", index)
        return intrinsic("llvm.x86.avx.blendv.ps.256", kept, moved, mask, dtype="float32x8")
    lanes = [T.Shuffle([index], [i]) for i in range(isa.lanes)]
    picked = [
        T.Select(
            lanes[i] < 0,
            _dynamic_lane(source, lanes[i] & (isa.lanes - 1), isa.lanes),
            T.Shuffle([kept], [i]),
        )
        for i in range(isa.lanes)
    ]
    return T.Shuffle(picked, list(range(isa.lanes)))


def take_lanes(kept, index, source, lanes: int):
    """Lanes of `source` where an index as of `merge_lanes` has its sign bit, else those of `kept`."""
    return T.Select(index < T.Broadcast(T.int32(0), lanes), source, kept)


def mask_lanes(mask, vector, lanes: int):
    """Lanes of a vector where a mask is -1, 0.0 where it is 0."""
    bits = T.bitwise_and(T.reinterpret(f"int32x{lanes}", vector), mask)
    return T.reinterpret(f"float32x{lanes}", bits)


def can_shift(isa: Isa) -> bool:
    """Whether lanes move best by reading beside a vector.

    A permute and a blend take turns with the multiply-adds. Vectors that fill a cache line are in two lines then.
    """
    return isa.name == "avx2"


def load_quarters(source: Flat, starts: list, lanes: int):
    """A vector whose quarters, each of neighbouring elements, are loaded from four places; starts are 64 bit."""
    size = lanes // len(starts)
    parts = [source.buffer[T.Ramp(start, T.int64(1), size) if size > 1 else start] for start in starts]
    return T.Shuffle(parts, list(range(lanes)))


def can_merge(isa: Isa) -> bool:
    """Whether vectors can be permuted by run-time indices; elsewhere lanes are best read one by one from memory."""
    return isa.name in ("avx2", "avx512")


def permute_lanes(isa: Isa, index, source):
    """Any lanes of a vector: lane ``index[i]`` becomes lane i. Only where `can_merge`."""
    name = "llvm.x86.avx512.permvar.sf.512" if isa.name == "avx512" else "llvm.x86.avx2.permps"
    return intrinsic(name, source, index, dtype=f"float32x{isa.lanes}")


def merge_two(isa: Isa, first, index, second):
    """Any lanes of two vectors: as `merge_lanes`, but lanes without the sign bit are permuted as well.

    Only where `can_merge`.
    """
    if isa.name == "avx512":
        return merge_lanes(isa, first, index, second)
    return merge_lanes(isa, permute_lanes(isa, index, first), index, second)


def spread_rows(isa: Isa, vectors: int) -> int:
    """Rows of so many vectors whose sums, four weights of each, and one weight in every lane fit the registers."""
    return (isa.registers - 1) // (vectors + 1)


def can_spread(isa: Isa, vectors: int, rows: int = 1) -> bool:
    """Whether weights are best spread from a register, by instruction set and sums: `vectors` of each of some rows.

    A broadcast from memory costs one of the two vector loads a cycle, which bound the sparse kernels; four weights
    loaded at once and spread by shuffles cost a quarter of it.
    """
    return isa.name in ("avx2", "avx512") and rows <= spread_rows(isa, vectors)


def load_quad(isa: Isa, values: Flat, position):
    """Four consecutive weights, repeated in every 128-bit part of a vector."""
    four = T.Shuffle([values.buffer[T.Ramp(position, 1, 4)]] * (isa.lanes // 4), list(range(isa.lanes)))
    # LLVM would put the shuffles of `spread` and this one together, to four broadcasts from memory.
    return intrinsic("llvm.arithmetic.fence", four, dtype=f"float32x{isa.lanes}")


def spread(isa: Isa, quad, number: int):
    """One of the four weights that `load_quad` loaded, in every lane."""
    return T.Shuffle([quad], [lane // 4 * 4 + number for lane in range(isa.lanes)])


def transpose(vectors: list) -> list:
    """Transpose as many vectors as they have lanes: lane j of vector i becomes lane i of vector j."""
    count = len(vectors)
    out = list(vectors)
    step = 1
    while step < count:
        # Blocks of `step` lanes change places between vectors that are `step` apart.
        low = [lane if not lane & step else count + lane - step for lane in range(count)]
        high = [lane + step if not lane & step else count + lane for lane in range(count)]
        for i in range(count):
            if not i & step:
                pair = [out[i], out[i + step]]
                out[i], out[i + step] = T.bind(T.Shuffle(pair, low)), T.bind(T.Shuffle(pair, high))
        step *= 2
    return out


def _dynamic_lane(vector, index, lanes: int):
    """Lane of a vector at a run-time position, as a chain of selects."""
    value = T.Shuffle([vector], [0])
    for i in range(1, lanes):
        value = T.Select(index == i, T.Shuffle([vector], [i]), value)
    return value
