"""Canonicalisation: one normal form for what the front ends and exporters give."""

from __future__ import annotations

import tvm

from .attention_form import AttentionForm
from .conv1d_to_conv2d import Conv1dToConv2d
from .fold_batch_norm import FoldBatchNorm
from .fold_constants import FoldConstants
from .fold_padding import FoldPadding
from .linear_form import LinearForm
from .merge_parallel_linears import MergeParallelLinears
from .merge_views import MergeViews
from .narrow_to_slices import NarrowToSlices
from .recognize_activations import RecognizeActivations
from .recognize_norms import RecognizeNorms
from .resize_after_pointwise import ResizeAfterPointwise
from .simplify import Simplify

__all__ = ["canonicalize_passes"]


def canonicalize_passes() -> list[tvm.transform.Pass]:
    """The canonicalisation passes, in order.

    Returns
    -------
    list of tvm.transform.Pass
        Module passes; each leaves a module in which nothing matches as it is.
    """
    return [
        FoldConstants(),
        Simplify(),
        MergeViews(),
        # Whole formulas, while they are still written as exporters write them.
        RecognizeNorms(),
        RecognizeActivations(),
        # Views move out of the way of linear layers; what meets then merges.
        LinearForm(),
        MergeViews(),
        AttentionForm(),
        LinearForm(),
        # Before linear layers merge: a slice of the queries is none of the keys and values.
        NarrowToSlices(),
        MergeParallelLinears(),
        # Constants go into the layers that the passes above have brought next to them.
        FoldBatchNorm(),
        Conv1dToConv2d(),
        FoldPadding(),
        # Behind a convolution with everything that belongs to it.
        ResizeAfterPointwise(),
        FoldConstants(),
    ]
