"""Constants of a function replaced by values that are bound at its start."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tvm
import tvm_ffi
from tvm import relax
from tvm.ir import GenericConst


def replace_constants(
    function: relax.Function, replacement: Callable[[GenericConst], relax.Expr | None]
) -> relax.Function:
    """Replace constant tensors of a function.

    Parameters
    ----------
    function : relax.Function
        Function whose body is a sequence of binding blocks.
    replacement : callable
        Called once for each constant; returns the value that takes its place, with a type, or None to leave it.
        A variable is used as it is.

    Returns
    -------
    relax.Function
        The same function if nothing was replaced.
    """
    replaced: dict[GenericConst, relax.Expr] = {}
    bindings: list[relax.Binding] = []

    def visit(const: GenericConst) -> relax.Expr:
        # Element types and other arguments of calls are constants of this class too.
        if not isinstance(const.value, tvm.runtime.Tensor):
            return const
        if const not in replaced:
            value = replacement(const)
            replaced[const] = const if value is None else value
            if value is not None and not isinstance(value, relax.Var):
                replaced[const] = relax.Var("constant", const.ty)
                bindings.append(relax.VarBinding(replaced[const], value))
        return replaced[const]

    body = tvm_ffi.structural_map(function.body, (GenericConst, visit))
    if all(const.same_as(value) for const, value in replaced.items()):
        return function
    return relax.Function(
        function.params, bind_first(bindings, body), function.ret_ty, function.is_pure, function.attrs
    )


def bind_first(bindings: Sequence[relax.Binding], body: relax.SeqExpr) -> relax.SeqExpr:
    """The body with bindings at its start, where all of it, branches of an ``If`` too, may read them."""
    if not bindings:
        return body
    first, *rest = body.blocks or [relax.BindingBlock([])]
    if isinstance(first, relax.DataflowBlock):
        blocks = [relax.BindingBlock(bindings), first]
    else:
        blocks = [relax.BindingBlock([*bindings, *first.bindings])]
    # Infers the types that a new body lacks.
    return relax.BlockBuilder().normalize(relax.SeqExpr([*blocks, *rest], body.body))
