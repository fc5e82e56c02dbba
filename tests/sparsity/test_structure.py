"""Measuring zeros: how many, and the structure that they lie in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sparsity.weights import pruned
from tvm_sparse.sparsity.structure import Structure, measure_structure


def random_weight(*shape: int, zeros: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal(shape).astype("float32")
    weight[rng.random(shape) < zeros] = 0
    return weight


def block_weight(rows: int, columns: int, zeros: float, shape=(64, 32, 1, 1)) -> np.ndarray:
    """Zeros in blocks of output channels by input channels."""
    blocks = np.random.default_rng(1).random((shape[0] // rows, shape[1] // columns, *shape[2:])) >= zeros
    keep = blocks.repeat(rows, 0).repeat(columns, 1)
    return random_weight(*shape, zeros=0) * keep


@given(st.sampled_from([(1, 1), (3, 5), (7, 1, 3, 3), (1, 11, 1, 1), (16, 8, 1, 5)]).flatmap(pruned))
def test_counts(weight):
    found = measure_structure(weight)
    matrix = weight.reshape(*weight.shape[:2], -1)
    assert found.zeros == pytest.approx((weight == 0).sum() / weight.size)
    assert found.empty_rows == sum(not row.any() for row in matrix)
    assert found.empty_columns == sum(not matrix[:, c].any() for c in range(weight.shape[1]))


# At 99 % almost all zeros lie in blocks of zeros, by chance.
@pytest.mark.parametrize("zeros", [0.5, 0.7, 0.9, 0.97, 0.99])
@pytest.mark.parametrize("shape", [(64, 64), (64, 64, 1, 1), (32, 16, 3, 3), (128, 64, 1, 1)])
@pytest.mark.parametrize("seed", range(3))
def test_scattered_zeros_are_no_structure(shape, zeros, seed):
    assert measure_structure(random_weight(*shape, zeros=zeros, seed=seed)).name == "unstructured"


@pytest.mark.parametrize("zeros", [0, 0.02])
def test_a_few_zeros_are_dense(zeros):
    assert measure_structure(random_weight(40, 40, zeros=zeros)).name == "dense"


@pytest.mark.parametrize(("rows", "columns"), [(16, 1), (8, 1), (4, 1), (1, 4)])
@pytest.mark.parametrize("zeros", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("shape", [(64, 32, 1, 1), (64, 32, 3, 3), (64, 32)])
def test_blocks(rows, columns, zeros, shape):
    assert measure_structure(block_weight(rows, columns, zeros, shape)).name == f"{rows}x{columns} blocks"


def test_blocks_with_a_few_other_zeros():
    weight = block_weight(4, 1, 0.8)
    # Weights that are zero by chance don't hide the blocks; a fifth of all does.
    nonzero = np.argwhere(weight)
    weight[tuple(nonzero[::50].T)] = 0
    assert measure_structure(weight).name == "4x1 blocks"
    weight[tuple(nonzero[::2].T)] = 0
    assert measure_structure(weight).name == "unstructured"


def test_blocks_must_divide_the_weight():
    weight = block_weight(4, 1, 0.8)
    assert measure_structure(weight[:62]).name == "unstructured"
    assert measure_structure(block_weight(1, 4, 0.8)[:, :30]).name == "unstructured"


@pytest.mark.parametrize("shape", [(8, 16), (8, 16, 3, 3)])
def test_two_of_four(shape):
    rng = np.random.default_rng(0)
    # Two of each four input channels, at every tap.
    order = rng.random((shape[0], shape[1] // 4, 4, *shape[2:])).argsort(2)
    weight = random_weight(*shape, zeros=0) * (order < 2).reshape(shape)
    assert measure_structure(weight) == Structure(0.5, "2:4", 0, 0)
    # Three nonzeros in one group are too many.
    weight.reshape(shape[0], shape[1], -1)[0, :4, 0] = [1, 2, 3, 0]
    assert measure_structure(weight).name == "unstructured"


def test_half_dense_is_not_two_of_four():
    assert measure_structure(random_weight(64, 64, zeros=0.5)).name == "unstructured"


def test_edges():
    assert measure_structure(np.zeros((3, 4))) == Structure(1.0, "unstructured", 3, 4)
    assert measure_structure(np.zeros((0, 4))) == Structure(0.0, "dense", 0, 0)
    # Negative zero is a zero; infinities and NaN are values.
    weight = np.array([[-0.0, np.inf], [np.nan, 0.0]])
    assert measure_structure(weight) == Structure(0.5, "unstructured", 0, 0)
