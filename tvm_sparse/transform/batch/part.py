"""A part of a network as a function of one group of items, and its calls for all groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import tvm
from tvm import relax, topi
from tvm.ir import GenericConst

from ..graph import constant
from .regroup import of_group, regroup
from .roles import Role, Roles, result_shapes
from .stages import Stage

# Tensors begin at multiples of so many bytes; compiled code relies on it.
_ALIGNMENT = 64
# TVM's kind of functions that are fused with no other.
_OPAQUE = 8


@dataclass(frozen=True)
class Operator:
    """A binding of the function that is split.

    Parameters
    ----------
    variable, value : relax.Var, relax.Expr
        The binding.
    roles : tuple of Role, optional
        Roles of its arguments; None where it runs once for the whole batch.
    """

    variable: relax.Var
    value: relax.Expr
    roles: Roles | None


class Part:
    """A stage as a function of one group, and its calls.

    Parameters
    ----------
    builder : BlockBuilder
        Holds the module.
    batch : int
        Items.
    stage : Stage
        The stage.
    operators : sequence of Operator
        Operators of the whole function.
    results : sequence of Var
        Values of the stage that are read after it.
    """

    def __init__(
        self, builder: relax.BlockBuilder, batch: int, stage: Stage, operators: Sequence[Operator],
        results: Sequence[relax.Var],
    ):  # fmt: skip
        self.builder = builder
        self.batch = batch
        self.group = stage.group
        self.results = results
        self._params: list[relax.Var] = []
        # What each call gives for a parameter: a value as it is, or its items.
        self._sources: list[tuple[relax.Expr, Role]] = []
        self._known: dict[tuple[relax.Expr, Role], relax.Expr] = {}
        self._inner: dict[relax.Var, relax.Expr] = {}
        self._bindings: list[relax.Binding] = []
        for operator in operators[stage.start : stage.stop]:
            self._add(operator)

    def _add(self, operator: Operator) -> None:
        value, roles = operator.value, operator.roles
        assert roles is not None
        if isinstance(value, relax.TupleGetItem):
            new = self.builder.normalize(relax.TupleGetItem(self._inner[value.tuple_value], value.index))
        else:
            arguments = [self._argument(a, role) for a, role in zip(value.args, roles, strict=True)]
            new = regroup(self.builder, value, arguments, self.batch, self.group)
        variable = relax.DataflowVar(operator.variable.name, new.ty)
        self._bindings.append(relax.VarBinding(variable, new))
        self._inner[operator.variable] = variable

    def _argument(self, argument: relax.Expr, role: Role) -> relax.Expr:
        if isinstance(argument, relax.Tuple):
            return self.builder.normalize(relax.Tuple([self._argument(field, role) for field in argument.fields]))
        if isinstance(argument, relax.Var) and argument in self._inner:
            return self._inner[argument]
        if not isinstance(argument, relax.Var | GenericConst) or not isinstance(argument.ty, relax.TensorType):
            return argument
        key = (argument, role)
        if key not in self._known:
            self._known[key] = self._outer(argument, role)
        return self._known[key]

    def _outer(self, argument: relax.Expr, role: Role) -> relax.Expr:
        """A value from outside of the part: a constant, or a new parameter."""
        array = constant(argument)
        if array is not None:
            if role is Role.WHOLE:
                return argument
            parts = array.reshape(self.batch // self.group, -1)
            if (parts == parts[0]).all():
                return self._constant(argument, 0)
        if role is Role.WHOLE:
            type_ = argument.ty
        else:
            (shape,) = result_shapes(argument)
            type_ = relax.TensorType(of_group(shape, self.batch, self.group), argument.ty.dtype)
        param = relax.Var(f"part{len(self._params)}", type_)
        self._params.append(param)
        self._sources.append((argument, role))
        return param

    def calls(self) -> list[relax.Binding]:
        """Bindings that call the part for each group and put the results together, as the old variables."""
        outputs = [self._inner[result] for result in self.results]
        output = relax.Var("group", outputs[0].ty if len(outputs) == 1 else relax.Tuple(outputs).ty)
        result = outputs[0] if len(outputs) == 1 else self.builder.normalize(relax.Tuple(outputs))
        body = relax.SeqExpr([relax.DataflowBlock([*self._bindings, relax.VarBinding(output, result)])], output)
        function = relax.Function(self._params, self.builder.normalize(body), ret_ty=result.ty)
        name = self.builder.add_func(function, "part")
        bindings: list[relax.Binding] = []

        def bind(expression: relax.Expr) -> relax.Expr:
            expression = self.builder.normalize(expression)
            if isinstance(expression, relax.Var | GenericConst):
                return expression
            variable = relax.DataflowVar("lv", expression.ty)
            bindings.append(relax.VarBinding(variable, expression))
            return variable

        groups = []
        for index in range(self.batch // self.group):
            arguments = [
                source if role is Role.WHOLE else bind(self._items(source, index)) for source, role in self._sources
            ]
            groups.append(bind(relax.Call(name, arguments)))
        for place, old in enumerate(self.results):
            fields = groups if len(self.results) == 1 else [bind(relax.TupleGetItem(g, place)) for g in groups]
            # As a function that is never fused: TVM's FuseOps takes fields of one part's result for several values.
            joined = self.builder.call_te(
                topi.concatenate, fields, 0, primfunc_name_hint="join", primfunc_attrs={"op_pattern": _OPAQUE}
            )
            bindings.append(relax.VarBinding(old, self.builder.normalize(joined)))
        return bindings

    def _items(self, source: relax.Expr, index: int) -> relax.Expr:
        """The items of a group of a whole value."""
        if constant(source) is not None:
            return self._constant(source, index)
        (shape,) = result_shapes(source)
        rows = shape[0] // self.batch * self.group
        wanted = of_group(shape, self.batch, self.group)
        bits = tvm.DataType(source.ty.dtype).bits
        offset = prod(wanted) * bits // 8 * index
        if bits % 8 == 0 and (offset % _ALIGNMENT == 0):
            return relax.op.memory.view(source, wanted, str(source.ty.dtype), offset)
        return relax.op.strided_slice(source, axes=[0], begin=[index * rows], end=[(index + 1) * rows])

    def _constant(self, source: relax.Expr, index: int) -> relax.Expr:
        array = constant(source)
        assert array is not None
        rows = len(array) // self.batch * self.group
        return relax.const(np.ascontiguousarray(array[index * rows : (index + 1) * rows]), str(source.ty.dtype))
