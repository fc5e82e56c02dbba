"""Batches that run in groups of items: whole networks compared with ONNX Runtime, also where items are mixed."""

from __future__ import annotations

import numpy as np
import pytest

import tvm_sparse
from tests.models.graph import Graph
from tests.models.networks import NETWORKS, make, residual_block
from tests.models.test_small_networks import TOLERANCE, expected_of, feeds_of
from tvm_sparse.build.target import make_target
from tvm_sparse.schedules.cpu.isa import Isa
from tvm_sparse.transform import pipeline
from tvm_sparse.transform.batch import SplitBatch


@pytest.fixture
def one_by_one(monkeypatch):
    """Whatever it costs, all that can be split is."""
    monkeypatch.setattr(pipeline, "SplitBatch", lambda context: SplitBatch(context, 1))


def check(model, **options) -> list[dict]:
    """Compare all outputs; the layers of the plan."""
    feeds = feeds_of(model)
    expected = expected_of(model, feeds)
    package = tvm_sparse.compile(model, **options)
    module = package.load()
    for _ in range(2):
        got = module.run(feeds)
        for name, reference in expected.items():
            assert got[name].shape == reference.shape and got[name].dtype == reference.dtype
            error = np.abs(got[name].astype("float64") - reference).max() / np.abs(reference).max()
            assert error <= TOLERANCE, f"output {name}: relative error {error:.2e}"
    return package.metadata["plan"]["layers"]


def batches() -> list[str]:
    """Registered networks whose inputs have several items."""
    models = {name: make(name, 0.9) for name in NETWORKS}
    extents = {n: {i.type.tensor_type.shape.dim[0].dim_value for i in m.graph.input} for n, m in models.items()}
    return [name for name, sizes in extents.items() if max(sizes) > 1]


@pytest.mark.parametrize("name", batches())
def test_networks_split_into_items(name, one_by_one):
    check(make(name, 0.9))


def images(graph: Graph, batch: int) -> str:
    return residual_block(graph, graph.conv_norm(graph.input(batch, 3, 19, 22), 16, 3, stride=2), 16)


@pytest.mark.parametrize("batch", [3, 5])
def test_every_layer_runs_for_each_image(batch, one_by_one):
    graph = Graph(0.9)
    layers = check(graph.model(graph.classify(images(graph, batch), 7)))
    assert all(len(layer["calls"]) == batch for layer in layers)


@pytest.mark.parametrize("batch", [2, 3])
def test_encoder(batch, one_by_one):
    graph = Graph(0.9)
    x = graph.input(batch, 17, 32, channels=32)
    y = graph.layer_norm(graph.op("Add", x, graph.attention(x, batch, 17, 4)))
    y = graph.op("Add", y, graph.linear(graph.act(graph.linear(y, 64), "GELU"), 32))
    check(graph.model(y))


def mean_over_images(g: Graph) -> tuple[str, ...]:
    y = images(g, 3)
    centred = g.op("Sub", y, g.op("ReduceMean", y, axes=[0], keepdims=1))
    return (g.conv(centred, 8, 3),)


def images_into_channels(g: Graph) -> tuple[str, ...]:
    y = g.op("Reshape", images(g, 3), g.ints(1, 48, 10, 11), channels=48)
    return (g.conv(y, 8, 3),)


def images_and_channels_swapped(g: Graph) -> tuple[str, ...]:
    y = g.op("Transpose", images(g, 4), channels=4, perm=[1, 0, 2, 3])
    return (g.conv(y, 8, 3),)


def images_compared(g: Graph) -> tuple[str, ...]:
    rows = g.op("Flatten", g.op("GlobalAveragePool", images(g, 3)))
    return (g.op("MatMul", rows, g.op("Transpose", rows, perm=[1, 0])), rows)


def square_batch(g: Graph) -> tuple[str, ...]:
    """As many images as channels: what is added belongs to the channels."""
    y = g.conv(g.input(4, 3, 9, 8), 4, 3)
    scale = g.op("Reshape", g.input(4, name="scale"), g.ints(4, 1, 1))
    return (g.op("Mul", y, g.op("Exp", scale)),)


@pytest.mark.parametrize(
    "build",
    [mean_over_images, images_into_channels, images_and_channels_swapped, images_compared, square_batch],
    ids=lambda build: build.__name__,
)
def test_mixed_images(build, one_by_one):
    graph = Graph(0.9, seed=1)
    check(graph.model(*build(graph)))


def test_large_images_are_split_by_default():
    graph = Graph(0.9)
    # Three images lie beyond the second-level cache, most of one in it.
    side = round(48 * min(1.0, Isa.from_target(make_target(None)).l2_bytes / 2**20) ** 0.5)
    x = graph.input(3, 3, side, side)
    y = graph.conv_norm(x, 64, 3)
    for _ in range(6):
        y = graph.conv_norm(y, 64, 3)
    model = graph.model(graph.classify(y, 7))
    assert len(check(model, num_threads=1)[1]["calls"]) == 3
    # With several threads each gets as many images.
    assert len(check(model, num_threads=3)[1]["calls"]) == 1
