"""DecomposeTransposedConvolution: transposed convolutions become convolutions followed by a depth-to-space."""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from .graph import constant
from .ops import DEPTH_TO_SPACE, make_layer, static_shape


@tvm.transform.module_pass(opt_level=0, name="DecomposeTransposedConvolution")
class DecomposeTransposedConvolution:
    """Rewrite ``conv2d_transpose`` with constant weights.

    Output pixel ``q = s * j + r`` (before cropping the padding) reads the taps ``r, r + s, ...`` of the kernel: for
    each of the ``s * s`` remainders a convolution of stride 1 with ``ceil(k / s)`` taps. All are one convolution
    with ``s * s`` times the channels; nothing is multiplied with inserted zeros.
    """

    def transform_module(self, module: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Rewrite every Relax function."""
        rewriter = _Rewriter(module)
        for name, function in module.functions_items():
            if isinstance(function, relax.Function):
                rewriter.builder_.update_func(name, rewriter.visit_expr(function))
        return rewriter.builder_.get()


@mutator
class _Rewriter(PyExprMutator):
    def visit_call_(self, call: relax.Call) -> relax.Expr:
        """Rewrite one call."""
        call = super().visit_call_(call)
        if getattr(call.op, "name", "") != "relax.nn.conv2d_transpose":
            return call
        weight, x_shape, shape = constant(call.args[1]), static_shape(call.args[0]), static_shape(call)
        attrs = call.attrs
        if weight is None or x_shape is None or shape is None or call.ty.dtype != "float32":
            return call
        if attrs.data_layout != "NCHW" or attrs.kernel_layout != "IOHW":
            return call
        strides, dilation = ([int(v) for v in getattr(attrs, name)] for name in ("strides", "dilation"))
        padding = [int(p) for p in attrs.padding]
        padding = padding * 2 if len(padding) == 2 else padding
        groups = int(attrs.groups)
        weight = _dilate(weight, dilation)
        phases, taps = phase_weights(weight, strides, groups)
        size = shape[2:]
        # The convolution reaches `taps - 1` pixels beyond the image; an output padding may ask for more rows of zeros.
        rows = [max(x_shape[2 + i] + taps[i] - 1, -(-(padding[i] + size[i]) // strides[i])) for i in range(2)]
        after = [rows[i] - x_shape[2 + i] for i in range(2)]
        convolved = self.builder_.emit(
            relax.op.nn.conv2d(
                call.args[0],
                relax.const(phases),
                padding=(taps[0] - 1, taps[1] - 1, after[0], after[1]),
                groups=groups,
            )
        )
        attributes = {"block": strides, "order": "CRD", "crop": padding[:2], "size": list(size)}
        return make_layer(DEPTH_TO_SPACE, [convolved], attributes)


def phase_weights(weight: np.ndarray, strides: list[int], groups: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Weights of the convolution that computes every remainder of a transposed one.

    Parameters
    ----------
    weight : numpy.ndarray
        ``[C, M / groups, kh, kw]``.
    strides : list of int
        Vertical and horizontal stride.
    groups : int
        Groups.

    Returns
    -------
    numpy.ndarray
        ``[M * sy * sx, C / groups, ceil(kh / sy), ceil(kw / sx)]``, the remainders innermost in the channels.
    tuple of int
        Taps down and across.
    """
    channels, per_group, kh, kw = weight.shape
    sy, sx = strides
    taps = (-(-kh // sy), -(-kw // sx))
    padded = np.zeros((channels, per_group, taps[0] * sy, taps[1] * sx), np.float32)
    padded[:, :, :kh, :kw] = weight
    # [groups, C / groups, M / groups, tap y, remainder y, tap x, remainder x]; taps run backwards in a convolution.
    split = padded.reshape(groups, channels // groups, per_group, taps[0], sy, taps[1], sx)[
        :, :, :, ::-1, :, ::-1
    ]
    out = split.transpose(0, 2, 4, 6, 1, 3, 5)
    return np.ascontiguousarray(out.reshape(groups * per_group * sy * sx, channels // groups, *taps)), taps


def _dilate(weight: np.ndarray, dilation: list[int]) -> np.ndarray:
    kh, kw = ((k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilation, strict=True))
    out = np.zeros((*weight.shape[:2], kh, kw), np.float32)
    out[:, :, :: dilation[0], :: dilation[1]] = weight
    return out
