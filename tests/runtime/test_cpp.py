"""A C++ program runs a package with the headers and libraries of the wheels alone."""

import importlib.util
import shutil
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
import tvm_ffi.libinfo

from tvm_sparse.runtime import Package

SOURCE = Path(__file__).parent / "cpp" / "run_package.cc"


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    """The compiled program."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("g++ is not installed")
    tvm_package = Path(importlib.util.find_spec("tvm").origin).parent
    ffi_library = Path(tvm_ffi.libinfo.find_libtvm_ffi())
    path = tmp_path_factory.mktemp("cpp") / "run_package"
    command = [compiler, "-std=c++17", "-O1", "-Wall", "-Werror", SOURCE, "-o", path]
    command += [f"-I{folder}" for folder in tvm_ffi.libinfo.include_paths()]
    # The program refers to no symbol of the runtime: it registers its functions when it is loaded.
    command += ["-Wl,--no-as-needed"]
    for library in (tvm_package / "lib" / "libtvm_runtime.so", ffi_library):
        command += [library, f"-Wl,-rpath,{library.parent}"]
    subprocess.run(command, check=True)
    return path


@pytest.mark.parametrize("apart", [False, True])
def test_cpp_equals_python(
    program, library, library_with_weights, weights, metadata, inputs, tmp_path, apart
):
    chosen = (library_with_weights, metadata, weights) if apart else (library, metadata)
    package = Package.write(tmp_path / "module.tar", *chosen)
    with tarfile.open(package.path) as tar:
        tar.extractall(tmp_path / "unpacked", filter="data")
    arguments = []
    for name, array in inputs.items():
        array.tofile(tmp_path / f"{name}.bin")
        arguments.append(f"{array.dtype}:{'x'.join(map(str, array.shape))}:{tmp_path / name}.bin")
    command = [program, tmp_path / "unpacked", *arguments]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    expected = package.load().run(inputs)
    lines = done.stdout.splitlines()
    assert len(lines) == len(expected)
    for index, (line, array) in enumerate(zip(lines, expected.values(), strict=True)):
        assert line.replace(" ", "").startswith(f"output_{index}:{array.dtype}")
        written = np.fromfile(tmp_path / f"output_{index}.bin", array.dtype).reshape(array.shape)
        np.testing.assert_array_equal(written, array)
