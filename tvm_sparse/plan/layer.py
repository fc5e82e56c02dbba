"""What the packers take and give: a convolution with constant weights, a kernel with its arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tvm_sparse.layout.halo import Window
from tvm_sparse.schedules.cpu.epilogue import Activation

from .stripes import Stripes


@dataclass(frozen=True)
class Convolution:
    """A convolution (or linear layer, as 1x1) with constant weights.

    Parameters
    ----------
    weight : numpy.ndarray
        float32 ``[M, C / groups, kh, kw]``.
    bias : numpy.ndarray
        float32 ``[M]``.
    window : Window
        Kernel, stride, dilation, padding.
    groups : int
        Groups.
    activation : Activation
        Applied to the sums (after the residual).
    slopes : numpy.ndarray, optional
        Per-channel slopes of a PReLU.
    residual : bool
        Whether a tensor of the output's shape is added before the activation.
    """

    weight: np.ndarray
    bias: np.ndarray
    window: Window
    groups: int = 1
    activation: Activation = Activation()
    slopes: np.ndarray | None = None
    residual: bool = False

    @property
    def depthwise(self) -> bool:
        """Whether every group has one input channel."""
        return self.groups > 1 and self.weight.shape[1] == 1

    @property
    def pointwise(self) -> bool:
        """Whether it reads single pixels in place: 1x1, no stride, no padding."""
        return (
            self.window.kernel == (1, 1)
            and self.window.stride == (1, 1)
            and not any(self.window.padding)
        )


@dataclass(frozen=True)
class PackedLayer:
    """A kernel with the arrays that make it a layer.

    Parameters
    ----------
    kernel : object
        Kernel of a family in :mod:`tvm_sparse.schedules`.
    arrays : tuple of numpy.ndarray
        Constant arguments, in call order after the activations.
    stripes : Stripes, optional
        How to run the kernel in parts; None where it cannot be. The table is the last of the arrays.
    nbytes : int
        Bytes of the arrays.
    """

    kernel: Any
    arrays: tuple[np.ndarray, ...]
    stripes: Stripes | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the constant arrays."""
        return sum(array.nbytes for array in self.arrays)
