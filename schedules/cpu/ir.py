"""Building blocks of the CPU kernels: arguments, tables, vectors. Kernels are Python functions that build IR."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from tvm import DataType
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T
from tvm.tirx import Let, PrimFunc


class Flat:
    """A buffer seen as a flat array, with vector loads and stores.

    Parameters
    ----------
    buffer : tirx buffer
        One-dimensional buffer.
    lanes : int
        Elements of a vector.
    """

    def __init__(self, buffer, lanes: int):
        self.buffer = buffer
        self.lanes = lanes

    def __getitem__(self, index):
        return self.buffer[index]

    def store(self, index, value) -> None:
        """Store one element."""
        T.buffer_store(self.buffer, value, [index])

    def load_vector(self, index):
        """Load `lanes` consecutive elements."""
        return self.buffer[T.Ramp(index, 1, self.lanes)]

    def store_vector(self, index, value) -> None:
        """Store `lanes` consecutive elements."""
        T.buffer_store(self.buffer, value, [T.Ramp(index, 1, self.lanes)])


class TableReader:
    """Reads the scalars and arrays of a table made by :func:`tvm_sparse.layout.table.pack_table`.

    Parameters
    ----------
    buffer : Flat
        The int32 table.
    fields : sequence of str
        Field names in the packer's order.
    """

    def __init__(self, buffer: Flat, fields: Sequence[str]):
        self.buffer = buffer
        self._index = {name: index for index, name in enumerate(fields)}

    def scalar(self, name: str):
        """Value of a scalar field."""
        return self.buffer[self._index[name]]

    def at(self, name: str, index):
        """Element of an array field."""
        return self.buffer[self.buffer[self._index[name]] + index]

    def vector(self, name: str, index):
        """Vector of an array field, from element `index` on."""
        return self.buffer.load_vector(self.buffer[self._index[name]] + index)


def build_function(
    name: str,
    arguments: Sequence[tuple[str, int, str]],
    lanes: int,
    body: Callable[..., None],
    views: Collection[str] = (),
    unaligned: Collection[str] = (),
) -> PrimFunc:
    """Build a PrimFunc whose tensor arguments are seen as flat arrays.

    Parameters
    ----------
    name : str
        Global symbol.
    arguments : sequence of tuple
        ``(name, rank, dtype)`` of each tensor; all extents are run-time values.
    lanes : int
        float32 elements of a vector.
    body : callable
        Emits the body; called with one :class:`Flat` per argument.
    views : collection of str
        Arguments that may begin at any vector of a larger tensor: their ``byte_offset`` counts.
    unaligned : collection of str
        Arguments whose memory may begin at any element; that of others begins at a multiple of 64 bytes.

    Returns
    -------
    PrimFunc
        The function; buffers do not alias.
    """
    with IRBuilder() as builder:
        with T.prim_func():
            T.func_name(name)
            T.func_attr({"tirx.noalias": True, "global_symbol": name})
            handles = [T.arg(argument, T.handle()) for argument, _, _ in arguments]
            buffers = []
            for handle, (argument, rank, dtype) in zip(handles, arguments, strict=True):
                extents = [T.int32() for _ in range(rank)]
                # With a factor the offset is a variable; without one it must be zero.
                factor = lanes if argument in views else 0
                align = DataType(dtype).bits // 8 if argument in unaligned else -1
                buffer = T.match_buffer(handle, extents, dtype, align=align, offset_factor=factor)
                buffers.append((buffer, extents, dtype))
            flats = []
            for buffer, extents, dtype in buffers:
                size = extents[0]
                for extent in extents[1:]:
                    size = size * extent
                view = buffer
                if len(extents) > 1:
                    view = T.decl_buffer((size,), dtype, data=buffer.data, elem_offset=buffer.elem_offset)
                flats.append(Flat(view, lanes))
            body(*flats)
    return builder.get()


def vector_type(lanes: int, dtype: str = "float32") -> str:
    """Name of a vector type, such as ``"float32x8"``."""
    return f"{dtype}x{lanes}"


def registers(count: int, lanes: int) -> list[Register]:
    """Vector accumulators that LLVM keeps in registers.

    Buffers in "global" scope below 1 KiB become stack slots, which LLVM promotes; larger ones would be allocated on
    the heap, so the accumulators are spread over several buffers.
    """
    per_buffer = max(1, 1000 // (4 * lanes))
    out: list[Register] = []
    while len(out) < count:
        size = min(per_buffer, count - len(out))
        buffer = T.alloc_buffer((size,), vector_type(lanes), scope="global")
        out += [Register(buffer, index) for index in range(size)]
    return out


class Register:
    """One vector accumulator."""

    def __init__(self, buffer, index: int):
        self._buffer = buffer
        self._index = index

    @property
    def value(self):
        """Current value."""
        return self._buffer[self._index]

    def set(self, value) -> None:
        """Assign."""
        T.buffer_store(self._buffer, value, [self._index])


def broadcast(value, lanes: int):
    """A vector with the same value in every lane; a scalar for one lane."""
    return value if lanes == 1 else T.Broadcast(value, lanes)


def constant(value: float, lanes: int):
    """A vector constant."""
    return broadcast(T.float32(value), lanes)


def bind_lets(value):
    """Turn the let bindings around an expression into statements; the rest of the expression is returned.

    TVM's simplifier takes time exponential in the depth of nested lets (a minute for a few GELUs).
    """
    while isinstance(value, Let):
        T.bind(value.value, var=value.var)
        value = value.body
    return value


def as_int(value):
    """Widen an index to int32."""
    return T.Cast("int32", value)


def as_long(value):
    """Widen an index to int64."""
    return T.Cast("int64", value)


def load_bits(source: Flat, index, count: int):
    """Some consecutive elements as one unsigned integer, the first in its lowest bits."""
    vector = source.buffer[T.Ramp(index, 1, count)]
    bits = DataType(vector.ty.dtype).bits * count
    return T.reinterpret(f"uint{bits}", vector)


# Elements of a cache line.
LINE = 16
# Elements of sparse weights that are fetched ahead: they come from beyond the second-level cache, once for every panel.
AHEAD = 1024


def prefetch(source: Flat, index, write: bool = False) -> None:
    """Fetch the cache line of an element; reading past the end is harmless.

    Lines to be read come into the second-level cache, lines to be written into the first-level one.
    """
    T.evaluate(
        T.call_llvm_intrin(
            T.llvm_lookup_intrinsic_id("llvm.prefetch"),
            T.address_of(source[index]),
            T.int32(int(write)),
            T.int32(3 if write else 2),  # first-level or second-level cache
            T.int32(1),  # data
            dtype="void",
        )
    )


def intrinsic(name: str, *arguments, dtype: str):
    """Call an LLVM intrinsic without side effects."""
    return T.call_llvm_pure_intrin(T.llvm_lookup_intrinsic_id(name), *arguments, dtype=dtype)
