"""AttentionForm: softmax(Q K^T) V in all the forms that exporters give becomes ``relax.nn.attention``."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tvm
from tvm import relax

from ..graph import constant
from ..rewrite import Rewriter, dtype_of, operator_name, rewrite_module, scalar, shape_of, tensor
from .merge_views import merge_chain

_RESHAPE, _PERMUTE = "relax.reshape", "relax.permute_dims"
# A fill value at or below this absorbs every score in float32: filling is the same as adding it.
_ABSORBING = -1e9
# Stands for minus infinity in biases: no weight is left next to any score, and sums stay finite.
_MASKED = -1e30


@tvm.transform.module_pass(opt_level=0, name="AttentionForm")
class AttentionForm:
    """Recognise attention and write it as ``relax.nn.attention(q, k, v[, bias], scale)``.

    Queries, keys and values become ``[B, T, H, D]``, so that the transposes around attention meet those of
    the heads and vanish. Scales on queries, keys or scores become one scale; masks that are added, or filled
    in with a value that leaves no weight, become the bias. Attention whose weights are read elsewhere stays.
    """

    def transform_module(self, module: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Rewrite every Relax function."""
        return rewrite_module(module, _attention, merge_chain)


@dataclass
class _Scores:
    """What a chain from the softmax down to the product of queries and keys computes."""

    product: relax.Call
    shape: tuple[int, ...]
    scale: float = 1.0
    biases: list[relax.Expr] = field(default_factory=list)


