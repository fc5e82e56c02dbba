"""A C++ program runs a package with the headers and libraries of the wheels alone."""

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
import tvm_ffi.libinfo

from tests.runtime.programs import compile_program, run_program
from tvm_sparse.runtime import Package


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    """The compiled program."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("g++ is not installed")
    tvm_package = Path(importlib.util.find_spec("tvm").origin).parent
    libraries = tvm_package / "lib" / "libtvm_runtime.so", Path(tvm_ffi.libinfo.find_libtvm_ffi())
    return compile_program(tmp_path_factory.mktemp("cpp") / "run_package", compiler, libraries)


@pytest.mark.parametrize("apart", [False, True])
def test_cpp_equals_python(
    program, library, library_with_weights, weights, metadata, inputs, tmp_path, apart
):
    chosen = (library_with_weights, metadata, weights) if apart else (library, metadata)
    package = Package.write(tmp_path / "module.tar", *chosen)
    outputs = run_program([program], package, inputs, tmp_path)
    for written, array in zip(outputs, package.load().run(inputs).values(), strict=True):
        np.testing.assert_array_equal(written, array)
