"""Small networks of many kinds: functions ``Graph -> output names``, all by name in :data:`NETWORKS`.

Sizes are odd on purpose: prime channels, images from 1x1 up, strides larger than kernels, lopsided padding.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto

from tests.models.graph import Graph

Build = Callable[[Graph], tuple[str, ...]]
NETWORKS: dict[str, Build] = {}


def network(build: Build) -> Build:
    """Register a network under its function's name."""
    NETWORKS[build.__name__] = build
    return build


def make(name: str, sparsity: float) -> onnx.ModelProto:
    """Build a registered network with weights of the given sparsity."""
    graph = Graph(sparsity, seed=sum(map(ord, name)))
    return graph.model(*NETWORKS[name](graph))


def residual_block(g: Graph, x: str, cout: int, stride: int = 1) -> str:
    y = g.conv_norm(g.conv_norm(x, cout, 3, stride=stride), cout, 3, act=None)
    same = stride == 1 and g.channels[x] == cout
    shortcut = x if same else g.conv_norm(x, cout, 1, act=None, stride=stride)
    return g.op("Relu", g.op("Add", y, shortcut))


@network
def residual_33x47(g: Graph) -> tuple[str, ...]:
    y = g.conv_norm(g.input(1, 3, 33, 47), 16, 7, stride=2)
    y = g.pool(y, "MaxPool", 3, 2, 1)
    y = residual_block(g, residual_block(g, y, 16), 24, stride=2)
    return (g.classify(y, 10),)


@network
def bottleneck_batch3(g: Graph) -> tuple[str, ...]:
    x = g.input(3, 16, 14, 14)
    y = g.conv_norm(g.conv_norm(g.conv_norm(x, 8, 1), 8, 3, stride=2), 40, 1, act=None)
    y = g.op("Relu", g.op("Add", g.conv_norm(x, 40, 1, act=None, stride=2), y))
    return (g.classify(y, 7),)


@network
def preactivation_block(g: Graph) -> tuple[str, ...]:
    x = g.conv(g.input(1, 5, 9, 12), 16, 3)
    y = g.conv(g.op("Relu", g.norm(x)), 16, 3)
    y = g.conv(g.op("Relu", g.norm(y)), 16, 3)
    return (g.op("Relu", g.norm(g.op("Add", x, y))),)


@network
def dense_concat_block(g: Graph) -> tuple[str, ...]:
    features = g.input(2, 6, 10, 10)
    for _ in range(3):
        y = g.conv_norm(g.conv_norm(features, 16, 1), 4, 3)
        features = g.op("Concat", features, y, axis=1, channels=g.channels[features] + 4)
    return (g.pool(g.conv_norm(features, 9, 1), "AveragePool", 2, 2),)


@network
def mobile_relu6(g: Graph) -> tuple[str, ...]:
    y = g.conv_norm(g.input(1, 3, 31, 29), 8, 3, act="ReLU6", stride=2)
    for cout, stride in ((16, 1), (24, 2), (24, 1), (32, 2)):
        width = g.channels[y]
        y = g.conv_norm(y, width, 3, act="ReLU6", stride=stride, groups=width)
        y = g.conv_norm(y, cout, 1, act="ReLU6")
    return (g.classify(y, 11),)


@network
def inverted_residual_hardswish_gate(g: Graph) -> tuple[str, ...]:
    x = g.input(2, 12, 13, 11)
    y = g.conv_norm(x, 40, 1, act="HardSwish")
    y = g.conv_norm(y, 40, 5, act="HardSwish", groups=40)
    gate = g.op("Relu", g.conv(g.op("GlobalAveragePool", y), 10, 1))
    gate = g.op("HardSigmoid", g.conv(gate, 40, 1), alpha=1 / 6, beta=0.5)
    y = g.conv_norm(g.op("Mul", y, gate), 12, 1, act=None)
    return (g.op("Add", x, y),)


@network
def squeeze_excite_silu(g: Graph) -> tuple[str, ...]:
    y = g.conv_norm(g.input(1, 3, 24, 20), 24, 3, act="SiLU", stride=2)
    mean = g.op("ReduceMean", y, axes=[2, 3], keepdims=1)
    gate = g.op("Sigmoid", g.conv(g.act(g.conv(mean, 6, 1), "SiLU"), 24, 1))
    y = g.conv_norm(g.op("Mul", gate, y), 16, 1, act="SiLU")
    return (g.classify(y, 5),)


