"""Rewriting a Relax function binding by binding, with producers and users kept up to date."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm import relax
from tvm.ir import GenericConst

from .graph import constant, free_variables

Rule = Callable[["Rewriter", relax.Var, relax.Expr], relax.Expr | None]

_LEAVES = (relax.Var, GenericConst, relax.ShapeExpr)
# Rules may match their own results again (chains); far fewer matches than this settle any real binding.
_MAX_MATCHES = 256


class Rewriter:
    """One walk over a function that applies rules to each binding.

    A rule is called as ``rule(rewriter, variable, value)`` for every binding in order and returns the new
    value of the variable, or None to leave it. A result that is itself a variable, a constant or a shape
    replaces the variable wherever it is read. Values of dataflow blocks that nobody reads any more vanish
    at once, so that `users` is exact.

    Parameters
    ----------
    function : relax.Function
        Function whose body is a sequence of binding blocks.
    """

    def __init__(self, function: relax.Function):
        self.function = function
        self.changed = False
        self._builder = relax.BlockBuilder()
        self._values: dict[relax.Var, relax.Expr] = {}
        self._users: dict[relax.Var, dict[relax.Var, None]] = {}
        self._aliases: dict[relax.Var, relax.Expr] = {}
        self._kept: set[relax.Var] = set(free_variables(function.body.body))
        self._pending: list[relax.Binding] = []
        for block in function.body.blocks:
            for binding in block.bindings:
                self._set_value(binding.var, binding.value)
                if not isinstance(block, relax.DataflowBlock) or isinstance(binding, relax.MatchCast):
                    self._kept.update([binding.var, *free_variables(binding.value)])
        self._drop_unread()

    # What rules ask.

    def resolve(self, expression: relax.Expr) -> relax.Expr:
        """The expression that stands for another after replacements."""
        while isinstance(expression, relax.Var) and expression in self._aliases:
            expression = self._aliases[expression]
        return expression

    def producer(self, expression: relax.Expr) -> relax.Expr | None:
        """Expression that a variable is bound to; None for parameters and what is no variable."""
        expression = self.resolve(expression)
        return self._values.get(expression) if isinstance(expression, relax.Var) else None

    def call(self, expression: relax.Expr, *names: str) -> relax.Call | None:
        """The call that makes ``expression`` if its operator is one of ``names``, else None."""
        value = expression if isinstance(expression, relax.Call) else self.producer(expression)
        return value if operator_name(value) in names else None

    def users(self, expression: relax.Expr) -> list[relax.Var]:
        """Variables whose values read a variable, in order."""
        return list(self._users.get(self.resolve(expression), {}))

    def is_output(self, expression: relax.Expr) -> bool:
        """Whether the function returns the variable, or a block that is not rewritten holds it."""
        return self.resolve(expression) in self._kept

    def only_use(self, expression: relax.Expr) -> bool:
        """Whether exactly one binding, and nobody else, reads a variable."""
        return len(self.users(expression)) == 1 and not self.is_output(expression)

    # What rules do.

    def emit(self, expression: relax.Expr) -> relax.Expr:
        """Bind an expression before the binding in hand.

        Calls nested in its arguments are bound too. Variables, constants and shapes are returned as they are.
        """
        expression = self._flatten(expression)
        if isinstance(expression, _LEAVES):
            return expression
        variable = relax.DataflowVar("lv", expression.ty)
        self._set_value(variable, expression)
        self._pending.append(relax.VarBinding(variable, expression))
        return variable

    def typed(self, expression: relax.Expr) -> relax.Expr:
        """A call whose arguments are bound already with its type inferred."""
        return self._builder.normalize(expression)

    def bind(self, variable: relax.Var, expression: relax.Expr) -> bool:
        """Give a variable that is bound at or after the binding in hand a new value.

        Returns
        -------
        bool
            False, with nothing done, where the type of an output would change.
        """
        expression = self._flatten(expression)
        same_type = bool(tvm_ffi.structural_equal(expression.ty, variable.ty))
        is_output = variable in self._kept
        if is_output and not same_type:
            return False
        self.changed = True
        if same_type and (is_output or not isinstance(expression, _LEAVES)):
            self._set_value(variable, expression)
        else:
            self._replace(variable, self.emit(expression))
        return True

    def rewrite(self, *rules: Rule) -> relax.Function:
        """Apply rules to every binding, in order.

        Returns
        -------
        relax.Function
            The same function if nothing matched.
        """
        blocks = []
        for block in self.function.body.blocks:
            bindings: list[relax.Binding] = []
            is_dataflow = isinstance(block, relax.DataflowBlock)
            for binding in block.bindings:
                is_open = is_dataflow and not isinstance(binding, relax.MatchCast)
                bindings += self._visit(binding, rules) if is_open else [binding]
            blocks.append((relax.DataflowBlock if is_dataflow else relax.BindingBlock, bindings))
        self._drop_unread()
        if not self.changed:
            return self.function
        for _, bindings in blocks:
            self._name_outputs(bindings)
        final = [
            make([b for b in map(self._current, bindings) if b is not None]) for make, bindings in blocks
        ]
        body = self._builder.normalize(relax.SeqExpr(final, self._substitute(self.function.body.body)))
        function = self.function
        return relax.Function(function.params, body, function.ret_ty, function.is_pure, function.attrs)

    # Bookkeeping.

    def _visit(self, binding: relax.Binding, rules: tuple[Rule, ...]) -> list[relax.Binding]:
        """Apply the rules to a binding, and to what they put before it, until none matches."""
        done: list[relax.Binding] = []
        todo = [binding]
        matches = 0
        while todo:
            binding = todo.pop()
            if binding.var not in self._values:  # replaced or no longer read
                continue
            value = self._update(binding.var)
            matched = binding.var in self._values and self._apply(rules, binding.var, value)
            if matched and matches < _MAX_MATCHES:
                matches += 1
                todo.append(binding)
                todo += reversed(self._pending)
            else:
                done += [*self._pending, binding]
            self._pending = []
        return done

    def _apply(self, rules: tuple[Rule, ...], variable: relax.Var, value: relax.Expr) -> bool:
        """Apply the first rule that matches; whether one did."""
        if isinstance(value, _LEAVES) and variable not in self._kept:
            return self.bind(variable, value)
        for rule in rules:
            result = rule(self, variable, value)
            if result is not None and self.bind(variable, result):
                return True
        return False

    def _name_outputs(self, bindings: list[relax.Binding]) -> None:
        """Where an output is another value of its block under a second name, bind the value to the output."""
        places = {binding.var: place for place, binding in enumerate(bindings)}
        dropped = set()
        for place, output in enumerate([binding.var for binding in bindings]):
            source = self._values.get(output)
            if not isinstance(source, relax.DataflowVar) or source in self._kept or source not in places:
                continue
            value = self._values[source]
            bindings[places[source]] = relax.VarBinding(output, value)
            self._set_value(output, value)
            self._replace(source, output)
            dropped.add(place)
        bindings[:] = [binding for place, binding in enumerate(bindings) if place not in dropped]

    def _drop_unread(self) -> None:
        """Drop values that nobody reads."""
        for variable in reversed(list(self._values)):
            if variable in self._values and variable not in self._kept and not self._users.get(variable):
                self._unuse(variable, self._values.pop(variable))
                self.changed = True

    def _update(self, variable: relax.Var) -> relax.Expr:
        """The value of a variable with replaced variables substituted."""
        value = self._values[variable]
        if any(v in self._aliases for v in free_variables(value)):
            value = self._substitute(value)
            self.bind(variable, value)
            value = self._values.get(variable, value)
        return value

    def _current(self, binding: relax.Binding) -> relax.Binding | None:
        if isinstance(binding, relax.MatchCast):
            return relax.MatchCast(binding.var, self._substitute(binding.value), binding.ty)
        value = self._values.get(binding.var)
        if value is None or binding.var in self._aliases:
            return None
        value = self._substitute(value)
        return binding if value.same_as(binding.value) else relax.VarBinding(binding.var, value)

    def _set_value(self, variable: relax.Var, value: relax.Expr) -> None:
        old = self._values.get(variable)
        self._values[variable] = value
        for read in free_variables(value):
            self._users.setdefault(read, {})[variable] = None
        if old is not None and not old.same_as(value):
            self._unuse(variable, old, value)

    def _unuse(self, variable: relax.Var, old: relax.Expr, new: relax.Expr | None = None) -> None:
        """Note that a variable no longer reads what its old value read; drop values that nobody reads."""
        still = set(free_variables(new)) if new is not None else set()
        for read in free_variables(old):
            if read in still:
                continue
            self._users.get(read, {}).pop(variable, None)
            if not self._users.get(read) and read in self._values and read not in self._kept:
                self._unuse(read, self._values.pop(read))

    def _replace(self, variable: relax.Var, expression: relax.Expr) -> None:
        """Let an expression stand for a variable everywhere."""
        expression = self.resolve(expression)
        if isinstance(expression, relax.Var):
            self._users.setdefault(expression, {}).update(self._users.get(variable, {}))
        self._aliases[variable] = expression
        old = self._values.pop(variable, None)
        if old is not None:
            self._unuse(variable, old)

    def _substitute(self, expression: relax.Expr) -> relax.Expr:
        """An expression with replaced variables substituted, its type inferred again where it changed."""
        if isinstance(expression, relax.Var):
            return self.resolve(expression)
        if not any(v in self._aliases for v in free_variables(expression)):
            return expression
        if isinstance(expression, relax.Call):
            args = [self._substitute(argument) for argument in expression.args]
            call = relax.Call(expression.op, args, expression.attrs, expression.ty_args)
            return self._builder.normalize(call)
        if isinstance(expression, relax.Tuple):
            return self._builder.normalize(relax.Tuple([self._substitute(f) for f in expression.fields]))
        if isinstance(expression, relax.TupleGetItem):
            item = relax.TupleGetItem(self._substitute(expression.tuple_value), expression.index)
            return self._builder.normalize(item)
        return expression  # control flow: what it reads is never replaced

    def _flatten(self, expression: relax.Expr) -> relax.Expr:
        """Bind nested calls and infer the type."""
        if isinstance(expression, relax.Var):
            return self.resolve(expression)
        if isinstance(expression, relax.Call):
            args = [self._flatten_argument(argument) for argument in expression.args]
            if not all(a.same_as(b) for a, b in zip(args, expression.args, strict=True)):
                expression = relax.Call(expression.op, args, expression.attrs, expression.ty_args)
        elif isinstance(expression, relax.TupleGetItem):
            expression = relax.TupleGetItem(self._flatten_argument(expression.tuple_value), expression.index)
        elif isinstance(expression, relax.Tuple):
            expression = relax.Tuple([self._flatten_argument(f) for f in expression.fields])
        return self._builder.normalize(expression)

    def _flatten_argument(self, argument: relax.Expr) -> relax.Expr:
        if isinstance(argument, relax.Tuple) and not any(
            isinstance(f, relax.Call | relax.TupleGetItem | relax.Tuple) for f in argument.fields
        ):
            return self._substitute(argument)
        if isinstance(argument, relax.Call | relax.TupleGetItem):
            if isinstance(argument.ty, tvm.ir.PrimType):  # a scalar expression of TensorIR
                return argument
            return self.emit(argument)
        if isinstance(argument, relax.Tuple):
            return relax.Tuple([self._flatten_argument(f) for f in argument.fields])
        return self._substitute(argument)


def rewrite_module(module: tvm.IRModule, *rules: Rule) -> tvm.IRModule:
    """Apply rules to every Relax function of a module; the same module if nothing matched."""
    return change_functions(module, lambda function: Rewriter(function).rewrite(*rules))


def change_functions(
    module: tvm.IRModule, change: Callable[[relax.Function], relax.Function]
) -> tvm.IRModule:
    """Replace every Relax function of a module; the same module if none changes."""
    updated: dict[tvm.ir.GlobalVar, relax.Function] = {}
    for name, function in module.functions_items():
        if isinstance(function, relax.Function) and isinstance(function.body, relax.SeqExpr):
            new = change(function)
            if not new.same_as(function):
                updated[name] = new
    if not updated:
        return module
    result = tvm.IRModule(module.functions, attrs=module.attrs)
    for name, function in updated.items():
        result.update_func(name, function)
    return result


# Small questions about expressions that most rules ask.


def operator_name(expression: Any) -> str:
    """Name of the operator that a call calls; "" for anything else."""
    if not isinstance(expression, relax.Call):
        return ""
    return str(getattr(expression.op, "name", "")) if isinstance(expression.op, tvm.ir.Op) else ""


def shape_of(expression: relax.Expr) -> tuple[int, ...] | None:
    """Static shape of a tensor expression, or None."""
    type_ = expression.ty
    if not isinstance(type_, relax.TensorType) or not isinstance(type_.shape, relax.ShapeExpr):
        return None
    extents = [getattr(extent, "value", None) for extent in type_.shape.values]
    return None if None in extents else tuple(int(e) for e in extents)  # type: ignore[arg-type]


def dtype_of(expression: relax.Expr) -> str:
    """Element type of a tensor expression as text; "" for anything else."""
    return str(expression.ty.dtype) if isinstance(expression.ty, relax.TensorType) else ""


def tensor(array: np.ndarray, dtype: str | None = None) -> relax.Expr:
    """A constant with exactly the array's element type (or the given one)."""
    return relax.const(np.asarray(array, order="C"), dtype or str(array.dtype))


def scalar(expression: relax.Expr) -> float | None:
    """Value of a constant of one element or of an immediate, or None."""
    if isinstance(expression, tvm.tirx.FloatImm | tvm.tirx.IntImm):
        return float(expression.value)
    value = constant(expression)
    return float(value.reshape(-1)[0]) if value is not None and value.size == 1 else None


def integers(expression: Any) -> list[int] | None:
    """Values of a tuple, shape or array of integer immediates, or None."""
    items = getattr(expression, "fields", None) or getattr(expression, "values", None) or expression
    values = [getattr(item, "value", item) for item in items]
    return [int(v) for v in values] if all(isinstance(v, int) for v in values) else None
