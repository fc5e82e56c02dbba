"""What a kernel does with finished sums before it stores them: residual, activation.

The epilogue's numbers lie in one float array: the bias of each output channel, as many zeros (the start of later
K-blocks), then `PARAMETERS` scalars, then per-channel slopes where the activation has them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm.script.ir_builder import tirx as T

from . import math
from .ir import Flat, as_long, bind_lets, broadcast, constant
from .isa import Isa

PARAMETERS = 4

# How attributes of operators say that there is no bound.
_UNBOUNDED = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Activation:
    """An activation that kernels apply to their sums.

    Parameters
    ----------
    kind : str
        One of `KINDS`. ``"clip"`` also serves as no activation, ReLU and ReLU6.
    parameters : tuple of float
        ``(low, high)`` of a clip, ``(slope,)`` of a leaky ReLU; empty otherwise.
    """

    kind: str = "clip"
    parameters: tuple[float, ...] = (float("-inf"), float("inf"))

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown activation {self.kind!r}; known: {', '.join(KINDS)}")

    @property
    def epilogue(self) -> str:
        """What the kernels over columns emit: `kind`, but ``"none"`` or ``"relu"`` for clips that need no bounds."""
        if self.kind == "clip" and self.parameters[1] >= _UNBOUNDED:
            if self.parameters[0] <= -_UNBOUNDED:
                return "none"
            if self.parameters[0] == 0:
                return "relu"
        return self.kind


def epilogue_array(
    bias: np.ndarray, activation: Activation, slopes: np.ndarray | None = None
) -> np.ndarray:
    """Numbers of an epilogue.

    Parameters
    ----------
    bias : numpy.ndarray
        float32 ``[M]``.
    activation : Activation
        The activation.
    slopes : numpy.ndarray, optional
        float32 ``[M]``, for ``"prelu"``.

    Returns
    -------
    numpy.ndarray
        float32 ``[2 * M + 4 (+ M)]``.
    """
    parameters = np.zeros(PARAMETERS, np.float32)
    given = np.array(activation.parameters)
    # Infinite sums stay so.
    given = np.where(np.abs(given) >= _UNBOUNDED, np.copysign(np.inf, given), given)
    parameters[: len(given)] = given
    parts = [bias, np.zeros_like(bias), parameters]
    if activation.kind == "prelu":
        if slopes is None or slopes.shape != bias.shape:
            raise ValueError("a PReLU needs one slope per output channel")
        parts.append(slopes)
    return np.concatenate(parts).astype(np.float32)


def emit_activation(kind: str, value, numbers: Flat, channels, row, lanes: int):
    """Apply an activation to a vector of sums.

    Parameters
    ----------
    kind : str
        One of `KINDS`, ``"none"`` or ``"relu"``.
    value : expression
        float32 vector.
    numbers : Flat
        The epilogue's array.
    channels, row : expression
        Output channels M, and the vector's channel.
    lanes : int
        Elements of a vector.
    """

    def parameter(index: int):
        return broadcast(numbers[channels * 2 + index], lanes)

    if kind == "none":
        return value
    if kind == "relu":
        return T.max(value, constant(0.0, lanes))
    if kind == "clip":
        return T.min(T.max(value, parameter(0)), parameter(1))
    if kind == "leaky_relu":
        return T.max(value, constant(0.0, lanes)) + parameter(0) * T.min(value, constant(0.0, lanes))
    if kind == "prelu":
        slope = broadcast(numbers[channels * 2 + PARAMETERS + row], lanes)
        return T.max(value, constant(0.0, lanes)) + slope * T.min(value, constant(0.0, lanes))
    function = _FUNCTIONS[kind]
    if kind == "gelu" and lanes == math.GELU_PIECES:
        # Only vectors of AVX-512 have so many lanes.
        function = math.gelu_by_pieces
    return bind_lets(function(T.bind(value)))


def is_applied_in_memory(kind: str, isa: Isa) -> bool:
    """Whether sums are best stored before an activation that takes many steps.

    Where the sums fill the registers, its steps and constants come from the stack and wait for it, ten times each.
    """
    return kind in _LONG and isa.registers < 32


def emit_stored_activation(
    kind: str, output: Flat, place, vectors: int, numbers: Flat, channels, row, lanes: int
) -> None:
    """Apply an activation to vectors of stored sums, one after the other.

    Parameters
    ----------
    output : Flat
        Where they are stored.
    place : expression
        Element of the first.
    vectors : int
        How many follow each other.
    kind, numbers, channels, row, lanes
        As of `emit_activation`.
    """
    with T.serial(0, vectors) as s:
        at = T.bind(place + as_long(s) * lanes)
        value = T.bind(output.load_vector(at))
        output.store_vector(at, emit_activation(kind, value, numbers, channels, row, lanes))


_FUNCTIONS = {
    "gelu": math.gelu,
    "gelu_tanh": math.gelu_tanh,
    "silu": math.silu,
    "sigmoid": math.sigmoid,
    "tanh": math.tanh,
    "hard_swish": math.hard_swish,
    "hard_sigmoid": math.hard_sigmoid,
}

_LONG = ("gelu", "gelu_tanh", "silu", "sigmoid", "tanh")

KINDS = ("clip", "leaky_relu", "prelu", *_FUNCTIONS)