def _attention(rewriter: Rewriter, _variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
    if operator_name(value) != "relax.matmul" or not dtype_of(value).startswith("float"):
        return None
    weights, is_guarded = _weights(rewriter, value.args[0])
    softmax = rewriter.call(weights, "relax.nn.softmax") if weights is not None else None
    rank = len(shape_of(softmax) or ()) if softmax is not None else 0
    if softmax is None or rank not in (3, 4) or int(softmax.attrs.axis) % rank != rank - 1:
        return None
    scores = _scores(rewriter, softmax.args[0])
    if scores is None:
        return None
    heads = _batch_and_heads(rewriter, scores)
    operands = _operands(rewriter, scores, value.args[1], heads) if heads is not None else None
    if heads is None or operands is None:
        return None
    q, k, v, scale = operands
    bias, dead = _bias(rewriter, scores, (*heads, *scores.shape[-2:]), is_guarded, dtype_of(value))
    if bias is None and scores.biases:
        return None
    result = relax.op.nn.attention(q, k, v, bias, scale)
    if dead is not None:
        result = relax.op.where(dead, tensor(np.zeros((), dtype_of(value))), result)
    return relax.op.reshape(relax.op.permute_dims(result, [0, 2, 1, 3]), shape_of(value))


def _weights(rewriter: Rewriter, expression: relax.Expr) -> tuple[relax.Expr | None, bool]:
    """The softmax behind reshapes and a guard against rows without any key; whether there is a guard."""
    expression = _behind_reshapes(rewriter, expression)
    guard = rewriter.call(expression, "relax.where")
    if guard is None:
        return (expression if rewriter.only_use(expression) else None), False
    condition, filled, weights = guard.args
    weights = rewriter.resolve(weights)
    users = {user for user in rewriter.users(weights) if not rewriter.producer(user).same_as(guard)}
    if not _is_zero(rewriter, filled) or rewriter.is_output(weights):
        return None, False
    is_nan = rewriter.call(condition, "relax.isnan")
    if is_nan is not None and rewriter.resolve(is_nan.args[0]).same_as(weights):
        others = {user for user in users if not rewriter.producer(user).same_as(is_nan)}
        return (weights, True) if not others else (None, False)
    is_only_shape = all(operator_name(rewriter.producer(user)).endswith("_like") for user in users)
    softmax = rewriter.call(weights, "relax.nn.softmax")
    if softmax is not None and is_only_shape and _no_finite_score(rewriter, condition, softmax.args[0]):
        return weights, True
    return None, False


def _no_finite_score(rewriter: Rewriter, condition: relax.Expr, scores: relax.Expr) -> bool:
    """Whether a condition is ``not any(not (scores == -inf))`` over the keys, as torch writes it."""
    for name in ("logical_not", "astype", "max", "astype", "logical_not"):
        call = rewriter.call(condition, f"relax.{name}")
        if call is None:
            return False
        condition = call.args[0]
    equal = rewriter.call(condition, "relax.equal")
    return (
        equal is not None
        and scalar(equal.args[1]) == -math.inf
        and rewriter.resolve(equal.args[0]).same_as(rewriter.resolve(scores))
    )


def _is_zero(rewriter: Rewriter, expression: relax.Expr) -> bool:
    if scalar(expression) == 0:
        return True
    fill = rewriter.call(expression, "relax.full_like", "relax.zeros_like")
    return fill is not None and (operator_name(fill) == "relax.zeros_like" or scalar(fill.args[1]) == 0)


def _behind_reshapes(rewriter: Rewriter, expression: relax.Expr) -> relax.Expr:
    """What a reshape of the batch and head axes alone is of."""
    while True:
        reshape = rewriter.call(expression, _RESHAPE)
        shape = shape_of(reshape) if reshape is not None else None
        source = shape_of(reshape.args[0]) if reshape is not None else None
        if shape is None or source is None or len(source) < 3 or shape[-2:] != source[-2:]:
            return rewriter.resolve(expression)
        expression = reshape.args[0]


def _scores(rewriter: Rewriter, expression: relax.Expr) -> _Scores | None:
    """Follow scores through scales and masks down to a product of two activations."""
    scale, biases, shape = 1.0, [], shape_of(expression)
    while shape is not None:
        expression = _behind_reshapes(rewriter, expression)
        found = shape_of(expression)
        # Masks are taken in the shape of four axes if there is one anywhere in the chain.
        shape = found if found is not None and len(found) == 4 else shape
        call = rewriter.producer(expression)
        name = operator_name(call)
        if name == "relax.matmul":
            return _Scores(call, shape, scale, biases)
        if name in ("relax.multiply", "relax.divide"):
            number = scalar(call.args[1])
            if not number:
                return None
            scale = scale * number if name == "relax.multiply" else scale / number
            expression = call.args[0]
        elif name in ("relax.add", "relax.where") and scale == 1:  # a scale above would scale the mask too
            step = _masked(rewriter, call, found)
            if step is None:
                return None
            expression, bias = step
            biases.append(bias)
        else:
            return None
    return None


def _masked(
    rewriter: Rewriter, call: relax.Call, shape: tuple[int, ...] | None
) -> tuple[relax.Expr, relax.Expr] | None:
    """Scores and bias of ``scores + mask`` or of scores with a value filled in."""
    if operator_name(call) == "relax.add":
        for scores, mask in (call.args, list(reversed(call.args))):
            if shape_of(scores) == shape and _leads_to_product(rewriter, scores):
                return scores, mask
        return None
    condition, a, b = call.args
    zero = tensor(np.zeros((), dtype_of(call)))
    for scores, fill, is_filled_where_true in ((b, a, True), (a, b, False)):
        number = scalar(fill)
        if number is None or shape_of(scores) != shape or not _leads_to_product(rewriter, scores):
            continue
        if number > _ABSORBING and not _is_partial(condition, is_filled_where_true, number):
            return None
        choices = (fill, zero) if is_filled_where_true else (zero, fill)
        return scores, relax.op.where(condition, *choices)
    return None


def _is_partial(condition: relax.Expr, is_filled_where_true: bool, number: float) -> bool:
    """Whether a constant mask leaves a key in every row, so that a lesser fill value is enough."""
    array = constant(condition)
    if array is None or number > -1e4:
        return False
    return bool((array if not is_filled_where_true else ~array).any(axis=-1).all())


def _leads_to_product(rewriter: Rewriter, expression: relax.Expr) -> bool:
    for _ in range(16):
        call = rewriter.producer(expression)
        name = operator_name(call)
        if name == "relax.matmul":
            return constant(call.args[1]) is None
        if name not in ("relax.add", "relax.multiply", "relax.divide", "relax.where", _RESHAPE):
            return False
        expression = next((a for a in call.args if shape_of(a) == shape_of(call)), call.args[0])
    return False


def _batch_and_heads(rewriter: Rewriter, scores: _Scores) -> tuple[int, int] | None:
    """Batch size and number of heads."""
    if len(scores.shape) == 4:
        return scores.shape[0], scores.shape[1]
    reshape = rewriter.call(scores.product.args[0], _RESHAPE)
    source = shape_of(reshape.args[0]) if reshape is not None else None
    if source is not None and len(source) == 4 and source[0] * source[1] == scores.shape[0]:
        return source[0], source[1]
    # Batch and heads in one axis: [T, B * H, D] transposed. They are all heads of one batch item.
    return 1, scores.shape[0]


def _operands(
    rewriter: Rewriter, scores: _Scores, values: relax.Expr, heads: tuple[int, int]
) -> tuple[relax.Expr, relax.Expr, relax.Expr, float] | None:
    """Queries, keys and values as ``[B, T, H, D]``, and the scale."""
    queries, keys = scores.product.args
    shapes = [shape_of(e) for e in (queries, keys, values)]
    if any(s is None or len(s) < 3 or math.prod(s[:-2]) != math.prod(heads) for s in shapes):
        return None
    queries, a = _without_scale(rewriter, queries)
    keys, b = _without_scale(rewriter, keys)
    (q, k, v) = (s[-2:] for s in shapes)  # type: ignore[index]
    return (
        relax.op.permute_dims(relax.op.reshape(queries, (*heads, *q)), [0, 2, 1, 3]),
        relax.op.permute_dims(relax.op.reshape(keys, (*heads, *k)), [0, 3, 1, 2]),
        relax.op.permute_dims(relax.op.reshape(values, (*heads, *v)), [0, 2, 1, 3]),
        scores.scale * a * b,
    )


def _without_scale(rewriter: Rewriter, expression: relax.Expr) -> tuple[relax.Expr, float]:
    """A tensor without a constant factor, looked for behind reshapes and transposes too."""
    call = rewriter.producer(expression)
    name = operator_name(call)
    if name in ("relax.multiply", "relax.divide"):
        number = scalar(call.args[1])
        if not number or shape_of(call.args[0]) != shape_of(call):
            return expression, 1.0
        inner, scale = _without_scale(rewriter, call.args[0])
        return inner, scale * number if name == "relax.multiply" else scale / number
    if name in (_RESHAPE, _PERMUTE):
        inner, scale = _without_scale(rewriter, call.args[0])
        if scale != 1:
            return relax.Call(call.op, [inner, *call.args[1:]], call.attrs), scale
    return expression, 1.0


def _bias(
    rewriter: Rewriter, scores: _Scores, shape: tuple[int, ...], is_guarded: bool, dtype: str
) -> tuple[relax.Expr | None, relax.Expr | None]:
    """The sum of the masks as a tensor of four axes, and where rows ``[B, T, H, 1]`` have no key at all.

    The second is needed only where the model guards against such rows and the masks are not constant.
    """
    total: relax.Expr | None = None
    for mask in scores.biases:
        mask = rewriter.emit(mask)
        extents = shape_of(mask)
        if extents is None or len(extents) > 4 or dtype_of(mask) != dtype:
            return None, None
        if len(extents) == 3 and len(scores.shape) == 3 and extents[0] == shape[0] * shape[1]:
            mask = rewriter.emit(relax.op.reshape(mask, (*shape[:2], *extents[1:])))
        elif len(extents) < 4:
            mask = rewriter.emit(relax.op.reshape(mask, (*[1] * (4 - len(extents)), *extents)))
        total = mask if total is None else rewriter.emit(relax.op.add(total, mask))
    if total is None:
        return None, None
    extents = shape_of(total) or ()
    if any(extent not in (1, full) for extent, full in zip(extents, shape, strict=True)):
        return None, None
    if extents[-1] != shape[-1]:
        total = rewriter.emit(relax.op.broadcast_to(total, (*extents[:-1], shape[-1])))
    array = _evaluated(rewriter, total)
    if array is not None:
        if is_guarded and (array == -math.inf).all(axis=-1).any():
            return None, None
        return tensor(np.maximum(array, np.asarray(_MASKED, array.dtype))), None
    if not is_guarded:
        return total, None
    # Not max(total) == -inf: the maximum of minus infinities alone is the lowest finite number in TVM.
    is_open = relax.op.astype(relax.op.not_equal(total, tensor(np.asarray(-math.inf, dtype))), dtype)
    count = relax.op.permute_dims(relax.op.max(is_open, axis=-1, keepdims=True), [0, 2, 1, 3])
    dead = relax.op.equal(count, tensor(np.asarray(0, dtype)))
    return relax.op.maximum(total, tensor(np.asarray(_MASKED, dtype))), dead


def _evaluated(rewriter: Rewriter, expression: relax.Expr) -> np.ndarray | None:
    """A constant, also behind what `_masked` and `_bias` put around one."""
    array = constant(expression)
    if array is not None:
        return array
    call = rewriter.producer(expression)
    name = operator_name(call)
    if name not in ("relax.where", "relax.add", _RESHAPE, "relax.broadcast_to"):
        return None
    if name == "relax.broadcast_to":
        inner = _evaluated(rewriter, call.args[0])
        return None if inner is None else np.broadcast_to(inner, shape_of(call) or ())
    if name == _RESHAPE:
        inner = _evaluated(rewriter, call.args[0])
        return None if inner is None else inner.reshape(shape_of(call) or ())
    arrays = [_evaluated(rewriter, argument) for argument in call.args]
    if any(a is None for a in arrays):
        return None
    return np.where(*arrays) if name == "relax.where" else arrays[0] + arrays[1]