@network
def inception_concat(g: Graph) -> tuple[str, ...]:
    x = g.input(1, 16, 14, 15)
    branches = [
        g.conv_norm(x, 8, 1),
        g.conv_norm(g.conv_norm(x, 6, 1), 8, 3),
        g.conv_norm(g.conv_norm(x, 4, 1), 8, 5),
        g.conv_norm(g.pool(x, "MaxPool", 3, 1, 1), 8, 1),
        g.conv_norm(g.pool(x, "AveragePool", 3, 1, 1, count_include_pad=1), 5, 1),
    ]
    y = g.op("Concat", *branches, axis=1, channels=37)
    return (g.conv_norm(y, 16, 3, stride=2),)


@network
def detector_silu_concat(g: Graph) -> tuple[str, ...]:
    c2 = g.conv_norm(g.input(1, 3, 32, 48), 8, 3, act="SiLU", stride=2)
    c3 = g.conv_norm(c2, 16, 3, act="SiLU", stride=2)
    c4 = g.conv_norm(c3, 24, 3, act="SiLU", stride=2)
    pools = [c4]
    for _ in range(2):
        pools.append(g.pool(pools[-1], "MaxPool", 5, 1, 2))
    c4 = g.conv_norm(g.op("Concat", *pools, axis=1, channels=72), 16, 1, act="SiLU")
    up = g.resize(c4, 2, "nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    p3 = g.conv_norm(g.op("Concat", up, c3, axis=1, channels=32), 16, 3, act="SiLU")
    rows = []
    for level, height, width in ((p3, 8, 12), (c4, 4, 6)):
        y = g.op("Reshape", g.conv(level, 14, 1), g.ints(1, 2, 7, height, width))
        y = g.op("Sigmoid", g.op("Transpose", y, perm=[0, 1, 3, 4, 2]))
        rows.append(g.op("Reshape", y, g.ints(1, -1, 7)))
    return (g.op("Concat", *rows, axis=1),)


@network
def unet_transposed(g: Graph) -> tuple[str, ...]:
    top = g.conv_norm(g.input(1, 3, 24, 16), 8, 3)
    middle = g.conv_norm(g.pool(top, "MaxPool", 2, 2), 16, 3)
    low = g.conv_norm(g.pool(middle, "MaxPool", 2, 2), 24, 3)
    y = g.op("Concat", middle, g.deconv(low, 16, 2, 2), axis=1, channels=32)
    y = g.conv_norm(y, 16, 3)
    y = g.op("Concat", top, g.deconv(y, 8, 4, 2, pad=1), axis=1, channels=16)
    return (g.op("Sigmoid", g.conv(g.conv_norm(y, 8, 3), 1, 1)),)


@network
def upsampling_decoder(g: Graph) -> tuple[str, ...]:
    x = g.input(2, 12, 5, 7)
    y = g.conv_norm(g.resize(x, 2, "linear", coordinate_transformation_mode="half_pixel"), 10, 3)
    y = g.conv_norm(g.deconv(y, 8, 3, 2, pad=1, output_pad=1), 7, 3)
    y = g.deconv(y, 7, 4, 2, pad=1, groups=7)
    return (g.resize(g.conv(y, 3, 3), 2, "linear", coordinate_transformation_mode="align_corners"),)


@network
def dilated_branches(g: Graph) -> tuple[str, ...]:
    x = g.conv_norm(g.input(1, 3, 33, 17), 12, 3, stride=2)
    branches = [g.conv_norm(x, 8, 3, dilation=d) for d in (1, 2, 4, 8)]
    y = g.op("Concat", *branches, axis=1, channels=32)
    return (g.conv(y, 5, 1),)


@network
def taps_outside_the_image(g: Graph) -> tuple[str, ...]:
    """Pyramids of small images dilate beyond them: most taps of a kernel read only padding."""
    x = g.conv(g.input(1, 5, 9, 11), 16, 3)
    return (g.op("Add", g.conv(x, 12, 3, dilation=12), g.conv(x, 12, 3, dilation=6)),)


@network
def grouped_shuffle(g: Graph) -> tuple[str, ...]:
    y = g.conv_norm(g.input(2, 24, 12, 9), 24, 1, groups=3)
    y = g.op("Reshape", y, g.ints(2, 3, 8, 12, 9))
    y = g.op("Reshape", g.op("Transpose", y, perm=[0, 2, 1, 3, 4]), g.ints(2, 24, 12, 9), channels=24)
    y = g.conv_norm(y, 36, 3, stride=2, groups=6)
    return (g.conv_norm(y, 12, 1, groups=2),)


@network
def convolutions_1d(g: Graph) -> tuple[str, ...]:
    y = g.op("Relu", g.conv(g.input(2, 13, 101), 16, [9], stride=2))
    y = g.op("Add", y, g.conv(g.conv(y, 16, [5], groups=16), 16, [1]))
    y = g.op("Relu", g.conv(y, 20, [3], dilation=4))
    return (g.op("Softmax", g.conv(y, 7, [1]), axis=1),)


@network
def odd_padding_and_strides(g: Graph) -> tuple[str, ...]:
    x = g.input(1, 5, 23, 19)
    y = g.op("Relu", g.conv(x, 8, 3, pad=[0, 1, 2, 3]))
    y = g.op("Relu", g.conv(y, 8, [1, 5], stride=[1, 2], pad=[0, 2, 0, 2]))
    y = g.op("Relu", g.conv(y, 9, [5, 1], pad="SAME_UPPER"))
    y = g.op("Relu", g.conv(y, 9, 2, pad="SAME_LOWER", stride=2))
    return (g.conv(y, 10, 1, stride=3, pad=0), g.conv(y, 10, 2, stride=3, pad=[1, 0, 1, 0]))


@network
def even_kernels(g: Graph) -> tuple[str, ...]:
    y = g.op("Relu", g.conv(g.input(1, 3, 30, 22), 8, 6, stride=2, pad=2))
    y = g.op("Relu", g.conv(y, 8, 4, pad=[1, 1, 2, 2]))
    return (g.conv(y, 6, 2, stride=2, pad=0),)


@network
def large_kernels_flat_head(g: Graph) -> tuple[str, ...]:
    y = g.op("Relu", g.conv(g.input(1, 3, 67, 67), 12, 11, stride=4, pad=2))
    y = g.op("Relu", g.conv(g.pool(y, "MaxPool", 3, 2), 16, 5))
    y = g.op("Flatten", g.pool(y, "MaxPool", 3, 2), channels=16 * 9)
    return (g.linear(g.op("Relu", g.linear(y, 50, gemm=True)), 10, gemm=True),)


@network
def explicit_pads_and_scaling(g: Graph) -> tuple[str, ...]:
    x = g.input(1, 3, 18, 21)
    mean, std = (g.const(g.rng.uniform(0.3, 0.7, (1, 3, 1, 1)).astype("float32")) for _ in range(2))
    x = g.op("Div", g.op("Sub", x, mean), std)
    x = g.op("Pad", x, g.ints(0, 0, 0, 1, 0, 0, 2, 1))
    y = g.op("Relu", g.conv(x, 8, 3, stride=2, pad=0))
    y = g.op("Mul", y, g.const(g.rng.uniform(0.5, 1.5, (1, 8, 1, 1)).astype("float32")))
    y = g.op("Pad", y, g.ints(0, 0, 2, 2, 0, 0, 2, 2), mode="reflect")
    return (g.pool(g.conv(y, 7, 3, pad=0), "AveragePool", 3, 2, [1, 0, 0, 1], ceil_mode=1),)


@network
def prime_channels(g: Graph) -> tuple[str, ...]:
    y = g.input(1, 7, 11, 13)
    for cout, kernel in ((13, 3), (17, 1), (1, 3), (29, 1)):
        y = g.op("LeakyRelu", g.conv(y, cout, kernel), alpha=0.3)
    return (g.conv(y, 2, 5),)


@network
def wide_channels(g: Graph) -> tuple[str, ...]:
    y = g.op("Relu", g.conv(g.input(1, 130, 7, 7), 257, 1))
    y = g.op("Relu", g.conv(y, 64, 3))
    return (g.conv(y, 300, 1),)


@network
def activations(g: Graph) -> tuple[str, ...]:
    y = g.input(1, 8, 9, 9)
    kinds = "PRelu HardSwish SiLU GELU GELU_tanh Tanh Sigmoid Softplus Elu HardSigmoid"
    for kind in kinds.split():
        y = g.act(g.conv(y, 8, 1), kind)
    return (g.op("LeakyRelu", g.conv(y, 8, 3), alpha=0.1),)


@network
def shared_weights_two_outputs(g: Graph) -> tuple[str, ...]:
    x = g.input(1, 8, 12, 12)
    weight, bias = g.weight(8, 8, 3, 3, fan_in=72), g.vector(8)
    options = dict(kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    y = g.op("Relu", g.op("Conv", x, weight, bias, **options))
    z = g.op("Conv", y, weight, bias, **options)
    return z, g.op("Add", g.conv(y, 8, 1), z), y


@network
def channels_last_detector(g: Graph) -> tuple[str, ...]:
    x = g.op("Transpose", g.input(1, 32, 24, 3), perm=[0, 3, 1, 2], channels=3)
    y = g.op("Relu", g.conv(x, 12, 3, stride=2, pad=[0, 0, 1, 1]))
    z = g.op("Relu", g.conv(g.conv(y, 12, 3, stride=2, groups=12, pad=[0, 0, 1, 1]), 20, 1))
    up = g.op("DepthToSpace", g.conv(z, 48, 1), blocksize=2, mode="DCR", channels=12)
    y = g.op("Relu", g.op("Add", y, up))
    y = g.op("Transpose", g.conv(y, 6, 1), perm=[0, 2, 3, 1])
    return (g.op("Reshape", y, g.ints(1, 192, 6)),)


@network
def pixel_shuffle(g: Graph) -> tuple[str, ...]:
    y = g.op("Relu", g.conv(g.input(2, 1, 15, 14), 16, 5))
    y = g.conv(g.op("Relu", g.conv(y, 8, 3)), 9, 3)
    return (g.op("DepthToSpace", y, blocksize=3, mode="CRD", channels=1),)


def perceptron(batch: int, act: str, gemm: bool) -> Build:
    def build(g: Graph) -> tuple[str, ...]:
        y = g.act(g.linear(g.input(batch, 67), 128, gemm), act)
        y = g.act(g.linear(y, 96, gemm), act)
        return (g.linear(y, 10, gemm),)

    return build


for _batch, _act, _gemm in ((1, "Relu", True), (1, "GELU", False), (7, "Tanh", True), (64, "SiLU", False)):
    NETWORKS[f"perceptron_{_act.lower()}_batch{_batch}"] = perceptron(_batch, _act, _gemm)


@network
def encoder_batch2(g: Graph) -> tuple[str, ...]:
    ids = g.input(2, 17, name="ids", dtype=TensorProto.INT64)
    table = g.const(g.rng.standard_normal((50, 32)).astype("float32"))
    x = g.op("Gather", table, ids, channels=32)
    x = g.op("Add", x, g.const(g.rng.standard_normal((17, 32)).astype("float32")))
    for _ in range(2):
        x = g.layer_norm(g.op("Add", x, g.attention(x, 2, 17, 4)))
        x = g.layer_norm(g.op("Add", x, g.linear(g.act(g.linear(x, 64), "GELU"), 32)))
    first = g.op("Gather", x, g.const(np.array(0, np.int64)), axis=1)
    return x, g.op("Tanh", g.linear(first, 5, gemm=True))


@network
def vision_transformer(g: Graph) -> tuple[str, ...]:
    y = g.conv(g.input(1, 3, 24, 32), 24, 8, stride=8, pad=0)
    y = g.op("Transpose", g.op("Reshape", y, g.ints(1, 24, 12)), perm=[0, 2, 1], channels=24)
    token = g.const(g.rng.standard_normal((1, 1, 24)).astype("float32"))
    y = g.op("Concat", token, y, axis=1, channels=24)
    y = g.op("Add", y, g.attention(g.layer_norm(y), 1, 13, 3))
    y = g.op("Add", y, g.linear(g.act(g.linear(g.layer_norm(y), 96), "GELU"), 24))
    first = g.op("Slice", g.layer_norm(y), g.ints(0), g.ints(1), g.ints(1))
    return (g.linear(first, 10),)


@network
def convnext_block(g: Graph) -> tuple[str, ...]:
    x = g.conv(g.input(1, 3, 28, 36), 20, 4, stride=4, pad=0)
    y = g.op("Transpose", g.conv(x, 20, 7, groups=20), perm=[0, 2, 3, 1], channels=20)
    y = g.linear(g.act(g.linear(g.layer_norm(y), 80), "GELU"), 20)
    y = g.op("Mul", y, g.vector(20, 0.5))
    return (g.op("Add", x, g.op("Transpose", y, perm=[0, 3, 1, 2], channels=20)),)


@network
def mixer(g: Graph) -> tuple[str, ...]:
    x = g.input(2, 19, 24, channels=24)
    y = g.op("Transpose", g.layer_norm(x), perm=[0, 2, 1], channels=19)
    y = g.linear(g.act(g.linear(y, 32), "GELU_tanh"), 19)
    x = g.op("Add", x, g.op("Transpose", y, perm=[0, 2, 1]))
    g.channels[x] = 24
    return (g.op("Add", x, g.linear(g.act(g.linear(g.layer_norm(x), 48), "GELU_tanh"), 24)),)


@network
def gated_feed_forward(g: Graph) -> tuple[str, ...]:
    x = g.input(1, 9, 32, channels=32)
    square = g.op("ReduceMean", g.op("Mul", x, x), axes=[-1], keepdims=1)
    root = g.op("Sqrt", g.op("Add", square, g.const(np.float32(1e-6))))
    y = g.op("Mul", g.op("Div", x, root), g.vector(32, 1.0))
    gate = g.act(g.linear(y, 72, bias=False), "SiLU")
    y = g.op("Mul", gate, g.linear(y, 72, bias=False))
    return (g.op("Add", x, g.linear(y, 32, bias=False)),)


@network
def causal_decoder(g: Graph) -> tuple[str, ...]:
    batch, tokens, hidden, heads = 2, 19, 32, 4
    x = g.input(batch, tokens, hidden, channels=hidden)
    y = g.layer_norm(x)

    def split(perm: list[int]) -> str:
        part = g.op("Reshape", g.linear(y, hidden), g.ints(batch, tokens, heads, hidden // heads))
        return g.op("Transpose", part, perm=perm)

    scores = g.op("MatMul", split([0, 2, 1, 3]), split([0, 2, 3, 1]))
    scores = g.op("Mul", scores, g.const(np.float32((hidden // heads) ** -0.5)))
    later = np.triu(np.full((1, 1, tokens, tokens), -1e9, np.float32), 1)
    weights = g.op("Softmax", g.op("Add", scores, g.const(later)), axis=-1)
    mixed = g.op("Transpose", g.op("MatMul", weights, split([0, 2, 1, 3])), perm=[0, 2, 1, 3])
    mixed = g.op("Reshape", mixed, g.ints(batch, tokens, hidden), channels=hidden)
    return (g.op("Add", x, g.linear(mixed, hidden)),)


def image_size(height: int, width: int, batch: int) -> Build:
    """A stem, a residual block and a strided layer, as small images allow."""

    def build(g: Graph) -> tuple[str, ...]:
        x = g.conv_norm(g.input(batch, 3, height, width), 16, 3)
        y = g.conv_norm(g.conv_norm(x, 16, 1), 16, 3, act=None)
        y = g.op("Relu", g.op("Add", x, y))
        return (g.conv_norm(g.conv_norm(y, 16, 3, groups=16), 8, 3, stride=2),)

    return build


for _height, _width, _batch in (
    (1, 1, 1), (1, 1, 3), (1, 7, 1), (5, 1, 2), (2, 3, 1),
    (7, 7, 3), (8, 8, 1), (14, 14, 2), (17, 16, 1), (33, 47, 1),
):  # fmt: skip
    NETWORKS[f"image_{_height}x{_width}_batch{_batch}"] = image_size(_height, _width, _batch)
