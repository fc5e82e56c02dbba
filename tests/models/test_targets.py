"""Networks compiled for other CPUs than this machine's: older x86 CPUs run here, aarch64 in an emulator."""

from __future__ import annotations

import functools
import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import tvm

import tvm_sparse
from tests.models.graph import Graph
from tests.models.networks import make
from tests.models.test_small_networks import TOLERANCE, expected_of, feeds_of
from tests.runtime.programs import compile_program, run_program
from tvm_sparse.build.target import make_target
from tvm_sparse.errors import PackageError
from tvm_sparse.runtime import Package
from tvm_sparse.runtime.host import cpu_features, machine
from tvm_sparse.schedules.cpu.isa import Isa

# Dense, sparse and depth-wise convolutions, pooling, linear layers; attention, norms, activations.
NAMES = ("mobile_relu6", "encoder_batch2")
MORE_NAMES = ("residual_33x47", "detector_silu_concat", "upsampling_decoder", "activations")
X86 = {"haswell": "avx2", "znver3": "avx2", "skylake-avx512": "avx512", "x86-64": "generic"}
AARCH64 = "llvm -mtriple=aarch64-linux-gnu -mattr=+neon"
AARCH64_CPUS = "llvm -mtriple=aarch64-linux-gnu -mcpu=cortex-a72", "llvm -mtriple=aarch64-linux-gnu -mcpu=neoverse-n1"

# TVM's runtime for aarch64, as scripts/setup-aarch64 leaves it.
FOLDER = Path(os.environ.get("TVM_SPARSE_AARCH64", Path(__file__).parents[2] / ".peers" / "aarch64"))
COMPILER = "aarch64-linux-gnu-g++"
EMULATOR = "qemu-aarch64"


@functools.cache
def case(name: str) -> tuple[onnx.ModelProto, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A network at 90 % zeros with inputs, and ONNX Runtime's outputs."""
    model = make(name, 0.9)
    feeds = feeds_of(model)
    return model, feeds, expected_of(model, feeds)


def check(outputs: list[np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Compare outputs with ONNX Runtime's."""
    for output, reference in zip(outputs, expected.values(), strict=True):
        assert output.shape == reference.shape and output.dtype == reference.dtype
        error = np.abs(output.astype("float64") - reference).max() / np.abs(reference).max()
        assert error <= TOLERANCE, f"relative error {error:.2e}"


def older_target(cpu: str) -> tvm.target.Target:
    """The target of a CPU whose features this machine has; skips where it lacks some."""
    target = make_target(f"llvm -mcpu={cpu}")
    missing = set(Isa.from_target(target).features) - (cpu_features() or set())
    if missing:
        pytest.skip(f"this machine lacks {', '.join(sorted(missing))}")
    return target


@pytest.mark.skipif(machine() != "x86_64", reason="runs code for x86_64")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("cpu", X86)
def test_older_cpus(cpu, name):
    target = older_target(cpu)
    model, feeds, expected = case(name)
    package = tvm_sparse.compile(model, target=target)
    assert package.metadata["isa"] == X86[cpu]
    check(list(package.load().run(feeds).values()), expected)


@pytest.mark.skipif(machine() != "x86_64", reason="runs code for x86_64")
@pytest.mark.parametrize("cpu", X86)
def test_sparse_linear_layer_on_one_row(cpu):
    # Large enough that its columns, of another type than the weights, are kept beside the code.
    net = Graph(0.9)
    model = net.model(net.linear(net.input(1, 1024), 384))
    feeds = feeds_of(model)
    package = tvm_sparse.compile(model, target=older_target(cpu))
    check(list(package.load().run(feeds).values()), expected_of(model, feeds))


def cross_compiled(name: str, target: str, folder: Path) -> Package:
    """A network for aarch64."""
    package = tvm_sparse.compile(
        case(name)[0], target=target, output=folder / "model.tar", cross_compiler=COMPILER
    )
    assert (package.metadata["arch"], package.metadata["isa"]) == ("aarch64", "neon")
    return package


@pytest.fixture(scope="module")
def run_on_aarch64(tmp_path_factory):
    """A function that runs a package in an emulator; skips where something for that is missing."""
    missing = [program for program in (COMPILER, EMULATOR) if shutil.which(program) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed (apt-get install g++-aarch64-linux-gnu qemu-user)")
    libraries = FOLDER / "libtvm_runtime.so", FOLDER / "libtvm_ffi.so"
    if not all(library.is_file() for library in libraries):
        pytest.skip("no TVM runtime for aarch64 (scripts/setup-aarch64 fetches it)")
    program = compile_program(tmp_path_factory.mktemp("aarch64") / "run_package", COMPILER, libraries)
    command = [EMULATOR, "-L", "/usr/aarch64-linux-gnu", program]
    # Idle workers must not spin: they would be emulated, too.
    environment = {**os.environ, "TVM_NUM_THREADS": "2"}
    return lambda package, feeds, folder: run_program(command, package, feeds, folder, environment)


@pytest.mark.parametrize("name", NAMES)
def test_aarch64(name, run_on_aarch64, tmp_path):
    _, feeds, expected = case(name)
    check(run_on_aarch64(cross_compiled(name, AARCH64, tmp_path), feeds, tmp_path), expected)


@pytest.mark.slow
@pytest.mark.parametrize("target", AARCH64_CPUS)
@pytest.mark.parametrize("name", [*NAMES, *MORE_NAMES])
def test_cpus_of_aarch64(name, target, run_on_aarch64, tmp_path):
    _, feeds, expected = case(name)
    check(run_on_aarch64(cross_compiled(name, target, tmp_path), feeds, tmp_path), expected)


@pytest.mark.skipif(machine() == "aarch64", reason="this machine runs the package")
@pytest.mark.skipif(shutil.which(COMPILER) is None, reason=f"{COMPILER} is not installed")
def test_package_of_another_machine_is_refused_by_name(tmp_path):
    package = cross_compiled(NAMES[0], AARCH64, tmp_path)
    with pytest.raises(PackageError, match="aarch64"):
        package.load()
