"""PlanMemory: tensors that are not alive at the same time share storage."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

import tvm
from tvm import relax

from .context import CompileContext
from .graph import free_variables
from .ops import static_shape
from .rewrite import change_functions

# Storage begins at cache lines, and so do the sizes that are compared.
_LINE = 64


@tvm.transform.module_pass(opt_level=0, name="PlanMemory")
class PlanMemory:
    """Give every tensor of static shape that a function keeps to itself a storage, as few and as small as possible.

    The largest tensors are placed first. So the groups of a batch, whose code is repeated, all use the storages of the
    first one, which are still cached; a planner that goes through a function in its order lets each group's small
    result take a large storage for good, and the next group begins with memory that nobody has touched.

    It runs on explicit allocations (``relax.builtin.alloc_tensor``), which it replaces.

    Parameters
    ----------
    context : CompileContext
        Kernels of the compilation: they keep no argument under another name.
    """

    def __init__(self, context: CompileContext):
        self.context = context

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite every Relax function.

        Parameters
        ----------
        mod : tvm.IRModule
            Module with explicit allocations and no dataflow blocks.

        Returns
        -------
        tvm.IRModule
            The module.
        """
        return change_functions(mod, lambda function: self._plan(mod, function))

    def _plan(self, mod: tvm.IRModule, function: relax.Function) -> relax.Function:
        bindings = [binding for block in function.body.blocks for binding in block.bindings]
        tensors = self._tensors(mod, function, bindings)
        storages = share_storage(list(tensors.values()))
        if not storages:
            return function
        # Bindings of a function are normal already: only the new ones need types.
        builder = relax.BlockBuilder()
        new: list[relax.Binding] = []
        place: dict[relax.Var, relax.Var] = {}
        for number, storage in enumerate(storages):
            call = relax.op.memory.alloc_storage(
                relax.ShapeExpr([storage.size]), 0, storage.scope, "float32"
            )
            call = builder.normalize(call)
            variable = relax.Var(f"storage{number}", call.ty)
            new.append(relax.VarBinding(variable, call))
            place |= dict.fromkeys((tensor.variable for tensor in storage.tensors), variable)
        for binding in bindings:
            if binding.var not in place:
                new.append(binding)
                continue
            shape, dtype = binding.value.args[:2]
            call = relax.op.memory.alloc_tensor(place[binding.var], 0, shape, dtype)
            new.append(relax.VarBinding(binding.var, builder.normalize(call)))
        body = relax.SeqExpr([relax.BindingBlock(new)], function.body.body)
        return relax.Function(function.params, body, function.ret_ty, function.is_pure, function.attrs)

    def _tensors(
        self, mod: tvm.IRModule, function: relax.Function, bindings: Sequence[relax.Binding]
    ) -> dict[relax.Var, Tensor]:
        """Allocations that may share storage, with their lifetimes."""
        tensors: dict[relax.Var, Tensor] = {}
        # By variable: the allocations that it may show.
        shown: dict[relax.Var, frozenset[relax.Var]] = {}
        for index, binding in enumerate(bindings):
            variable, value = binding.var, binding.value
            known = _allocated(variable, value)
            if known is not None:
                tensors[variable] = known
                shown[variable] = frozenset([variable])
                continue
            read = frozenset[relax.Var]().union(*(shown.get(v, frozenset()) for v in free_variables(value)))
            if not self._keeps_nothing(mod, value):
                # Another name, a tuple, or a view by a function that we do not know.
                shown[variable] = read
            if not isinstance(value, relax.Var):
                for allocation in read:
                    tensors[allocation].used_at(index)
        for variable in free_variables(function.body.body):
            for allocation in shown.get(variable, frozenset()):
                tensors.pop(allocation, None)
        return tensors

    def _keeps_nothing(self, mod: tvm.IRModule, value: relax.Expr) -> bool:
        """Whether a call's result is no other name of its arguments."""
        if not isinstance(value, relax.Call):
            return False
        if isinstance(value.op, tvm.ir.GlobalVar):
            return isinstance(mod[value.op], tvm.tirx.PrimFunc)
        return getattr(value.op, "global_symbol", None) in self.context.kernels


@dataclass
class Tensor:
    """An allocation.

    Parameters
    ----------
    variable : relax.Var
        The tensor.
    size : int
        Bytes, a multiple of a cache line.
    scope : str
        Kind of its memory.
    first, last : int
        Numbers of the first and the last binding that use it; nobody does where the first is behind the last.
    """

    variable: relax.Var
    size: int
    scope: str
    first: int = 1 << 62
    last: int = -1

    def used_at(self, index: int) -> None:
        """Note a use."""
        self.first, self.last = min(self.first, index), max(self.last, index)


@dataclass
class Storage:
    """A storage and the tensors that are there one after the other, in that order."""

    size: int
    scope: str
    tensors: list[Tensor] = field(default_factory=list)

    def is_free_for(self, tensor: Tensor) -> bool:
        """Whether a tensor fits, between the others."""
        at = self._place(tensor)
        before, after = self.tensors[max(at - 1, 0) : at], self.tensors[at : at + 1]
        fits = tensor.size <= self.size and tensor.scope == self.scope
        return fits and all(t.last < tensor.first for t in before) and all(t.first > tensor.last for t in after)

    def idle_since(self, tensor: Tensor) -> int:
        """Number of the binding that used the storage last before a tensor does; -1 if none did."""
        at = self._place(tensor)
        return self.tensors[at - 1].last if at else -1

    def add(self, tensor: Tensor) -> None:
        """Place a tensor for which it is free."""
        self.tensors.insert(self._place(tensor), tensor)

    def _place(self, tensor: Tensor) -> int:
        return bisect_left(self.tensors, tensor.first, key=lambda t: t.first)


def share_storage(tensors: Sequence[Tensor]) -> list[Storage]:
    """Place tensors in storages: the largest first, each in the smallest that is free, of equals the last used one.

    Parameters
    ----------
    tensors : sequence of Tensor
        Tensors with their lifetimes, in the order of a run.

    Returns
    -------
    list of Storage
        The storages, the largest first.
    """
    storages: list[Storage] = []
    for tensor in sorted(tensors, key=lambda t: (-t.size, t.first)):
        free = [storage for storage in storages if storage.is_free_for(tensor)]
        if free:
            best = min(free, key=lambda s: (s.size, -s.idle_since(tensor)))
        else:
            best = Storage(tensor.size, tensor.scope)
            storages.append(best)
        best.add(tensor)
    return storages


def _allocated(variable: relax.Var, value: relax.Expr) -> Tensor | None:
    """A tensor of static shape and known element type."""
    if not isinstance(value, relax.Call) or getattr(value.op, "name", "") != "relax.builtin.alloc_tensor":
        return None
    shape = static_shape(variable)
    if shape is None or not variable.ty.dtype:
        return None
    dtype = tvm.DataType(variable.ty.dtype)
    size = prod(shape) * ((dtype.bits * dtype.lanes + 7) // 8)
    scope = str(getattr(value.args[3], "value", "global"))
    return Tensor(variable, max(_LINE, -(-size // _LINE) * _LINE), scope)
