"""Transcendental functions of float32 as polynomials: straight-line vector code, never a call of libm.

Every function takes a ``float32`` expression of any number of lanes and returns one of the same type, made of
multiply-adds, integer shifts, selects and at most one division, so it compiles to vector code on every target.
Intermediate values are bound with ``tirx.Let``: without that the expression would grow exponentially.

All coefficients are minimax fits (Lawson's iteration, weighted for relative error) of the functions named beside
them. A NaN operand gives NaN: clamps are written ``max(c, x)``, compiled to ``c > x ? c : x``, which keeps it and is
one instruction. They are no selects: TVM's simplifier assumes each select's condition with all bound values inlined,
which takes time exponential in the length of a chain of them.
"""


from .activations import (
    GELU_PIECES,
    elu,
    erf,
    gelu,
    gelu_by_pieces,
    gelu_tanh,
    hard_sigmoid,
    hard_swish,
    mish,
    sigmoid,
    silu,
    softplus,
    tanh,
)
from .exponentials import (
    cosh,
    exp,
    exp2,
    exp2_nonpositive,
    exp_nonpositive,
    expm1,
    log,
    log1p_unit,
    power,
    sinh,
)
from .scope import fma

__all__ = [
    "GELU_PIECES",
    "cosh",
    "elu",
    "erf",
    "exp",
    "exp2",
    "exp2_nonpositive",
    "exp_nonpositive",
    "expm1",
    "fma",
    "gelu",
    "gelu_by_pieces",
    "gelu_tanh",
    "hard_sigmoid",
    "hard_swish",
    "log",
    "log1p_unit",
    "mish",
    "power",
    "sigmoid",
    "silu",
    "sinh",
    "softplus",
    "tanh",
]
