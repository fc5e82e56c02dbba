"""CopyViews: parts of a batch's tensors are copied for readers that only take tensors from their beginning."""

from __future__ import annotations

from math import prod
from typing import Any

import tvm
from tvm import relax

from ..context import CompileContext
from ..graph import Graph, free_variables
from ..ops import static_shape
from ..rewrite import Rewriter, operator_name, scalar


@tvm.transform.module_pass(opt_level=0, name="CopyViews")
class CopyViews:
    """Turn views that begin inside of a tensor into slices, except where only kernels read them that take views.

    Compiled functions refuse tensors with an offset unless they are written for it. It runs after ``ToColumns``, when
    the readers are known.

    Parameters
    ----------
    context : CompileContext
        Kernels of the compilation; those with an attribute ``view_arguments`` (positions) take views there.
    """

    def __init__(self, context: CompileContext):
        self.context = context

    def transform_module(self, module: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Rewrite "main"."""
        main = module["main"]
        graph = Graph(main)

        def rule(_rewriter: Rewriter, variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
            is_view = operator_name(value) == "relax.memory.view" and scalar(value.args[3])
            return _slice(value) if is_view and not self._taken(module, graph, variable) else None

        new = Rewriter(main).rewrite(rule)
        if new.same_as(main):
            return module
        updated = tvm.IRModule(module.functions, attrs=module.attrs)
        updated.update_func(module.get_global_var("main"), new)
        return updated

    def _taken(self, module: tvm.IRModule, graph: Graph, view: relax.Var) -> bool:
        """Whether all readers of a view take it as it is."""
        return not graph.is_output(view) and all(
            self._takes(module, graph.producer(user), view) for user in graph.users(view)
        )

    def _takes(self, module: tvm.IRModule, reader: relax.Expr | None, view: relax.Var) -> bool:
        if not isinstance(reader, relax.Call):
            return False
        if isinstance(reader.op, tvm.ir.GlobalVar):
            function = module[reader.op]
            if not isinstance(function, relax.Function):
                return False
            inner = Graph(function)
            params = [p for p, a in zip(function.params, reader.args, strict=True) if a.same_as(view)]
            return all(self._taken(module, inner, param) for param in params)
        if operator_name(reader) != "relax.call_dps_packed":
            return False
        kernel = self.context.kernels.get(str(getattr(reader.args[0], "global_symbol", "")))
        allowed = getattr(kernel, "view_arguments", ())
        arguments = reader.args[1].fields
        return all(place in allowed for place, a in enumerate(arguments) if view in free_variables(a))


def _slice(view: relax.Call) -> relax.Expr:
    """The part of a tensor's first axis that a view shows."""
    shape = static_shape(view)
    offset = scalar(view.args[3])
    assert shape is not None and offset is not None
    row_bytes = prod(shape[1:]) * tvm.DataType(view.ty.dtype).bits // 8
    first = int(offset) // row_bytes
    return relax.op.strided_slice(view.args[0], axes=[0], begin=[first], end=[first + shape[0]])
