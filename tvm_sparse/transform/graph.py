"""Who makes and who reads each value of a Relax function, and constants as arrays."""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax
from tvm.ir import GenericConst


class Graph:
    """Producers and users of the variables of a function.

    Parameters
    ----------
    function : relax.Function
        Function whose body is a sequence of binding blocks.
    """

    def __init__(self, function: relax.Function):
        self.function = function
        self.bindings: list[tuple[relax.Var, relax.Expr]] = []
        self._producers: dict[relax.Var, relax.Expr] = {}
        self._variables: dict[relax.Expr, relax.Var] = {}
        self._users: dict[relax.Var, list[relax.Var]] = {}
        self._outputs: set[relax.Var] = set()
        for block in function.body.blocks:
            for binding in block.bindings:
                value = binding.value
                self.bindings.append((binding.var, value))
                self._producers[binding.var] = value
                self._variables[value] = binding.var
                for variable in free_variables(value):
                    users = self._users.setdefault(variable, [])
                    if binding.var not in users:
                        users.append(binding.var)
        self._outputs = set(free_variables(function.body.body))

    def producer(self, variable: relax.Expr) -> relax.Expr | None:
        """Expression that a variable is bound to; None for parameters."""
        return self._producers.get(variable) if isinstance(variable, relax.Var) else None

    def variable(self, expression: relax.Expr) -> relax.Var | None:
        """Variable that an expression of the function is bound to."""
        return self._variables.get(expression)

    def users(self, variable: relax.Var) -> list[relax.Var]:
        """Variables whose expressions read a variable, in order."""
        return self._users.get(variable, [])

    def is_output(self, variable: relax.Var) -> bool:
        """Whether the function returns the variable itself."""
        return variable in self._outputs


def free_variables(expression: relax.Expr) -> list[relax.Var]:
    """Variables that an expression reads."""
    if isinstance(expression, relax.Var):
        return [expression]
    if isinstance(expression, relax.Call):
        callee = [expression.op] if isinstance(expression.op, relax.Var) else []
        return callee + [v for argument in expression.args for v in free_variables(argument)]
    if isinstance(expression, relax.Tuple):
        return [v for f in expression.fields for v in free_variables(f)]
    if isinstance(expression, relax.TupleGetItem):
        return free_variables(expression.tuple_value)
    if isinstance(expression, relax.If | relax.Function | relax.SeqExpr):
        return list(relax.analysis.free_vars(expression))
    return []


def constant(expression: relax.Expr) -> np.ndarray | None:
    """A constant tensor as a read-only array that shares its memory, or None."""
    # Element types and other arguments of calls are constants of this class too.
    if not isinstance(expression, GenericConst) or not isinstance(expression.value, tvm.runtime.Tensor):
        return None
    try:
        array = np.from_dlpack(expression.value)
    except (BufferError, TypeError, RuntimeError):  # element types that numpy does not exchange
        return expression.value.numpy()
    array.flags.writeable = False
    return array
