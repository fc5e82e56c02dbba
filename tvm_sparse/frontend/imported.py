"""What a front end hands over to the compiler."""

from __future__ import annotations

from dataclasses import dataclass

import tvm

from tvm_sparse.runtime.spec import TensorSpec


@dataclass(frozen=True)
class Imported:
    """A model as a Relax module, with the names its user knows.

    Parameters
    ----------
    module : tvm.IRModule
        Holds one function, ``main``, whose parameters are the model's inputs in order; weights are bound
        as constants and every shape is static. It returns a tensor when there is one output, else a tuple.
    inputs, outputs : tuple of TensorSpec
        Names as in the model, shapes and dtypes, in the order of ``main``'s parameters and results.
    """

    module: tvm.IRModule
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
