"""The plan: what is decided for every layer, printable and editable as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tvm_sparse.errors import TvmSparseError

FORMATS = ("auto", "dense", "unstructured", "block")
# Output channels by input channels of a block.
BLOCK_SHAPES = ("4x1", "8x1", "16x1", "1x4")
# Format of depth-wise layers, which a plan shows but nobody chooses.
DEPTHWISE = "depthwise"


@dataclass(frozen=True)
class LayerWork:
    """What a kernel does in one call; counted by :mod:`.work`.

    Parameters
    ----------
    macs : int
        Multiply-adds of nonzero weights with pixels (or rows) of the tensors; padding counts as pixels.
    lane_macs : int
        Multiply-adds that the kernel executes, in all lanes of its vectors.
    utilisation : float
        Share of lanes whose result is used.
    loaded : int
        Bytes of the vector loads of the inner loops; a broadcast takes a load port like a vector and counts as one.
    l2_read, l2_written : int
        Bytes that pass from the second-level cache to the first and back.
    memory_read, memory_written : int
        Bytes that pass from beyond the second-level cache and back.
    read, written : int
        Bytes of the activations and weights, and of the output, each once.
    """

    macs: int
    lane_macs: int
    utilisation: float
    loaded: int
    l2_read: int
    l2_written: int
    memory_read: int
    memory_written: int
    read: int
    written: int


@dataclass
class LayerPlan:
    """Decision for one layer and what came of it.

    Parameters
    ----------
    name : str
        Name of the layer, unique in the model.
    kind : str
        Such as ``"conv 3x3 s2"`` or ``"linear"``.
    shape : str
        Weight and image, such as ``"64x64 @56x56"``.
    density : float
        Share of weights that are not zero.
    format : str
        ``"dense"``, ``"unstructured"``, ``"block 4x1"`` (or another shape); the user's plan may also say ``"auto"``,
        or ``"block"`` for the best shape.
    kernel : str
        Symbol of the kernel; of a depth-wise layer that its reader computes, the reader's.
    bytes_dense, bytes_packed : int
        Bytes of the weights before and after packing.
    speedup_estimate : float
        Cycles of the dense kernel over those of the chosen one, by the cost model.
    why : str
        Reason for the choice.
    work : LayerWork, optional
        What one call of the kernel does; None of a depth-wise layer that its reader computes, whose work has both.
    calls : list of int
        Numbers of its calls among the kernel's calls in a run of the model: several where a batch is split into
        groups or the layer runs in strips, none if nothing reads the layer's output or its reader computes it.
    strips : int
        Calls that do the work of one together, each on some rows of panels.
    """

    name: str
    kind: str
    shape: str
    density: float
    format: str
    kernel: str = ""
    bytes_dense: int = 0
    bytes_packed: int = 0
    speedup_estimate: float = 1.0
    why: str = ""
    work: LayerWork | None = None
    calls: list[int] = field(default_factory=list)
    strips: int = 1


@dataclass
class Plan:
    """Options and decisions of a compilation.

    Parameters
    ----------
    sparsity : str
        ``"auto"`` or ``"off"`` (everything dense).
    threshold : float
        Layers with a smaller share of zeros stay dense.
    sparse_format : str
        ``"auto"`` or the one sparse format to use.
    block_shape : str
        ``"auto"`` or the one shape of blocks to use, of `BLOCK_SHAPES`.
    overrides : mapping of str to str
        Format by layer name, from a user's plan.
    layers : list of LayerPlan
        The decisions, in order of execution.
    """

    sparsity: str = "auto"
    threshold: float = 0.5
    sparse_format: str = "auto"
    overrides: Mapping[str, str] = field(default_factory=dict)
    layers: list[LayerPlan] = field(default_factory=list)
    block_shape: str = "auto"

    def __post_init__(self) -> None:
        if self.sparsity not in ("auto", "off"):
            raise TvmSparseError(f"sparsity must be 'auto', 'off' or a plan file, not {self.sparsity!r}")
        number = isinstance(self.threshold, int | float)
        if not number or not 0 <= self.threshold <= 1:
            raise TvmSparseError(f"the sparsity threshold must be between 0 and 1, not {self.threshold}")
        if self.sparse_format not in FORMATS:
            raise TvmSparseError(
                f"unknown sparse format {self.sparse_format!r}; on this target: {', '.join(FORMATS)}"
            )
        if self.block_shape not in ("auto", *BLOCK_SHAPES):
            raise TvmSparseError(f"unknown block shape {self.block_shape!r}; known: {', '.join(BLOCK_SHAPES)}")

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON values."""
        return {
            "sparsity": self.sparsity,
            "threshold": self.threshold,
            "sparse_format": self.sparse_format,
            "block_shape": self.block_shape,
            "layers": [asdict(layer) for layer in self.layers],
        }

    @staticmethod
    def read(path: str | Path) -> Plan:
        """Read a plan that a user edited: the format of each named layer is obeyed.

        Raises
        ------
        TvmSparseError
            If the file cannot be read, is not a plan, or names an unknown format.
        """
        try:
            data = json.loads(Path(path).read_text())
            formats = {str(layer["name"]): layer["format"] for layer in data["layers"]}
        except OSError as error:
            raise TvmSparseError(f"the plan '{path}' cannot be read: {error.strerror or error}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise TvmSparseError(f"{path} is not a plan ({error!r}); write one with --dump-plan") from error
        # What a depth-wise layer has is not chosen: such a layer is left to the compiler again.
        overrides = {name: "auto" if value == DEPTHWISE else value for name, value in formats.items()}
        valid = [*FORMATS, *(f"block {shape}" for shape in BLOCK_SHAPES)]
        wrong = {n: f for n, f in overrides.items() if f not in valid}
        if wrong:
            name, value = next(iter(wrong.items()))
            known = ", ".join(FORMATS)
            raise TvmSparseError(f"{path}: layer {name!r} has the unknown format {value!r}; known: {known}")
        return Plan(
            data.get("sparsity", "auto"),
            data.get("threshold", 0.5),
            data.get("sparse_format", "auto"),
            overrides,
            block_shape=data.get("block_shape", "auto"),
        )

    def check_overrides(self) -> None:
        """Raise if the user's plan names a layer that the model does not have."""
        known = {layer.name for layer in self.layers}
        unknown = sorted(set(self.overrides) - known)
        if unknown:
            raise TvmSparseError(
                f"the plan names layers that the model does not have: {', '.join(unknown[:5])}; "
                f"it has: {', '.join(sorted(known)[:10])}"
            )
