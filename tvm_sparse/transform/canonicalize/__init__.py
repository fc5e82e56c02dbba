"""Canonicalisation: one normal form for what the front ends and exporters give."""

from __future__ import annotations

import tvm

from .fold_batch_norm import FoldBatchNorm
from .fold_constants import FoldConstants
from .fold_padding import FoldPadding
from .linear_form import LinearForm
from .merge_views import MergeViews
from .recognize_activations import RecognizeActivations
from .recognize_norms import RecognizeNorms
from .simplify import Simplify


def canonicalize_passes() -> list[tvm.transform.Pass]:
    """The canonicalisation passes, in order."""
    return [
        FoldConstants(),
        Simplify(),
        MergeViews(),
        RecognizeNorms(),
        RecognizeActivations(),
        LinearForm(),
        FoldBatchNorm(),
        FoldPadding(),
    ]
