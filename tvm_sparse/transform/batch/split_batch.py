"""SplitBatch: parts of a network run on one group of a batch's items after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tvm
from tvm import relax

from ..context import CompileContext
from ..graph import constant, free_variables
from .cost import GroupCosts, packed_bytes
from .part import Operator, Part
from .roles import Role, Roles, result_shapes, roles_of
from .stages import Stage, choose_stages, group_sizes


@tvm.transform.module_pass(opt_level=1, name="SplitBatch")
class SplitBatch:
    """Run parts of "main" on groups of the batch's items, each group through the whole part.

    Operator by operator, a batch's activations pass through memory beyond the caches; those of one item may fit. What
    mixes items, and what reads many weights for few rows, keeps the whole batch. A part becomes a private function,
    called once for each group on views of its inputs; its results are put together again.

    Parameters
    ----------
    context : CompileContext
        Caches of the target, threads.
    group : int, optional
        Size of groups to split all into that can be; default: whatever the estimated cycles say.
    """

    def __init__(self, context: CompileContext, group: int | None = None):
        self.context = context
        self.group = group

    def transform_module(self, module: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Rewrite "main"."""
        main = module["main"]
        blocks = main.body.blocks
        bindings = [binding for block in blocks for binding in block.bindings]
        is_plain = all(isinstance(block, relax.DataflowBlock) for block in blocks) and all(
            isinstance(binding, relax.VarBinding) for binding in bindings
        )
        extents = {shape[0] for p in main.params for shape in result_shapes(p) if shape}
        best: tuple[float, _Split, list[Stage]] | None = None
        for batch in sorted(extents - {0, 1}) if is_plain else []:
            split = _Split(main, bindings, batch)
            stages, gain = split.choose(self.context, self.group)
            if len(stages) > 1 or any(stage.group < batch for stage in stages):
                if best is None or gain > best[0]:
                    best = gain, split, stages
        return module if best is None else best[1].apply(module, best[2])


class _Split:
    """Operators of a function by what they do to the items of a batch.

    Parameters
    ----------
    function : relax.Function
        The function.
    bindings : sequence of VarBinding
        All its bindings.
    batch : int
        Items.
    """

    def __init__(self, function: relax.Function, bindings: Sequence[relax.VarBinding], batch: int):
        self.function = function
        self.batch = batch
        self.shared: list[Operator] = []  # independent of the items: they come first
        self.operators: list[Operator] = []
        # Values that exist as a whole, whatever is split.
        self._whole: set[relax.Var] = set(function.params)
        dependent = {p for p in function.params if any(s[:1] and s[0] % batch == 0 for s in result_shapes(p))}
        for binding in bindings:
            variable, value = binding.var, binding.value
            reads = free_variables(value)
            if not any(read in dependent for read in reads):
                self.shared.append(Operator(variable, value, None))
                self._whole.add(variable)
                continue
            dependent.add(variable)
            operator = Operator(variable, value, self._roles(value))
            self.operators.append(operator)
            if operator.roles is None:
                self._whole.add(variable)
        self._last_use: dict[relax.Var, int] = {}
        for place, operator in enumerate(self.operators):
            for read in free_variables(operator.value):
                self._last_use[read] = place
        for output in free_variables(function.body.body):
            self._last_use[output] = len(self.operators)
        # By place: values that operators before it compute for operators at it or after it.
        self._alive: list[list[relax.Var]] = [[]]
        for place, operator in enumerate(self.operators):
            before = [*self._alive[-1], operator.variable]
            self._alive.append([variable for variable in before if self._last_use.get(variable, -1) > place])

    def _roles(self, value: relax.Expr) -> Roles | None:
        """Roles of an operator that may run on groups."""
        if isinstance(value, relax.TupleGetItem):
            is_whole = value.tuple_value in self._whole
            shapes = result_shapes(value.tuple_value)
            return None if is_whole or not shapes else (Role.ITEMS,)
        if not isinstance(value, relax.Call):
            return None
        roles = roles_of(value, self.batch)
        if roles is None:
            return None
        for role, argument in zip(roles, value.args, strict=True):
            variables = free_variables(argument)
            if role is Role.WHOLE and any(variable not in self._whole for variable in variables):
                return None
            # A tuple is cut into groups field by field, where its fields are known.
            in_tuple = not isinstance(argument, relax.Tuple) and isinstance(argument.ty, relax.TupleType)
            if role is Role.ITEMS and in_tuple and any(variable in self._whole for variable in variables):
                return None
        return roles

    def choose(self, context: CompileContext, group: int | None) -> tuple[list[Stage], float]:
        """The stages, and the cycles that they save."""
        weights = sum(
            packed_bytes(array)
            for operator in self.operators
            for argument in getattr(operator.value, "args", [])
            if (array := constant(argument)) is not None and array.dtype == np.float32
        )
        costs = GroupCosts(context.isa, self.batch, weights, context.thread_counts)
        sizes = group_sizes(self.batch) if group is None else [group, self.batch]
        table: list[list[float | None]] = []
        for operator in self.operators:
            if operator.roles is None:
                table.append([None] * (len(sizes) - 1) + [costs.whole(operator.value)])
            elif isinstance(operator.value, relax.TupleGetItem):
                table.append([0.0] * len(sizes))
            elif group is not None:
                table.append([0.0, 1e9])
            else:
                table.append([costs.call(operator.value, operator.roles, size) for size in sizes])

        def crossing(place: int) -> float:
            alive = self._alive[place]
            if any(isinstance(variable.ty, relax.TupleType) for variable in alive):
                return float("inf")
            return costs.crossing(alive, place == len(self.operators))

        return choose_stages(table, sizes, crossing)

    def apply(self, module: tvm.IRModule, stages: Sequence[Stage]) -> tvm.IRModule:
        """The module with the stages that are split as functions of their own."""
        builder = relax.BlockBuilder(tvm.IRModule(module.functions, attrs=module.attrs))
        bindings = [relax.VarBinding(o.variable, o.value) for o in self.shared]
        for stage in stages:
            if stage.group == self.batch:
                bindings += [relax.VarBinding(o.variable, o.value) for o in self.operators[stage.start : stage.stop]]
            else:
                inside = {o.variable for o in self.operators[stage.start : stage.stop]}
                results = [variable for variable in self._alive[stage.stop] if variable in inside]
                if results:
                    bindings += Part(builder, self.batch, stage, self.operators, results).calls()
        body = relax.SeqExpr([relax.DataflowBlock(bindings)], self.function.body.body)
        old = self.function
        new = relax.Function(old.params, builder.normalize(body), old.ret_ty, old.is_pure, old.attrs)
        updated = builder.get()
        updated.update_func(updated.get_global_var("main"), new)
        return updated
