"""Conv1dToConv2d: networks over one axis become networks over images of height one."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax

from ..graph import constant
from ..rewrite import Rewriter, integers, operator_name, rewrite_module, shape_of, tensor
from .elementwise import BINARY, UNARY
from .merge_views import merge_chain

_RESHAPE = "relax.reshape"


@tvm.transform.module_pass(opt_level=0, name="Conv1dToConv2d")
class Conv1dToConv2d:
    """Rewrite ``conv1d``, its transpose and 1-D poolings of ``[N, C, W]`` to 2-D ones of ``[N, C, 1, W]``.

    Elementwise operators, sums and concatenations between them follow, so that reshapes are left only where a
    chain begins and ends.
    """

    def transform_module(self, module: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Rewrite every Relax function."""
        return rewrite_module(module, merge_chain, _convolution, _pooling, _elementwise, _concatenation)


def _flat(image: relax.Expr, value: relax.Expr) -> relax.Expr:
    return relax.op.reshape(image, shape_of(value))


def _image(rewriter: Rewriter, x: relax.Expr) -> relax.Expr:
    """``x [N, C, W]`` as ``[N, C, 1, W]``."""
    lifted = _lifted(rewriter, x)
    if lifted is not None:
        return lifted
    shape = shape_of(x)
    assert shape is not None
    return relax.op.reshape(x, (*shape[:2], 1, shape[2]))


def _lifted(rewriter: Rewriter, x: relax.Expr) -> relax.Expr | None:
    """The image ``[N, C, 1, W]`` that ``x [N, C, W]`` was reshaped from."""
    view = rewriter.call(x, _RESHAPE)
    source, shape = (shape_of(view.args[0]), shape_of(view)) if view is not None else (None, None)
    if source is None or shape is None or len(shape) != 3 or source != (*shape[:2], 1, shape[2]):
        return None
    made = operator_name(rewriter.producer(view.args[0]))
    # Only what this pass made: other reshapes of this kind are the model's own and not worth following.
    return view.args[0] if made.endswith("2d") or made.endswith("2d_transpose") or _follows(made) else None


def _follows(name: str) -> bool:
    return name in UNARY or name in BINARY or name in ("relax.concat", "relax.nn.prelu")


def _convolution(rewriter: Rewriter, _variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
    name = operator_name(value)
    if name not in ("relax.nn.conv1d", "relax.nn.conv1d_transpose") or shape_of(value) is None:
        return None
    attrs, weight, shape = value.attrs, constant(value.args[1]), shape_of(value.args[0])
    if (
        weight is None
        or shape is None
        or str(attrs.data_layout) != "NCW"
        or str(attrs.out_layout) not in ("NCW", "")
    ):
        return None
    left, right = (integers(attrs.padding) or [0]) * (3 - len(integers(attrs.padding) or [0]))
    common: dict[str, Any] = {
        "strides": [1, *(integers(attrs.strides) or [])],
        "padding": [0, left, 0, right],
        "dilation": [1, *(integers(attrs.dilation) or [])],
        "groups": int(attrs.groups),
    }
    arguments = (_image(rewriter, value.args[0]), tensor(weight[:, :, None, :]))
    if name == "relax.nn.conv1d":
        if str(attrs.kernel_layout) != "OIW":
            return None
        return _flat(relax.op.nn.conv2d(*arguments, **common), value)
    if str(attrs.kernel_layout) != "IOW":
        return None
    common["output_padding"] = [0, *(integers(attrs.output_padding) or [0])]
    return _flat(relax.op.nn.conv2d_transpose(*arguments, **common), value)


def _pooling(rewriter: Rewriter, _variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
    name = operator_name(value)
    if name not in ("relax.nn.max_pool1d", "relax.nn.avg_pool1d") or shape_of(value) is None:
        return None
    image, attrs = _lifted(rewriter, value.args[0]), value.attrs
    if image is None or str(attrs.layout) != "NCW":
        return None
    left, right = (integers(attrs.padding) or [0]) * (3 - len(integers(attrs.padding) or [0]))
    pool = relax.op.nn.max_pool2d if name == "relax.nn.max_pool1d" else relax.op.nn.avg_pool2d
    result = pool(
        image,
        pool_size=[1, *(integers(attrs.pool_size) or [])],
        strides=[1, *(integers(attrs.strides) or [])],
        padding=[0, left, 0, right],
        dilation=[1, *(integers(attrs.dilation) or [])],
        ceil_mode=bool(attrs.ceil_mode),
        count_include_pad=bool(attrs.count_include_pad),
    )
    return _flat(result, value)


def _elementwise(rewriter: Rewriter, _variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
    name, shape = operator_name(value), shape_of(value) if isinstance(value, relax.Call) else None
    if shape is None or len(shape) != 3:
        return None
    if name in UNARY or (name == "relax.nn.prelu" and int(value.attrs.axis) % 3 == 1):
        image = _lifted(rewriter, value.args[0])
        if image is None:
            return None
        return _flat(relax.Call(value.op, [image, *value.args[1:]], value.attrs), value)
    if name not in BINARY:
        return None
    operands = [_operand(rewriter, argument, shape) for argument in value.args]
    if None in operands or all(isinstance(operand, tvm.ir.GenericConst) for operand in operands):
        return None
    return _flat(relax.Call(value.op, operands, value.attrs), value)


def _operand(rewriter: Rewriter, x: relax.Expr, shape: tuple[int, ...]) -> relax.Expr | None:
    """An operand of four axes: an image of the result's shape, or a constant."""
    array = constant(x)
    if array is not None:
        return tensor(array[..., None, :]) if array.ndim else x
    return _lifted(rewriter, x) if shape_of(x) == shape else None


def _concatenation(rewriter: Rewriter, _variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
    shape = shape_of(value) if operator_name(value) == "relax.concat" else None
    if shape is None or len(shape) != 3 or not isinstance(value.args[0], relax.Tuple):
        return None
    images = [_lifted(rewriter, field) for field in value.args[0].fields]
    if None in images:
        return None
    axis = (0, 1, 3)[int(value.attrs.axis) % 3]
    return _flat(relax.op.concat(images, axis), value)
