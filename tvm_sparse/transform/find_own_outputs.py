"""FindOwnOutputs: outputs of the model in memory of their own, which can be handed out without a copy."""

from __future__ import annotations

from collections import Counter
from typing import Any

import tvm
from tvm import relax

from .context import CompileContext
from .graph import Graph, free_variables


@tvm.transform.module_pass(opt_level=0, name="FindOwnOutputs")
class FindOwnOutputs:
    """Note which outputs of "main" are tensors that a run allocates, in a storage that nothing else is in.

    Outputs are counted without the tuples around them.

    Others may be a constant of the model, an input, a part of something, or the same as another output. The module
    stays as it is. It runs when all tensors have their storages.

    Parameters
    ----------
    context : CompileContext
        The pass fills in `own_outputs`.
    """

    def __init__(self, context: CompileContext):
        self.context = context

    def transform_module(self, module: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Look at "main"."""
        graph = Graph(module["main"])
        tensors = [_storage_of(value) for _, value in graph.bindings]
        in_storage = Counter(storage for storage in tensors if storage is not None)
        outputs = _leaves(graph, module["main"].body.body)
        returned = Counter(variable for output in outputs for variable in free_variables(output))

        def is_own(output: relax.Expr) -> bool:
            storage = _storage_of(graph.producer(output))
            return storage is not None and in_storage[storage] == 1 and returned[output] == 1

        self.context.own_outputs = {place for place, output in enumerate(outputs) if is_own(output)}
        return module


def _storage_of(value: relax.Expr | None) -> relax.Var | None:
    """Storage that a call allocates a tensor in."""
    allocates = isinstance(value, relax.Call) and getattr(value.op, "name", "") == "relax.memory.alloc_tensor"
    return value.args[0] if allocates else None


def _leaves(graph: Graph, expression: relax.Expr) -> list[relax.Expr]:
    """Outputs of a function that returns an expression."""
    end = _end(graph, expression)
    known = graph.producer(end) if isinstance(end, relax.Var) else end
    if isinstance(known, relax.Tuple):
        return [leaf for field in known.fields for leaf in _leaves(graph, field)]
    # Each of a tuple that comes from elsewhere is a part of that.
    parts = [end.ty]
    while any(isinstance(part, relax.TupleType) for part in parts):
        parts = [leaf for part in parts for leaf in (part.fields if isinstance(part, relax.TupleType) else [part])]
    return [end] * len(parts)


def _end(graph: Graph, expression: relax.Expr) -> relax.Expr:
    """What a variable is another name of."""
    while isinstance(graph.producer(expression), relax.Var):
        expression = graph.producer(expression)
    return expression
