"""Who reads a tensor: only kernels that take it as it is, or others too."""

from __future__ import annotations

from collections.abc import Mapping

import tvm
from tvm import relax

from .context import Kernel
from .graph import Graph, free_variables
from .rewrite import operator_name


class Readers:
    """Looks for readers of tensors, inside of functions too.

    Parameters
    ----------
    module : tvm.IRModule
        The module.
    kernels : mapping of str to Kernel
        Kernels by symbol.
    attribute : str
        Attribute of kernels with the positions of the arguments in which they take such tensors.
    views : bool
        Whether views of a tensor are as good as itself.
    """

    def __init__(self, module: tvm.IRModule, kernels: Mapping[str, Kernel], attribute: str, views: bool = False):
        self._module = module
        self._kernels = kernels
        self._attribute = attribute
        self._views = views

    def take(self, graph: Graph, variable: relax.Var) -> bool:
        """Whether all readers of a variable of a function take it as it is."""
        return not graph.is_output(variable) and all(
            self._takes(graph, user, graph.producer(user), variable) for user in graph.users(variable)
        )

    def _takes(self, graph: Graph, user: relax.Var, reader: relax.Expr | None, variable: relax.Var) -> bool:
        if not isinstance(reader, relax.Call):
            return False
        if isinstance(reader.op, tvm.ir.GlobalVar):
            function = self._module[reader.op]
            if not isinstance(function, relax.Function):
                return False
            inner = Graph(function)
            params = [p for p, a in zip(function.params, reader.args, strict=True) if a.same_as(variable)]
            return all(self.take(inner, param) for param in params)
        if self._views and operator_name(reader) == "relax.memory.view":
            return self.take(graph, user)
        if operator_name(reader) != "relax.call_dps_packed":
            return False
        kernel = self._kernels.get(str(getattr(reader.args[0], "global_symbol", "")))
        allowed = getattr(kernel, self._attribute, ())
        arguments = reader.args[1].fields
        return all(place in allowed for place, a in enumerate(arguments) if variable in free_variables(a))
