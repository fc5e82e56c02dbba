"""Runs packages in the C++ program of ``cpp/run_package.cc``, here or in an emulator."""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tvm_ffi.libinfo

from tvm_sparse.runtime import Package

SOURCE = Path(__file__).parent / "cpp" / "run_package.cc"


def compile_program(path: Path, compiler: str, libraries: Sequence[Path]) -> Path:
    """Compile the program.

    Parameters
    ----------
    path : Path
        The executable.
    compiler : str
        C++ compiler.
    libraries : sequence of Path
        ``libtvm_runtime.so`` and ``libtvm_ffi.so`` of the machine that the compiler is for.
    """
    command = [compiler, "-std=c++17", "-O1", "-Wall", "-Werror", SOURCE, "-o", path]
    command += [f"-I{folder}" for folder in tvm_ffi.libinfo.include_paths()]
    # The program refers to no symbol of the runtime: it registers its functions when it is loaded.
    command += ["-Wl,--no-as-needed"]
    for library in libraries:
        command += [library, f"-Wl,-rpath,{library.parent}"]
    subprocess.run(command, check=True)
    return path


def run_program(
    command: Sequence[str | Path],
    package: Package,
    inputs: Mapping[str, np.ndarray],
    folder: Path,
    environment: Mapping[str, str] | None = None,
) -> list[np.ndarray]:
    """Run a package in the program.

    Parameters
    ----------
    command : sequence
        The program, after an emulator if it needs one.
    package : Package
        A package in the form of a tar.
    inputs : mapping of str to numpy.ndarray
        Inputs by name.
    folder : Path
        Where files are written.
    environment : mapping, optional
        Environment of the program; default: this process's.

    Returns
    -------
    list of numpy.ndarray
        The outputs; what the program prints of each is checked.
    """
    with tarfile.open(package.path) as tar:
        tar.extractall(folder / "unpacked", filter="data")
    arguments = []
    for spec in package.inputs:
        array = inputs[spec.name]
        array.tofile(folder / f"{spec.name}.bin")
        arguments.append(f"{array.dtype}:{'x'.join(map(str, array.shape))}:{folder / spec.name}.bin")
    done = subprocess.run(
        [*command, folder / "unpacked", *arguments],
        cwd=folder, check=True, capture_output=True, text=True, env=environment,
    )  # fmt: skip
    outputs = []
    for index, (line, spec) in enumerate(zip(done.stdout.splitlines(), package.outputs, strict=True)):
        assert line.replace(" ", "").startswith(f"output_{index}:{spec.dtype}")
        outputs.append(np.fromfile(folder / f"output_{index}.bin", spec.dtype).reshape(spec.shape))
    return outputs
