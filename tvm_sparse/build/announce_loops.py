"""AnnounceLoops: tells the launcher of parallel loops how many iterations the next one has."""

from __future__ import annotations

import tvm
import tvm_ffi
from tvm import tirx

# The launcher's function, in launch.c.
_ANNOUNCE = "tvm_sparse_announce_loop"


@tvm.transform.module_pass(opt_level=0, name="AnnounceLoops")
class AnnounceLoops:
    """Put a call of the launcher's ``tvm_sparse_announce_loop(extent)`` before each parallel loop.

    TVM hands its launcher the body of a loop without its extent, and the body takes a part of the loop for any number
    of parts. To cut it into parts of few iterations, none of them empty, the launcher has to know the extent. Code with
    these calls must be linked with the launcher: see :func:`tvm_sparse.build.native.native_objects`.
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
            The module with announced loops.
        """
        changed = {gv: func for gv, func in mod.functions_items() if isinstance(func, tirx.PrimFunc)}
        if not changed:
            return mod
        mod = mod.clone()
        for gv, func in changed.items():
            mod.update_func(gv, announce_loops(func))
        return mod


def announce_loops(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """A function with announced loops, as `AnnounceLoops` makes it.

    Parameters
    ----------
    func : PrimFunc
        A function before lowering.

    Returns
    -------
    PrimFunc
        The same function if it has no parallel loop.
    """
    body = tvm_ffi.structural_map(func.body, (tirx.For, _announce), order="post")
    return func if body.same_as(func.body) else func.with_body(body, func.span)


def _announce(loop: tirx.For) -> tirx.Stmt:
    if loop.kind != tirx.ForKind.PARALLEL:
        return loop
    call = tirx.call_extern("int32", _ANNOUNCE, loop.extent.astype("int64"))
    return tirx.SeqStmt([tirx.Evaluate(call), loop])
