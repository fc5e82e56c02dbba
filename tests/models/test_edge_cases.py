"""Weights and images at the edge of what layers allow, compiled end to end and compared with ONNX Runtime."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import tvm_sparse
from tests.models.graph import Graph
from tests.models.test_small_networks import TOLERANCE, expected_of, feeds_of
from tvm_sparse.errors import TvmSparseError


def check(graph: Graph, outputs: list[str], **options) -> None:
    """Compile a graph and compare its outputs where the reference is finite; elsewhere neither is."""
    model = graph.model(*outputs)
    feeds = feeds_of(model)
    expected = expected_of(model, feeds)
    got = tvm_sparse.compile(model, **options).load().run(feeds)
    assert list(got) == list(expected)
    for name, reference in expected.items():
        result = got[name]
        assert result.shape == reference.shape and result.dtype == reference.dtype
        finite = np.isfinite(reference)
        assert not np.isfinite(result[~finite]).any(), name
        scale = np.abs(reference[finite]).max(initial=1e-3)
        error = np.abs(result[finite].astype("float64") - reference[finite]).max(initial=0) / scale
        assert error <= TOLERANCE, f"{name}: relative error {error:.2e}"


def pruned(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """A weight ``[outputs, ...]`` with zeros of a kind."""
    weight = rng.standard_normal(shape).astype("float32")
    if kind == "dense":
        return weight
    row = shape[0] // 2
    keep = rng.random(shape) < (0.3 if kind == "infinite" else 0)
    if kind == "one full row":
        keep[row] = True
    if kind == "infinite":
        # One row, so that the others show whether they stay finite.
        keep[row], weight[row] = True, np.inf
    return np.where(keep, weight, np.float32(0))


def layers(graph: Graph, kind: str, channels: tuple[int, int]) -> list[str]:
    """One layer of each sort with weights of a kind: 3x3, strided 1x1, and linear ones of few and of many rows."""
    inputs, outputs = channels
    graph.weight = lambda *shape, fan_in: graph.const(pruned(kind, shape, graph.rng))
    image = graph.input(2, inputs, 5, 6)
    rows = {count: graph.input(count, inputs, name=f"rows{count}") for count in (1, 3, 40)}
    return [
        graph.conv(image, outputs, 3),
        graph.conv(image, outputs, 3, stride=2),
        graph.conv(image, outputs, 1, bias=False),
        *(graph.linear(x, outputs, gemm=True) for x in rows.values()),
    ]


@pytest.mark.parametrize("channels", [(1, 1), (13, 29)], ids=["1x1", "29x13"])
@pytest.mark.parametrize("sparse_format", ["auto", "unstructured"])
@pytest.mark.parametrize("kind", ["zero", "one full row", "dense", "infinite"])
def test_weights(kind, sparse_format, channels):
    graph = Graph(seed=2)
    check(graph, layers(graph, kind, channels), sparse_format=sparse_format)


SIZES = ((1, 1), (1, 3), (2, 2), (3, 1), (3, 3))
# Kernel, stride, padding (top, left, bottom, right), dilation.
WINDOWS = {
    "stride beyond the kernel": (1, 3, (0, 0, 0, 0), 1),
    "larger stride beyond the kernel": (2, 5, (1, 1, 1, 1), 1),
    "padding beyond the kernel": (2, 1, (3, 2, 4, 3), 1),
    "strided padding beyond the kernel": (3, 2, (4, 5, 4, 3), 1),
    "padding on one side": (3, 1, (2, 0, 0, 1), 1),
    "strided padding on one side": (3, 2, (0, 2, 2, 0), 1),
    "kernel beyond the image": (5, 1, (2, 2, 2, 2), 1),
    "dilation beyond the image": (3, 1, (4, 4, 4, 4), 4),
}


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("batch", [1, 3])
def test_windows_on_tiny_images(size, batch):
    graph = Graph(0.7, seed=3)
    x = graph.input(batch, 6, *size)
    outputs = []
    for (kernel, stride, pad, dilation), groups in itertools.product(WINDOWS.values(), (1, 6)):
        reach = dilation * (kernel - 1) + 1
        if size[0] + pad[0] + pad[2] >= reach and size[1] + pad[1] + pad[3] >= reach:
            cout = 12 if groups == 1 else 6
            outputs.append(graph.conv(x, cout, kernel, stride=stride, pad=pad, dilation=dilation, groups=groups))
    assert len(outputs) >= 12
    check(graph, outputs)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_pooling_of_tiny_images(size):
    graph = Graph(seed=4)
    x = graph.input(2, 5, *size)
    y = graph.conv(x, 9, 1)
    outputs = []
    for kind in ("MaxPool", "AveragePool"):
        outputs += [
            graph.pool(y, kind, 3, 1, 1),
            graph.pool(y, kind, 2, 3, 1),
            graph.pool(y, kind, 3, 2, (2, 1, 0, 2), **({"count_include_pad": 1} if kind == "AveragePool" else {})),
        ]
    check(graph, [*outputs, graph.op("GlobalAveragePool", y)])


@pytest.mark.parametrize("channels", [(1, 1), (1, 7), (7, 1), (17, 31)], ids=lambda c: f"{c[0]}to{c[1]}")
def test_odd_channels_on_odd_images(channels):
    graph = Graph(0.5, seed=5)
    x = graph.input(1, channels[0], 17, 19)
    y = graph.op("Relu", graph.conv(x, channels[1], 3))
    y = graph.op("Add", y, graph.conv(y, channels[1], 3, groups=channels[1]))
    check(graph, [graph.pool(y, "MaxPool", 3, 2, 1), graph.conv(y, channels[0], 5, stride=3), y])


def test_a_batch_of_nothing_is_refused():
    graph = Graph(0.5, seed=6)
    outputs = [graph.conv(graph.input("batch", 3, 8, 8), 4, 3)]
    with pytest.raises(TvmSparseError, match=r"\[0, 3, 8, 8\] for input 'x' has a size below 1"):
        tvm_sparse.compile(graph.model(*outputs), input_shapes={"x": [0, 3, 8, 8]})
