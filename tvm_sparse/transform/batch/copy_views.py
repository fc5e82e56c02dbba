"""CopyViews: parts of a batch's tensors are copied for readers that only take tensors from their beginning."""

from __future__ import annotations

from math import prod
from typing import Any

import tvm
from tvm import relax

from ..context import CompileContext
from ..graph import Graph
from ..ops import static_shape
from ..readers import Readers
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
        readers = Readers(module, self.context.kernels, "view_arguments")

        def rule(_rewriter: Rewriter, variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
            is_view = operator_name(value) == "relax.memory.view" and scalar(value.args[3])
            return _slice(value) if is_view and not readers.take(graph, variable) else None

        new = Rewriter(main).rewrite(rule)
        if new.same_as(main):
            return module
        updated = tvm.IRModule(module.functions, attrs=module.attrs)
        updated.update_func(module.get_global_var("main"), new)
        return updated



def _slice(view: relax.Call) -> relax.Expr:
    """The part of a tensor's first axis that a view shows."""
    shape = static_shape(view)
    offset = scalar(view.args[3])
    assert shape is not None and offset is not None
    row_bytes = prod(shape[1:]) * tvm.DataType(view.ty.dtype).bits // 8
    first = int(offset) // row_bytes
    return relax.op.strided_slice(view.args[0], axes=[0], begin=[first], end=[first + shape[0]])
