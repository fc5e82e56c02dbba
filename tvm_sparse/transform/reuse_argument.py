"""ReuseArgument: a kernel writes its output over an argument that nobody reads later."""

from __future__ import annotations

from collections import Counter

import tvm
import tvm_ffi
from tvm import relax

from .context import CompileContext, Kernel
from .graph import free_variables
from .rewrite import change_functions


@tvm.transform.module_pass(opt_level=1, name="ReuseArgument")
class ReuseArgument:
    """Let a kernel write its output over its residual, or a depth-wise layer over its input, at their last use.

    A fresh output costs a third pass over memory: its lines are fetched before they are written. It runs between
    ``CallTIRRewrite``, which makes allocations explicit, and the memory planner, which sees one tensor with a longer
    life.

    Parameters
    ----------
    context : CompileContext
        Kernels of the compilation; those with an attribute ``shared_argument`` (the position of the argument that
        may be overwritten) support it.
    """

    def __init__(self, context: CompileContext):
        self.context = context

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite every Relax function.

        Parameters
        ----------
        mod : tvm.IRModule
            Module with explicit allocations and no dataflow blocks.

        Returns
        -------
        tvm.IRModule
            The module.
        """
        return change_functions(mod, lambda function: _Reuse(function, self.context.kernels).run())


class _Reuse:
    """Aliases and last uses of the tensors that one function allocates."""

    def __init__(self, function: relax.Function, kernels: dict[str, Kernel]):
        self.function = function
        self.kernels = kernels
        self.bindings = [binding for block in function.body.blocks for binding in block.bindings]
        self.root: dict[relax.Var, relax.Var] = {}
        self.allocation: dict[relax.Var, relax.Call] = {}
        self.last_use: dict[relax.Var, int] = {}
        self.escaped: set[relax.Var] = set()
        self.written: Counter[relax.Var] = Counter()

    def run(self) -> relax.Function:
        """The function with outputs in place of arguments."""
        for index, binding in enumerate(self.bindings):
            self._look_at(index, binding)
        for variable in free_variables(self.function.body.body):
            self.escaped.add(self._root(variable))
        replaced: dict[relax.Var, relax.Var] = {}
        for index, binding in enumerate(self.bindings):
            pair = self._output_and_argument(index, binding.value)
            if pair is not None:
                output, argument = (self._root(v) for v in pair)
                replaced[output] = replaced.get(argument, argument)
        if not replaced:
            return self.function
        kept = [binding for binding in self.bindings if binding.var not in replaced]
        body = relax.SeqExpr([relax.BindingBlock(kept)], self.function.body.body)
        body = tvm_ffi.structural_map(body, (relax.Var, lambda variable: replaced.get(variable, variable)))
        old = self.function
        return relax.Function(old.params, body, old.ret_ty, old.is_pure, old.attrs)

    def _root(self, variable: relax.Var) -> relax.Var:
        return self.root.get(variable, variable)

    def _look_at(self, index: int, binding: relax.Binding) -> None:
        value = binding.value
        if isinstance(value, relax.Var):
            self.root[binding.var] = self._root(value)
            return
        if _is_allocation(value):
            self.allocation[binding.var] = value
        known = self._kernel(value) is not None
        if known and isinstance(value.args[-1], relax.Var):
            self.written[self._root(value.args[-1])] += 1
        for variable in free_variables(value):
            root = self._root(variable)
            self.last_use[root] = index
            if not known:
                # Tuples, views and functions of others may keep the tensor under another name.
                self.escaped.add(root)

    def _kernel(self, value: relax.Expr) -> Kernel | None:
        if isinstance(value, relax.Call) and isinstance(value.op, relax.ExternFunc):
            return self.kernels.get(value.op.global_symbol)
        return None

    def _output_and_argument(self, index: int, value: relax.Expr) -> tuple[relax.Var, relax.Var] | None:
        kernel = self._kernel(value)
        shared = getattr(kernel, "shared_argument", None)
        if shared is None:
            return None
        output, argument = value.args[-1], value.args[shared]
        if not isinstance(output, relax.Var) or not isinstance(argument, relax.Var):
            return None
        root, target = self._root(argument), self._root(output)
        others = [self._root(v) for i, a in enumerate(value.args) if i != shared for v in free_variables(a)]
        if root not in self.allocation or target not in self.allocation or root in self.escaped | set(others):
            return None
        if self.written[target] > 1:
            # Rows of the argument may be read by later calls.
            return None
        same = tvm_ffi.structural_equal(self.allocation[root], self.allocation[target])
        return (output, argument) if same and self.last_use[root] == index else None


def _is_allocation(value: relax.Expr) -> bool:
    return isinstance(value, relax.Call) and getattr(value.op, "name", "") == "relax.builtin.alloc_tensor"
