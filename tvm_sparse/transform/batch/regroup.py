"""The operator that does for a group of items what another does for the whole batch."""

from __future__ import annotations

from collections.abc import Sequence

from tvm import relax

from tvm_sparse.errors import TvmSparseError

from .roles import result_shapes

# Operators whose second argument is the shape of the result.
_SHAPED = ("relax.reshape", "relax.broadcast_to")
# Operators that rewrite to a reshape: written with axes, they might drop the first one where a group has one row.
_VIEWS = ("relax.squeeze", "relax.flatten", "relax.nn.batch_flatten")


def of_group(shape: Sequence[int], batch: int, group: int) -> tuple[int, ...]:
    """Shape of a group of items of a tensor whose first axis holds `batch` items."""
    return (shape[0] // batch * group, *shape[1:])


def regroup(
    builder: relax.BlockBuilder, call: relax.Call, arguments: Sequence[relax.Expr], batch: int, group: int
) -> relax.Expr:
    """The call for a group of items.

    Parameters
    ----------
    builder : relax.BlockBuilder
        Infers the type.
    call : relax.Call
        A call that treats items apart.
    arguments : sequence of Expr
        Its arguments for the group.
    batch, group : int
        Items that `call` computes, and items of the group.

    Returns
    -------
    Expr
        The call with its type.

    Raises
    ------
    TvmSparseError
        If its result is not that of a group, which would be an error in the operator's rule.
    """
    wanted = [of_group(shape, batch, group) for shape in result_shapes(call)]
    name = str(getattr(call.op, "name", ""))
    if name in _VIEWS:
        new: relax.Expr = relax.op.reshape(arguments[0], wanted[0])
    elif name in _SHAPED:
        new = relax.Call(call.op, [arguments[0], relax.ShapeExpr(wanted[0])], call.attrs, call.ty_args)
    else:
        new = relax.Call(call.op, list(arguments), call.attrs, call.ty_args)
    new = builder.normalize(new)
    if result_shapes(new) != wanted:
        raise TvmSparseError(f"{name} of {group} of {batch} items gives {new.ty}, not {wanted}")
    return new
