"""The ONNX project's node tests, as cases for an ahead-of-time compiler of static shapes.

Inputs that decide shapes, axes or counts (`SHAPE_INPUTS`) are graph inputs in those tests; a compiler of
static shapes takes them as constants, so they become initialisers here. Everything else stays an input.
"""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass

import numpy as np
import onnx
from onnx.backend.test.loader import load_model_tests

SHAPE_INPUTS: dict[str, tuple[int, ...]] = {
    "AffineGrid": (1,),
    "BlackmanWindow": (0,),
    "CenterCropPad": (1,),
    "Col2Im": (1, 2),
    "ConstantOfShape": (0,),
    "CumProd": (1,),
    "CumSum": (1,),
    "DFT": (1, 2),
    "Dropout": (1, 2),
    "Expand": (1,),
    "HammingWindow": (0,),
    "HannWindow": (0,),
    "MaxUnpool": (2,),
    "MelWeightMatrix": (0, 1, 2, 3, 4),
    "OneHot": (1,),
    "Pad": (1, 2, 3),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "STFT": (1, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Trilu": (1,),
    "Unsqueeze": (1,),
    "Upsample": (1,),
} | {
    f"Reduce{kind}": (1,)
    for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
}

# Kinds of tests outside of what this compiler claims, each with the reason that failing.md states.
_DOMAINS = {
    "ai.onnx.preview": "left out: an operator set in preview",
    "ai.onnx.preview.training": "left out: training operators",
    "ai.onnx.ml": "left out: classical machine learning operators",
}
_ELEMENT_TYPES = {
    onnx.TensorProto.STRING: "left out: string tensors",
    onnx.TensorProto.COMPLEX64: "left out: complex tensors",
    onnx.TensorProto.COMPLEX128: "left out: complex tensors",
}


@dataclass(frozen=True)
class Case:
    """One node test: a model and sets of inputs and expected outputs."""

    name: str
    model: onnx.ModelProto
    data: tuple[tuple[dict[str, np.ndarray], list[np.ndarray]], ...]
    rtol: float
    atol: float

    @property
    def operator(self) -> str:
        """Operator under test (of an expanded test, the one it expands)."""
        return self.model.graph.node[0].op_type if self.model.graph.node else ""


@functools.cache
def all_cases() -> dict[str, Case | str]:
    """Every node test by name: a case, or the reason why it is left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tests = {test.name: test for test in load_model_tests(kind="node")}
    shape_inputs = {name: _shape_inputs(test.model) for name, test in tests.items()}
    cases: dict[str, Case | str] = {}
    for name, test in sorted(tests.items()):
        reason = _left_out(test.model)
        if reason is not None:
            cases[name] = reason
            continue
        # The expansion of an operator has the same inputs under the same names.
        fixed = shape_inputs[name] | shape_inputs.get(_unexpanded(name), set())
        cases[name] = _case(test, fixed)
    return cases


def _unexpanded(name: str) -> str:
    return name[: name.index("_expanded")] if "_expanded" in name else name


def _shape_inputs(model: onnx.ModelProto) -> set[str]:
    """Names of graph inputs that some node reads where it expects a shape, axes or a count."""
    names = {
        node.input[i]
        for node in model.graph.node
        for i in SHAPE_INPUTS.get(node.op_type, ())
        if i < len(node.input)
    }
    return names & {value.name for value in model.graph.input}


def _left_out(model: onnx.ModelProto) -> str | None:
    """Why a test is outside of what this compiler claims, or None."""
    for opset in model.opset_import:
        if opset.domain in _DOMAINS:
            return _DOMAINS[opset.domain]
    for value in [*model.graph.input, *model.graph.output]:
        kind = value.type.WhichOneof("value")
        if kind != "tensor_type":
            return f"left out: {kind.removesuffix('_type')}s instead of tensors"
        if value.type.tensor_type.elem_type in _ELEMENT_TYPES:
            return _ELEMENT_TYPES[value.type.tensor_type.elem_type]
    return None


def _array(value) -> np.ndarray:
    """Data sets hold arrays, numbers, or tensors in ONNX's own form."""
    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)


def _case(test, fixed: set[str]) -> Case:
    names = [value.name for value in test.model.graph.input]
    model = onnx.ModelProto()
    model.CopyFrom(test.model)
    data = []
    for inputs, outputs in test.data_sets:
        feeds = dict(zip(names, map(_array, inputs), strict=False))
        data.append((feeds, [_array(value) for value in outputs]))
    for name in sorted(fixed):
        values = [feeds.pop(name) for feeds, _ in data if name in feeds]
        if values:
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(values[0]), name))
    return Case(test.name, model, tuple(data), test.rtol, test.atol)
