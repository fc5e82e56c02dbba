"""FastMath: transcendental functions of float32 become polynomials, so that vectorised loops stay vector code."""

from __future__ import annotations

from collections.abc import Callable

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir import Call, Expr

from tvm_sparse.schedules.cpu import math as fast

_UNARY: dict[str, Callable[[Expr], Expr]] = {
    "tirx.exp": fast.exp,
    "tirx.exp2": fast.exp2,
    "tirx.log": fast.log,
    "tirx.tanh": fast.tanh,
    "tirx.sigmoid": fast.sigmoid,
    "tirx.erf": fast.erf,
    "tirx.cosh": fast.cosh,
    "tirx.sinh": fast.sinh,
}


@tvm.transform.module_pass(opt_level=0, name="FastMath")
class FastMath:
    """Replace calls of exp, exp2, log, tanh, sigmoid, erf and constant powers on float32 by vector code.

    LLVM has vector code for none of them: a vectorised loop would call libm once a lane. Other data types keep
    libm's functions. Run it after scheduling and before loops are vectorised.
    """

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite every PrimFunc of a module.

        Parameters
        ----------
        mod : tvm.IRModule
            Relax functions in it are kept as they are.

        Returns
        -------
        tvm.IRModule
            The module with rewritten PrimFuncs.
        """
        changed = {}
        for gv, func in mod.functions_items():
            if isinstance(func, tirx.PrimFunc):
                body = replace_calls(func.body)
                if not body.same_as(func.body):
                    changed[gv] = func.with_body(body, func.span)
        if not changed:
            return mod
        mod = mod.clone()
        for gv, func in changed.items():
            mod.update_func(gv, func)
        return mod


def replace_calls(node: tirx.Stmt | Expr) -> tirx.Stmt | Expr:
    """Replace the calls in one statement or expression.

    Parameters
    ----------
    node : Stmt or Expr
        TIR before vectorisation.

    Returns
    -------
    Stmt or Expr
        The same tree with polynomials in place of the calls.
    """
    return tvm_ffi.structural_map(node, (Call, _replace), order="post")


def _replace(call: Call) -> Expr:
    name = getattr(call.op, "name", None)
    if name is None or not str(call.ty).startswith("float32"):
        return call
    if name in _UNARY:
        return _UNARY[name](call.args[0])
    if name == "tirx.pow":
        exponent = call.args[1]
        if isinstance(exponent, tirx.Broadcast):
            exponent = exponent.value
        if isinstance(exponent, tirx.FloatImm | tirx.IntImm):
            power = fast.power(call.args[0], float(exponent.value))
            return call if power is None else power
    return call
