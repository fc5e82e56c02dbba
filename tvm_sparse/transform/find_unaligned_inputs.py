"""FindUnalignedInputs: inputs of the model that need no alignment, so that nobody has to copy them."""

from __future__ import annotations

from typing import Any

import tvm

from .context import CompileContext
from .graph import Graph
from .readers import Readers


@tvm.transform.module_pass(opt_level=0, name="FindUnalignedInputs")
class FindUnalignedInputs:
    """Note which parameters of "main" only kernels read that take tensors at any element.

    Other compiled code reads tensors with aligned vector loads. The module stays as it is.

    Parameters
    ----------
    context : CompileContext
        Kernels, those with an attribute ``unaligned_arguments`` (positions) take such tensors there; the pass fills in
        `unaligned_inputs`.
    """

    def __init__(self, context: CompileContext):
        self.context = context

    def transform_module(self, module: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Look at "main"."""
        graph = Graph(module["main"])
        readers = Readers(module, self.context.kernels, "unaligned_arguments", views=True)
        parameters = enumerate(module["main"].params)
        self.context.unaligned_inputs = {place for place, param in parameters if readers.take(graph, param)}
        return module
