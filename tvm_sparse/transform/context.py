"""What the passes of one compilation share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import tvm
from tvm.tirx import PrimFunc

from tvm_sparse.plan.plan import Plan
from tvm_sparse.plan.stripes import Stripes
from tvm_sparse.schedules.cpu.isa import Isa


class Kernel(Protocol):
    """A kernel of a family in :mod:`tvm_sparse.schedules`."""

    def symbol(self, isa: Isa) -> str:
        """Name of the compiled function."""

    def build(self, isa: Isa) -> PrimFunc:
        """The function."""


@dataclass
class CompileContext:
    """Target, plan and kernels of one compilation.

    Parameters
    ----------
    target : tvm.target.Target
        The target.
    isa : Isa
        Its vector instruction set.
    plan : Plan
        What is decided per layer; the passes fill in what they did.
    kernels : dict of str to Kernel
        Kernels that the module calls, by symbol.
    weights : list of numpy.ndarray or None
        Large constants, which LiftConstants moves here; None keeps them in the library.
    thread_counts : tuple of int
        Numbers of threads that the model is planned for; it runs on any number.
    stripes : dict of str to Stripes
        How calls can run in parts, by what they are marked with (:func:`.calls.call_of`).
    unaligned_inputs : set of int
        Positions of the model's inputs whose memory may begin at any element.
    own_outputs : set of int
        Positions of the model's outputs that are in memory of their own.
    """

    target: tvm.target.Target
    isa: Isa
    plan: Plan
    kernels: dict[str, Kernel] = field(default_factory=dict)
    weights: list[np.ndarray] | None = None
    thread_counts: tuple[int, ...] = (1,)
    stripes: dict[str, Stripes] = field(default_factory=dict)
    unaligned_inputs: set[int] = field(default_factory=set)
    own_outputs: set[int] = field(default_factory=set)

    def use(self, kernel: Kernel) -> str:
        """Note that a kernel is called and return its symbol."""
        symbol = kernel.symbol(self.isa)
        self.kernels[symbol] = kernel
        return symbol
