"""The functions of the former ``tvm.driver.tvmc`` module, for scripts that drove TVM from Python.

>>> from tvm_sparse import tvmc                                   # doctest: +SKIP
>>> model = tvmc.load("net.onnx", shape_dict={"x": [1, 3, 224, 224]})  # doctest: +SKIP
>>> package = tvmc.compile(model, target="llvm", package_path="net.tar")  # doctest: +SKIP
>>> result = tvmc.run(package, device="cpu")                      # doctest: +SKIP
>>> result.get_output("output_0"), result.times.mean              # doctest: +SKIP
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import tvm_sparse
from tvm_sparse.errors import TvmSparseError as TVMCException
from tvm_sparse.runtime import BenchmarkResult, Package, ProfileResult
from tvm_sparse.runtime.arrays import fill_inputs
from tvm_sparse.runtime.npz import write_outputs
from tvm_sparse.tvmc.arguments import check_input_file
from tvm_sparse.tvmc.target import parse_target

__all__ = ["TVMCException", "TVMCModel", "TVMCPackage", "TVMCResult", "compile", "load", "run"]


@dataclass(frozen=True)
class TVMCModel:
    """A model file with what is needed to read it.

    Parameters
    ----------
    path : str
        The file.
    model_format : str, optional
        ``"onnx"`` or ``"pytorch"``; default: by its suffix.
    shape_dict : mapping, optional
        Shapes of inputs by name.
    """

    path: str
    model_format: str | None = None
    shape_dict: Mapping[str, Sequence[int]] | None = None


@dataclass(frozen=True)
class TVMCPackage:
    """A compiled model.

    Parameters
    ----------
    package_path : str
        Package on disk.
    package : Package, optional
        The same opened; it keeps a temporary file alive. Default: opened from `package_path`.
    """

    package_path: str
    package: Package = field(default=None, repr=False)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.package is None:
            object.__setattr__(self, "package", Package.open(self.package_path))


@dataclass(frozen=True)
class TVMCResult:
    """Result of a run.

    Parameters
    ----------
    outputs : dict of str to numpy.ndarray
        ``output_0``, ``output_1``, ... in the model's order.
    times : BenchmarkResult, optional
        Times in milliseconds if a benchmark was asked for.
    profile : ProfileResult, optional
        Times of the layers if they were asked for.
    """

    outputs: dict[str, np.ndarray]
    times: BenchmarkResult | None = None
    profile: ProfileResult | None = None

    def format_times(self) -> str:
        """The summary of the times, or an empty text."""
        return str(self.times) if self.times is not None else ""

    def get_output(self, name: str) -> np.ndarray:
        """One output; raises `TVMCException` if there is none of this name."""
        try:
            return self.outputs[name]
        except KeyError:
            raise TVMCException(f"No output '{name}'. Outputs: {list(self.outputs)}.") from None

    def save(self, output_path: str | os.PathLike) -> None:
        """Write the outputs to a ``.npz`` file."""
        write_outputs(output_path, self.outputs)


def load(
    path: str | os.PathLike,
    model_format: str | None = None,
    shape_dict: Mapping[str, Sequence[int]] | None = None,
) -> TVMCModel:
    """Name a model file; it is read when it is compiled.

    Raises
    ------
    TVMCException
        If there is no such file.
    """
    return TVMCModel(check_input_file(os.fspath(path)), model_format, shape_dict)


def compile(
    tvmc_model: TVMCModel,
    target: str | Mapping[str, Any] | None = None,
    *,
    package_path: str | os.PathLike | None = None,
    opt_level: int = 3,
    disabled_pass: str | Sequence[str] = (),
    dump_code: str | Sequence[str] = (),
    **options: Any,
) -> TVMCPackage:
    """Compile a model.

    Parameters
    ----------
    tvmc_model : TVMCModel
        What `load` returned.
    target : str or mapping, optional
        As ``tvmc compile --target``; default: this machine's CPU.
    package_path : str or os.PathLike, optional
        Where to write; default: a temporary file that lives as long as the result.
    opt_level, disabled_pass, dump_code
        As on the command line; lists may be given as text with commas.
    **options
        Further arguments of `tvm_sparse.compile`.

    Raises
    ------
    TVMCException
        As `tvm_sparse.compile`.
    """
    package = tvm_sparse.compile(
        tvmc_model.path,
        parse_target(target) if isinstance(target, str) else target,
        input_shapes=tvmc_model.shape_dict,
        model_format=tvmc_model.model_format,
        opt_level=opt_level,
        disabled_passes=_names(disabled_pass),
        dump_code=_names(dump_code),
        output=None if package_path is None else Path(package_path),
        **options,
    )
    return TVMCPackage(str(package.path), package)


def run(
    tvmc_package: TVMCPackage,
    device: str = "cpu",
    *,
    inputs: Mapping[str, np.ndarray] | None = None,
    fill_mode: str = "random",
    benchmark: bool = True,
    repeat: int = 10,
    number: int = 10,
    profile: bool = False,
    end_to_end: bool = False,
    num_threads: int | None = None,
) -> TVMCResult:
    """Run a compiled model, and by default time it.

    Raises
    ------
    TVMCException
        For a device other than ``"cpu"``, inputs that don't fit, or a package that cannot be loaded.
    """
    if device != "cpu":
        raise TVMCException(f"Unknown device '{device}'. Known devices: cpu.")
    module = tvmc_package.package.load(num_threads)
    arrays = fill_inputs(module.inputs, fill_mode) if inputs is None else inputs
    outputs = {f"output_{i}": array for i, array in enumerate(module.run(arrays).values())}
    times = None
    if benchmark:
        times = module.benchmark(arrays, repeat=repeat, number=number, end_to_end=end_to_end)
    return TVMCResult(outputs, times, module.profile(arrays, repeat=number) if profile else None)


def _names(value: str | Sequence[str]) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    return tuple(part.strip() for part in parts if part.strip())
