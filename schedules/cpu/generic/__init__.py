"""Schedules for every operator that the column kernels do not take.

A rule is a function ``rule(program, isa)`` that returns a scheduled PrimFunc, or None for "not mine". Rules write
new loops around a function's expressions instead of moving the old ones with schedule primitives: then tails,
borders and vectors are what the rule says they are, for any extents.
"""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx

from ..isa import Isa
from .nest import Program
from .tiled import tiled

Rule = Callable[[Program, Isa], "tirx.PrimFunc | None"]

# The first rule that answers wins: from special to general.
RULES: tuple[Rule, ...] = (tiled,)
