"""What an operator costs that runs on groups of a batch's items: estimated cycles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import gcd, prod

import numpy as np
from tvm import relax

from tvm_sparse.layout.geometry import Geometry, choose_geometry
from tvm_sparse.plan.choose import dense_cycles, sparse_cycles
from tvm_sparse.plan.layer import Convolution
from tvm_sparse.plan.pack_rows import MEMORY_BYTES
from tvm_sparse.schedules.cpu.isa import Isa

from ..columns.layer_calls import layer_of
from ..columns.values import token_geometry
from ..ops import CONV2D, LINEAR
from .regroup import of_group
from .roles import Role, Roles, result_shapes

# Cycles of a call beside its work: the virtual machine, the start of a kernel.
_CALL_CYCLES = 3000
# Bytes that simple operators move in a cycle from the second-level cache.
_CACHE_BYTES = 16
# Cycles an element takes to its place in the batch's tensor, and those out of columns before and into them after.
_COPY_CYCLES, _COLUMNS_CYCLES = 1.0, 2.0
# A core's share of the last-level cache, in second-level caches, and how much longer what does not fit there takes to
# read and write: 67 and 22 GB/s on a Zen 3 server whose cache others use too.
_SHARED_CACHES = 8
_MEMORY_LOSS = 3.0
# What a layer loses for each further thread that works on the same item: lines that another core wrote, panels that the
# threads cannot share evenly. Two threads take 7 to 12 % longer for items one by one than for two at a time.
_SHARED_ITEM = 0.08
# Bytes of a nonzero with its offset.
_NONZERO_BYTES = 6


class GroupCosts:
    """Cycles of operators and of tensors that cross from one size of groups to another.

    Four things depend on the size: how well the lanes are filled; whether activations are still in the second-level
    cache when the next operator reads them; how often weights are read again; whether threads have items of their own.
    All cycles are those of all cores together, the mean of what they take on each number of threads.

    Parameters
    ----------
    isa : Isa
        Instruction set and caches.
    batch : int
        Items.
    weight_bytes : int
        Bytes of all weights of the network: those that fit the cache stay there from group to group.
    thread_counts : sequence of int
        Numbers of threads that the network may run on.
    """

    def __init__(self, isa: Isa, batch: int, weight_bytes: int, thread_counts: Sequence[int] = (1,)):
        self.isa = isa
        self.batch = batch
        self.thread_counts = thread_counts
        self._reload = self._missing(weight_bytes)
        self._layers: dict[relax.Call, tuple[Convolution, int]] = {}
        self._panels: dict[tuple[relax.Call, Geometry | None, Geometry | None], float] = {}

    def call(self, call: relax.Call, roles: Roles, group: int) -> float:
        """Cycles of a call for the whole batch, by groups of `group` items."""
        tensors = [a for role, a in zip(roles, call.args, strict=True) if role is Role.ITEMS]
        moved = sum(_bytes(tensor) for tensor in [*tensors, call])
        is_layer = str(getattr(call.op, "name", "")) in (CONV2D, LINEAR)
        layer = self._layer(call, group) if is_layer else None
        return float(np.mean([self._on_threads(moved, layer, group, count) for count in self.thread_counts]))

    def _on_threads(self, moved: int, layer: tuple[float, int] | None, group: int, threads: int) -> float:
        """Cycles of all cores for a call that moves so many bytes, in equal parts."""
        runs = self.batch // group
        cycles = _CALL_CYCLES * runs * threads + moved * self._reading(moved / runs, threads)
        if layer is None:
            return cycles + moved / _CACHE_BYTES
        work, weights = layer
        work *= 1 + _SHARED_ITEM * (threads // gcd(threads, group) - 1)
        # A layer's weights that do not fit the cache come from memory for every panel, in any order.
        reload = self._reload * (1 - self._missing(weights))
        # Every thread reads all of them.
        return cycles + runs * (work + threads * weights * reload / MEMORY_BYTES)

    def whole(self, expression: relax.Expr) -> float:
        """Cycles of an operator that runs once: the same in every plan, so it matters only for shares."""
        return _CALL_CYCLES * float(np.mean(self.thread_counts)) + _bytes(expression) / _CACHE_BYTES

    def crossing(self, variables: Sequence[relax.Var], is_result: bool) -> float:
        """Cycles to put the groups of tensors together: results of the network, or what other operators read."""
        cycles = _COPY_CYCLES + (0.0 if is_result else _COLUMNS_CYCLES)
        return sum(_bytes(variable) for variable in variables) / 4 * cycles

    def _reading(self, size: float, threads: int) -> float:
        """Cycles for a byte of tensors or weights of so many bytes that are read again, none where they are cached."""
        from_memory = float(np.clip(size / (_SHARED_CACHES * self.isa.l2_bytes) - 0.5, 0, 1))
        return self._missing(size / threads) * (1 + (_MEMORY_LOSS - 1) * from_memory) / MEMORY_BYTES

    def _missing(self, size: float) -> float:
        """Share of so many bytes that is not in the second-level cache any more when it is read again."""
        return float(np.clip(size / self.isa.l2_bytes - 0.5, 0, 1))

    def _layer(self, call: relax.Call, group: int) -> tuple[float, int]:
        """Cycles of a layer on a group, and bytes of its weights that the group reads."""
        if call not in self._layers:
            layer = layer_of(call)
            self._layers[call] = layer, packed_bytes(layer.weight)
        weights = self._layers[call][1]
        (source_shape,), (shape,) = result_shapes(call.args[0]), result_shapes(call)
        source_shape, shape = (of_group(s, self.batch, group) for s in (source_shape, shape))
        rows = _rows(call, source_shape, shape)
        if rows is not None and rows * 2 <= self.isa.lanes:
            # Every row reads the weights.
            return rows * self._panel(call, None, None), 0
        if rows is not None:
            source = target = token_geometry(source_shape if call.op.name == LINEAR else (rows, 1), self.isa.lanes)
        else:
            source = choose_geometry(group, *source_shape[2:], self.isa.lanes)
            target = choose_geometry(group, *shape[2:], self.isa.lanes)
        panel = self._panel(call, replace(source, batch=source.images), replace(target, batch=target.images))
        # Weights that do not fit the cache are read again for each panel, while the units compute.
        panel = max(panel, weights * self._reading(weights, 1))
        return target.sets * target.panels * panel, weights

    def _panel(self, call: relax.Call, source: Geometry | None, target: Geometry | None) -> float:
        """Cycles of a layer's panel (or plain row) in the faster of the dense and the unstructured format."""
        key = (call, source, target)
        if key not in self._panels:
            estimates = (f(self._layers[call][0], source, target, self.isa) for f in (dense_cycles, sparse_cycles))
            self._panels[key] = min(estimates)
        return self._panels[key]


def packed_bytes(weight: np.ndarray) -> int:
    """Bytes of a weight in the smaller of the dense and the unstructured format, about."""
    return min(weight.nbytes, int(np.count_nonzero(weight)) * _NONZERO_BYTES)


def _rows(call: relax.Call, source: tuple[int, ...], shape: tuple[int, ...]) -> int | None:
    """Rows of a linear layer, or of a convolution of single pixels; None for images."""
    if call.op.name == LINEAR:
        return prod(source[:-1])
    return shape[0] if source[2:] == (1, 1) and shape[2:] == (1, 1) else None


def _bytes(expression: relax.Expr) -> int:
    """Bytes of a tensor or of a tuple's tensors, of four bytes an element."""
    return sum(4 * prod(shape) for shape in result_shapes(expression))
