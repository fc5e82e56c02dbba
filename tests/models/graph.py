"""Builds small ONNX models for the tests: random weights of a given sparsity, no torch."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17


class Graph:
    """An ONNX graph under construction; values are named by strings.

    Parameters
    ----------
    sparsity : float
        Share of zeros in every weight of a convolution or linear layer, from 0 to 1.
    seed : int
        Seed of the weights.
    """

    def __init__(self, sparsity: float = 0.0, seed: int = 0):
        self.sparsity = sparsity
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.channels: dict[str, int] = {}

    def input(self, *shape: int, name="x", dtype: int = TensorProto.FLOAT, channels: int = 0) -> str:
        """Declare an input; its channels are dimension 1 unless given."""
        self.inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        self.channels[name] = channels or (shape[1] if len(shape) > 1 else shape[0])
        return name

    def const(self, array: np.ndarray) -> str:
        """Add an initializer."""
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def ints(self, *values: int) -> str:
        """Add an int64 vector, as shapes and axes need."""
        return self.const(np.array(values, np.int64))

    def weight(self, *shape: int, fan_in: int) -> str:
        """Add a random float32 weight with the graph's sparsity, scaled to keep activations near one."""
        weight = self.rng.standard_normal(shape).astype("float32")
        zeros = round(weight.size * self.sparsity)
        weight.reshape(-1)[self.rng.permutation(weight.size)[:zeros]] = 0
        scale = np.sqrt(2.0 / max(1.0, fan_in * (1 - self.sparsity)))
        return self.const(weight * np.float32(scale))

    def vector(self, size: int, mean: float = 0.0, std: float = 0.2) -> str:
        """Add a random float32 vector, ``[size]``."""
        return self.const((mean + std * self.rng.standard_normal(size)).astype("float32"))

    def op(self, kind: str, *inputs: str, channels: int = 0, outputs: int = 1, **attributes) -> str:
        """Add a node; returns its output's name (the first of several ends in ``_0``)."""
        name = f"n{len(self.nodes)}"
        names = [name] if outputs == 1 else [f"{name}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=f"{kind}_{name}", **attributes))
        for output in names:
            self.channels[output] = channels or self.channels.get(inputs[0] if inputs else "", 0)
        return names[0]

    def conv(self, x: str, cout: int, kernel, stride=1, pad=None, dilation=1, groups=1, bias=True) -> str:
        """Convolution of any rank; scalars are repeated, ``pad=None`` keeps the size of odd kernels."""
        kernel = list(kernel) if np.iterable(kernel) else [kernel] * 2
        rank, cin = len(kernel), self.channels[x]
        strides = list(stride) if np.iterable(stride) else [stride] * rank
        dilations = list(dilation) if np.iterable(dilation) else [dilation] * rank
        attributes: dict = {}
        if isinstance(pad, str):
            attributes["auto_pad"] = pad
        elif pad is None:
            attributes["pads"] = [d * (k - 1) // 2 for d, k in zip(dilations, kernel, strict=True)] * 2
        else:
            attributes["pads"] = list(pad) if np.iterable(pad) else [pad] * 2 * rank
        fan_in = cin // groups * int(np.prod(kernel))
        arguments = [x, self.weight(cout, cin // groups, *kernel, fan_in=fan_in)]
        if bias:
            arguments.append(self.vector(cout))
        return self.op(
            "Conv", *arguments, channels=cout, kernel_shape=kernel, strides=strides, dilations=dilations,
            group=groups, **attributes,
        )  # fmt: skip

    def deconv(self, x: str, cout: int, kernel: int, stride: int, pad=0, groups=1, output_pad=0) -> str:
        """Transposed convolution with square kernel and bias."""
        cin = self.channels[x]
        fan_in = max(1, cin // groups * kernel**2 // stride**2)
        weight = self.weight(cin, cout // groups, kernel, kernel, fan_in=fan_in)
        return self.op(
            "ConvTranspose", x, weight, self.vector(cout), channels=cout, kernel_shape=[kernel] * 2,
            strides=[stride] * 2, pads=[pad] * 4, group=groups, output_padding=[output_pad] * 2,
        )  # fmt: skip

    def norm(self, x: str) -> str:
        """Inference batch norm with random statistics."""
        size = self.channels[x]
        variance = self.const(self.rng.uniform(0.5, 1.5, size).astype("float32"))
        scale, mean = self.vector(size, 1.0), self.vector(size)
        return self.op("BatchNormalization", x, scale, self.vector(size), mean, variance, epsilon=1e-5)

    def conv_norm(self, x: str, cout: int, kernel, act: str | None = "Relu", **options) -> str:
        """Convolution without bias, batch norm, activation."""
        y = self.norm(self.conv(x, cout, kernel, bias=False, **options))
        return self.act(y, act) if act else y

    def act(self, x: str, kind: str) -> str:
        """Activation: an ONNX operator, or ``SiLU``, ``GELU``, ``GELU_tanh``, ``ReLU6``, ``PRelu``."""
        if kind == "SiLU":
            return self.op("Mul", x, self.op("Sigmoid", x))
        if kind == "ReLU6":
            low, high = (self.const(np.float32(v)) for v in (0, 6))
            return self.op("Clip", x, low, high)
        if kind == "PRelu":
            slope = self.rng.random((self.channels[x], 1, 1), dtype="float32")
            return self.op("PRelu", x, self.const(slope))
        if kind == "GELU":
            erf = self.op("Erf", self.op("Div", x, self.const(np.float32(np.sqrt(2)))))
            half = self.op("Mul", x, self.op("Add", erf, self.const(np.float32(1))))
            return self.op("Mul", half, self.const(np.float32(0.5)))
        if kind == "GELU_tanh":
            cube = self.op("Pow", x, self.const(np.float32(3)))
            cube = self.op("Mul", cube, self.const(np.float32(0.044715)))
            inner = self.op("Mul", self.op("Add", x, cube), self.const(np.float32(np.sqrt(2 / np.pi))))
            gate = self.op("Add", self.op("Tanh", inner), self.const(np.float32(1)))
            return self.op("Mul", self.op("Mul", x, gate), self.const(np.float32(0.5)))
        return self.op(kind, x)

    def linear(self, x: str, cout: int, gemm: bool = False, bias: bool = True) -> str:
        """Linear layer on the last dimension: ``Gemm`` of a transposed weight, or ``MatMul`` and ``Add``."""
        cin = self.channels[x]
        if gemm:
            weight = self.weight(cout, cin, fan_in=cin)
            return self.op("Gemm", x, weight, self.vector(cout), channels=cout, transB=1)
        y = self.op("MatMul", x, self.weight(cin, cout, fan_in=cin), channels=cout)
        return self.op("Add", y, self.vector(cout)) if bias else y

    def layer_norm(self, x: str) -> str:
        """Layer norm over the last dimension."""
        size = self.channels[x]
        scale, bias = self.vector(size, 1.0), self.vector(size)
        return self.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=1e-5)

    def attention(self, x: str, batch: int, tokens: int, heads: int) -> str:
        """Multi-head self-attention on ``[batch, tokens, hidden]`` with three projections and one after."""
        hidden = self.channels[x]
        width = hidden // heads

        def split(perm: list[int]) -> str:
            y = self.op("Reshape", self.linear(x, hidden), self.ints(batch, tokens, heads, width))
            return self.op("Transpose", y, perm=perm)

        query, key, value = split([0, 2, 1, 3]), split([0, 2, 3, 1]), split([0, 2, 1, 3])
        scores = self.op("Mul", self.op("MatMul", query, key), self.const(np.float32(width**-0.5)))
        mixed = self.op("MatMul", self.op("Softmax", scores, axis=-1), value)
        merged = self.op("Transpose", mixed, perm=[0, 2, 1, 3])
        merged = self.op("Reshape", merged, self.ints(batch, tokens, hidden), channels=hidden)
        return self.linear(merged, hidden)

    def pool(self, x: str, kind: str, kernel: int, stride: int, pad=0, **attributes) -> str:
        """``MaxPool`` or ``AveragePool`` with a square window; ``pad`` is one number or four."""
        pads = list(pad) if np.iterable(pad) else [pad] * 4
        return self.op(kind, x, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads, **attributes)

    def resize(self, x: str, scale: float, mode: str, **attributes) -> str:
        """``Resize`` of an image by a scale."""
        scales = self.const(np.array([1, 1, scale, scale], "float32"))
        return self.op("Resize", x, "", scales, mode=mode, **attributes)

    def classify(self, x: str, classes: int) -> str:
        """Global average pool and a linear layer."""
        return self.linear(self.op("Flatten", self.op("GlobalAveragePool", x)), classes, gemm=True)

    def model(self, *outputs: str) -> onnx.ModelProto:
        """Finish: a checked model whose outputs are the given values."""
        infos = [helper.make_empty_tensor_value_info(name) for name in outputs]
        graph = helper.make_graph(self.nodes, "small", self.inputs, infos, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        onnx.checker.check_model(model)
        return model
