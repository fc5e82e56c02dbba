"""AllocateEmptyConstants: constants without elements are allocated, since a compiled module cannot hold them."""

from __future__ import annotations

import tvm
from tvm import relax
from tvm.ir import GenericConst

from .replace_constants import replace_constants


@tvm.transform.module_pass(opt_level=0, name="AllocateEmptyConstants")
class AllocateEmptyConstants:
    """Allocate each constant tensor that has an extent of 0 where a function begins.

    TVM writes such a constant into a library but refuses to read it back. Runs between ``CallTIRRewrite``, which
    makes allocations explicit, and the planning of memory.
    """

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Replace the constants of every Relax function."""
        updates = {}
        for gv, function in mod.functions_items():
            if isinstance(function, relax.Function):
                new = replace_constants(function, _allocation)
                if not new.same_as(function):
                    updates[gv] = new
        if not updates:
            return mod
        mod = mod.clone()
        for gv, function in updates.items():
            mod.update_func(gv, function)
        return mod


def _allocation(const: GenericConst) -> relax.Expr | None:
    shape = tuple(const.value.shape)
    if 0 not in shape:
        return None
    call = relax.op.builtin.alloc_tensor(relax.ShapeExpr(shape), str(const.value.dtype), 0)
    return relax.BlockBuilder().normalize(call)
