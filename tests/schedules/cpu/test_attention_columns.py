"""Attention over columns, through the pipeline, against numpy."""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.special import softmax
from tvm import relax

from tests.transform.canonicalize.helpers import constant, module, random
from tvm_sparse.layout.geometry import choose_geometry
from tvm_sparse.layout.halo import Window

from .compiled import RUNNABLE, WIDEST, every_isa
from .pipeline import context_for, kernel_kinds, run_module
from .reference import convolve

OP = relax.op


@dataclass(frozen=True)
class Case:
    """Sizes of an attention layer; depths are per head."""

    batch: int
    queries: int
    heads: int
    depth: int
    keys: int | None = None
    value_depth: int | None = None
    scale: float | None = None
    magnitude: float = 1.0
    in_columns: bool = True


# Short sequences of a batch may share vectors; then attention is left to loops. 31 tokens nearly fill theirs.
CASES = {
    "one head": Case(1, 31, 1, 5),
    "heads": Case(1, 31, 4, 8),
    "two tokens": Case(9, 2, 2, 3, in_columns=False),
    "one token": Case(17, 1, 2, 3, in_columns=False),
    "batch": Case(3, 31, 2, 4),
    "depth of one": Case(1, 31, 3, 1),
    "many tokens": Case(1, 131, 1, 7),
    "more keys": Case(1, 31, 2, 4, keys=45),
    "fewer keys": Case(1, 31, 2, 4, keys=13),
    "other depth of values": Case(1, 31, 2, 4, value_depth=9),
    "own scale": Case(1, 31, 2, 4, scale=-0.75),
    "large scores": Case(1, 31, 2, 8, magnitude=40.0),
}


def build(case: Case, mask_batch: int | None = None):
    """A module of three projections and attention; returns also the matrices."""
    keys, value_depth = case.keys or case.queries, case.value_depth or case.depth
    widths = [case.heads * case.depth] * 2 + [case.heads * value_depth]
    matrices = [random(6, width, seed=i) * case.magnitude**0.5 for i, width in enumerate(widths)]

    def body(x, z, *mask):
        split = []
        for source, matrix, tokens in zip((x, z, z), matrices, (case.queries, keys, keys), strict=True):
            shape = (case.batch, tokens, case.heads, matrix.shape[1] // case.heads)
            split.append(OP.reshape(OP.matmul(source, constant(matrix.astype("float32"))), shape))
        out = OP.nn.attention(*split, *mask, scale=case.scale)
        return OP.reshape(out, (case.batch, case.queries, case.heads * value_depth))

    specs = [(case.batch, case.queries, 6), (case.batch, keys, 6)]
    if mask_batch:
        specs.append((mask_batch, 1, 1, keys))
    return module(specs, body), matrices


def expected(case: Case, matrices, x, z, mask=0.0):
    def split(source, matrix):
        y = source.astype("float64") @ matrix
        return y.reshape(*y.shape[:2], case.heads, -1).transpose(0, 2, 1, 3)

    q, k, v = (split(s, m) for s, m in zip((x, z, z), matrices, strict=True))
    scale = case.depth**-0.5 if case.scale is None else case.scale
    out = softmax(q @ k.transpose(0, 1, 3, 2) * scale + mask, axis=-1) @ v
    return out.transpose(0, 2, 1, 3).reshape(case.batch, case.queries, -1)


def check(case: Case, isa_name: str, mask: np.ndarray | None = None, tolerance: float = 2e-5):
    mod, matrices = build(case, None if mask is None else len(mask))
    inputs = [random(case.batch, case.queries, 6, seed=7), random(case.batch, case.keys or case.queries, 6, seed=8)]
    arrays = inputs if mask is None else [*inputs, mask]
    context = context_for(isa_name)
    (got,) = run_module(mod, context, arrays)
    assert "AttentionColumns" in kernel_kinds(context) or not case.in_columns
    want = expected(case, matrices, *inputs, 0.0 if mask is None else mask.astype("float64"))
    # Scores of size s are rounded to s ulps, and exp makes that relative.
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * case.magnitude**0.5 * max(1, np.abs(want).max()))


# The kernel's code differs by vectors of a panel, so narrow instruction sets take few sizes, which share kernels.
ON_EVERY_ISA = ("one head", "more keys", "own scale", "other depth of values")


@pytest.mark.parametrize(
    "isa_name, name", [(i, n) for i in RUNNABLE for n in CASES if i == WIDEST or n in ON_EVERY_ISA]
)
def test_against_numpy(isa_name, name):
    check(CASES[name], isa_name)


@every_isa
@pytest.mark.parametrize("mask_batch", [1, 3], ids=["shared", "per sequence"])
@pytest.mark.parametrize("value", [-1e4, -3.4e38, -np.inf], ids=str)
def test_masked_keys(isa_name, mask_batch, value):
    mask = np.zeros((mask_batch, 1, 1, 31), "float32")
    mask[..., 13:] = value
    mask[0, ..., 2] = value
    mask[-1, ..., 5] = 1.5  # not every mask is a choice
    check(Case(3, 31, 2, 4), isa_name, mask)


def test_all_keys_masked_softly():
    # Padding sequences of a batch: all scores are equally bad, and softmax makes nothing of the common part.
    mask = np.zeros((3, 1, 1, 31), "float32")
    mask[1] = -1e4
    # A thousandth of a score is lost in the sum with the mask.
    check(Case(3, 31, 2, 4, magnitude=1e-2), WIDEST, mask, tolerance=2e-3)


def test_all_keys_masked_with_the_lowest_number():
    # What exporters write: (1 - mask) * finfo(float32).min. The result of a padding sequence is a plain mean.
    mask = np.zeros((3, 1, 1, 31), "float32")
    mask[1] = np.finfo("float32").min
    check(Case(3, 31, 2, 4, magnitude=1e-2), WIDEST, mask, tolerance=2e-3)


@every_isa
def test_pixels_of_images_that_share_vectors(isa_name):
    """Their tokens are brought to vectors of their own: a kernel's keys are those of one image."""
    case = Case(8, 25, 2, 4)
    weight = random(6, 3, 3, 3, seed=5)
    matrices = [random(6, 8, seed=i) for i in range(3)]

    def body(x):
        images = OP.reshape(OP.nn.conv2d(x, constant(weight), padding=1), (8, 6, 25))
        tokens = relax.BlockBuilder.current().emit(OP.permute_dims(images, [0, 2, 1]))
        heads = [OP.reshape(OP.matmul(tokens, constant(matrix)), (8, 25, 2, 4)) for matrix in matrices]
        return OP.reshape(OP.nn.attention(*heads), (8, 25, 8))

    context, x = context_for(isa_name), random(8, 3, 5, 5, seed=7)
    assert choose_geometry(8, 5, 5, context.isa.lanes).images > 1
    (got,) = run_module(module([x.shape], body), context, [x])
    assert {"AttentionColumns", "MoveColumns"} <= kernel_kinds(context)
    tokens = convolve(x, weight, Window((3, 3), padding=(1, 1, 1, 1))).reshape(8, 6, 25).transpose(0, 2, 1)
    np.testing.assert_allclose(got, expected(case, matrices, tokens, tokens), rtol=0, atol=2e-4)
