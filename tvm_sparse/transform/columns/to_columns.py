"""ToColumns: activations move to columns, layers become kernel calls with packed weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import tvm
from tvm import relax

from ..context import CompileContext
from ..graph import Graph, free_variables
from ..ops import static_shape
from .values import Columns, Emitter, Held

# Handlers by operator name. A handler emits the operator in columns and returns the result: columns, a plain
# expression, a list of them for tuples, or a note for the only reader; None where it cannot, and the operator stays.
Result = Columns | relax.Expr | list[Any] | Held | None
Handler = Callable[["Lowering", relax.Call], Result]
HANDLERS: dict[str, Handler] = {}


def handles(*names: str) -> Callable[[Handler], Handler]:
    """Register a handler for operators."""

    def register(handler: Handler) -> Handler:
        for name in names:
            if name in HANDLERS:
                raise ValueError(f"two handlers for {name}")
            HANDLERS[name] = handler
        return handler

    return register


class Lowering:
    """State of the lowering of one function.

    Every value of the old function has a plain form, a form in columns, or both; each form is made when a reader
    needs it and kept.

    Parameters
    ----------
    builder : relax.BlockBuilder
        Builder of the new function.
    context : CompileContext
        The compilation.
    graph : Graph
        Readers of the old function's values.
    """

    def __init__(self, builder: relax.BlockBuilder, context: CompileContext, graph: Graph):
        self.emitter = Emitter(builder, context)
        self.context = context
        self._graph = graph
        self._held: dict[relax.Var, Held] = {}
        self._plain: dict[relax.Var, relax.Expr] = {}
        self._columns: dict[relax.Var, Columns] = {}
        self._tuples: dict[relax.Var, list[Any]] = {}

    def define(self, variable: relax.Var, value: Result) -> None:
        """Note what an old variable became."""
        if isinstance(value, Held):
            self._held[variable] = value
        elif isinstance(value, list):
            self._tuples[variable] = value
        elif isinstance(value, Columns):
            self._columns[variable] = value
        elif value is not None:
            self._plain[variable] = value

    def held(self, expression: relax.Expr) -> object | None:
        """What a handler noted of a value that its reader computes."""
        held = self._held.get(expression) if isinstance(expression, relax.Var) else None
        return None if held is None else held.what

    def sole_reader(self, call: relax.Call) -> tuple[relax.Call, int] | None:
        """The call that alone reads what `call` is bound to, and as which of its arguments."""
        variable = self._graph.variable(call)
        users = [] if variable is None or self._graph.is_output(variable) else self._graph.users(variable)
        reader = self._graph.producer(users[0]) if len(users) == 1 else None
        if not isinstance(reader, relax.Call) or sum(v.same_as(variable) for v in free_variables(reader)) != 1:
            return None
        return next(((reader, i) for i, a in enumerate(reader.args) if a.same_as(variable)), None)

    def is_read_once(self, expression: relax.Expr) -> bool:
        """Whether a variable has one reader alone, which is no result of the function."""
        if not isinstance(expression, relax.Var) or self._graph.is_output(expression):
            return False
        return len(self._graph.users(expression)) == 1

    def element(self, variable: relax.Expr, index: int) -> Result:
        """Element of a tuple that a handler returned, or None."""
        elements = self._tuples.get(variable) if isinstance(variable, relax.Var) else None
        return None if elements is None else elements[index]

    def columns(self, expression: relax.Expr) -> Columns | None:
        """The form in columns, if there is one already; not where the channels are split into heads.

        A range of channels of a wider tensor is copied.
        """
        known = self.in_place(expression)
        return None if known is None or known.heads > 1 else self.emitter.whole(known)

    def in_place(self, expression: relax.Expr) -> Columns | None:
        """The form in columns as it is stored: the channels may be split into heads, or part of a wider tensor."""
        return self._columns.get(expression) if isinstance(expression, relax.Var) else None

    def to_image_columns(self, expression: relax.Expr) -> Columns:
        """The form in columns of ``[N, C, H, W]``, made if need be."""
        known = self.columns(expression)
        if known is not None and not known.tokens:
            return known
        made = self.emitter.image_columns(self.plain(expression))
        if isinstance(expression, relax.Var) and known is None:
            self._columns[expression] = made
        return made

    def to_token_columns(self, expression: relax.Expr) -> Columns:
        """The form in columns of ``[..., C]``, made if need be."""
        known = self.columns(expression)
        if known is not None and known.tokens:
            return known
        made = self.emitter.token_columns(self.plain(expression))
        if isinstance(expression, relax.Var) and known is None:
            self._columns[expression] = made
        return made

    def is_few(self, rows: int) -> bool:
        """Whether so few rows are better kept as they are than spread over the lanes of a vector."""
        return rows * 2 <= self.emitter.lanes

    def slice_channels(self, x: Columns, start: int, stop: int, shape: tuple[int, ...]) -> Columns:
        """Channels `start` to `stop` of a tensor in columns as a range, with its logical shape; nothing is copied."""
        return replace(x, channels=stop - start, shape=shape, first=x.first + start)

    def plain(self, expression: relax.Expr) -> relax.Expr:
        """The plain form, made if need be; also of nested expressions."""
        if isinstance(expression, relax.Var):
            if expression in self._plain:
                return self._plain[expression]
            if expression in self._columns:
                value = self.emitter.plain(self._columns[expression])
                self._plain[expression] = value
                return value
            if expression in self._tuples:
                fields = [self.emitter.plain(e) if isinstance(e, Columns) else e for e in self._tuples[expression]]
                return relax.Tuple(fields)
            return expression
        if isinstance(expression, relax.Call):
            arguments = [self.plain(a) for a in expression.args]
            return relax.Call(expression.op, arguments, expression.attrs, ty_args=expression.ty_args)
        if isinstance(expression, relax.Tuple):
            return relax.Tuple([self.plain(f) for f in expression.fields])
        if isinstance(expression, relax.TupleGetItem):
            known = self.element(expression.tuple_value, expression.index)
            if known is not None:
                return self.emitter.plain(known) if isinstance(known, Columns) else known
            return relax.TupleGetItem(self.plain(expression.tuple_value), expression.index)
        return expression

    def lower(self, variable: relax.Var, value: relax.Expr) -> None:
        """Lower one binding."""
        result: Result = None
        if isinstance(value, relax.Call):
            handler = HANDLERS.get(getattr(value.op, "name", ""))
            if handler is not None and _is_static(value):
                result = handler(self, value)
        elif isinstance(value, relax.TupleGetItem):
            result = self.element(value.tuple_value, value.index)
        elif isinstance(value, relax.Var):
            result = self.in_place(value)
        if result is None:
            result = self.emitter.emit(self.plain(value))
        self.define(variable, result)


@tvm.transform.module_pass(opt_level=0, name="ToColumns")
class ToColumns:
    """Rewrite the main function, and the private ones that it calls, for activations in columns.

    Parameters
    ----------
    context : CompileContext
        Target and plan; collects the kernels that are called.
    """

    def __init__(self, context: CompileContext):
        self.context = context

    def transform_module(self, module: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Rewrite "main" and what it calls, in the order of a run."""
        updated = tvm.IRModule(module.functions, attrs=module.attrs)
        self._lower(module, module.get_global_var("main"), updated, set())
        return updated

    def _lower(
        self, module: tvm.IRModule, name: tvm.ir.GlobalVar, updated: tvm.IRModule, done: set[tvm.ir.GlobalVar]
    ) -> None:
        old = module[name]
        if name in done or not isinstance(old, relax.Function):
            return
        done.add(name)
        builder = relax.BlockBuilder()
        lowering = Lowering(builder, self.context, Graph(old))
        is_private = name.name_hint != "main"
        with builder.function("main", list(old.params), attrs=dict(old.attrs or {}), private=is_private):
            with builder.dataflow():
                for block in old.body.blocks:
                    for binding in block.bindings:
                        callee = getattr(binding.value, "op", None)
                        if isinstance(callee, tvm.ir.GlobalVar):
                            self._lower(module, callee, updated, done)
                        lowering.lower(binding.var, binding.value)
                output = builder.emit_output(lowering.plain(old.body.body))
            builder.emit_func_output(output)
        updated.update_func(name, builder.get()["main"])


def _is_static(call: relax.Call) -> bool:
    if isinstance(call.ty, relax.TupleType):
        return all(isinstance(f, relax.TensorType) and f.shape is not None for f in call.ty.fields)
    shape = static_shape(call)
    return shape is not None and 0 not in shape
