"""The operators ``tvm_sparse.hard_swish`` and ``tvm_sparse.hard_sigmoid``.

Relax has none, and as chains of elementwise operators they could not be fused into layers.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax, te, topi

HARD_SWISH = "tvm_sparse.hard_swish"
HARD_SIGMOID = "tvm_sparse.hard_sigmoid"


def hard_swish(x: relax.Expr) -> relax.Call:
    """``x * clip(x + 3, 0, 6) / 6`` of a floating-point tensor."""
    return relax.Call(tvm.ir.Op.get(HARD_SWISH), [x], tvm.ir.make_node("ir.DictAttrs"))


def hard_sigmoid(x: relax.Expr) -> relax.Call:
    """``clip(x + 3, 0, 6) / 6`` of a floating-point tensor."""
    return relax.Call(tvm.ir.Op.get(HARD_SIGMOID), [x], tvm.ir.make_node("ir.DictAttrs"))


def _hard_sigmoid(x: te.Tensor) -> te.Tensor:
    shifted = topi.add(x, tvm.tirx.const(3.0, x.dtype))
    return topi.multiply(topi.clip(shifted, 0.0, 6.0), tvm.tirx.const(1.0 / 6.0, x.dtype))


def _hard_swish(x: te.Tensor) -> te.Tensor:
    return topi.multiply(x, _hard_sigmoid(x))


def _register(name: str, description: str, compute: Any) -> None:
    if name in {str(known) for known in tvm.get_global_func("ir.ListOpNames")()}:
        return

    def legalize(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        return builder.call_te(compute, call.args[0], primfunc_name_hint=name.rpartition(".")[2])

    tvm.get_global_func("ir.RegisterOp")(name, description)
    tvm.ir.register_op_attr(name, "FInferType", lambda call, _context: call.args[0].ty)
    tvm.ir.register_op_attr(name, "FPurity", True)
    tvm.ir.register_op_attr(name, "FLegalize", legalize)


_register(HARD_SWISH, "x * clip(x + 3, 0, 6) / 6", _hard_swish)
_register(HARD_SIGMOID, "clip(x + 3, 0, 6) / 6", _hard_sigmoid)
