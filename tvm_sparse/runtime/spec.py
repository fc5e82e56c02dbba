"""Description of a model's input or output."""

from __future__ import annotations

from dataclasses import dataclass

# Compiled code reads most tensors with aligned vector loads.
ALIGNMENT = 64


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and dtype of an input or output of a model.

    Parameters
    ----------
    name : str
        Name as in the model.
    shape : tuple of int
        Static shape.
    dtype : str
        numpy name of the element type, such as ``"float32"``.
    alignment : int
        Bytes that the address of an input is a multiple of, where it shall not be copied.
    own : bool
        Whether each run puts an output into memory that nothing else uses, so that it need not be copied.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    alignment: int = ALIGNMENT
    own: bool = False
