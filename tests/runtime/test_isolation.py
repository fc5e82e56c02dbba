"""A package runs where only numpy, apache-tvm-ffi and TVM's runtime library are installed."""

import importlib.util
import os
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np

import tvm_sparse

RUN = """
import sys
import numpy as np
from tvm_sparse.runtime import layer_profile, load
from tvm_sparse.runtime.arrays import fill_inputs
module = load(sys.argv[1])
outputs = module.run(fill_inputs(module.inputs, seed=3))
np.savez(sys.argv[2], **outputs)
module.benchmark(number=1)
layer_profile(module.profile(repeat=1), module.metadata.get("plan", {}).get("layers", [])).to_json()
loaded = sorted({name.split(".")[0] for name in sys.modules} & {"tvm", "onnx", "torch", "onnxslim", "rich"})
assert not loaded, loaded
maps = open("/proc/self/maps").read()
assert "libtvm_runtime" in maps and "libtvm_compiler" not in maps
"""

FORBID = """
import sys
class Forbid:
    def find_spec(self, name, path=None, target=None):
        # importlib.util.find_spec("tvm") asks here as well, and may: it runs no code of the package.
        if name.split(".")[0] in ("onnx", "torch", "onnxslim") or name.startswith("tvm."):
            raise ImportError(f"{name} is forbidden here")
sys.meta_path.insert(0, Forbid())
"""


def expected_outputs(package, check, file):
    from tvm_sparse.runtime.arrays import fill_inputs

    with np.load(file) as outputs:
        check({name: outputs[name] for name in outputs.files}, fill_inputs(package.inputs, seed=3))


def test_neither_compiler_nor_frontends_are_loaded(package, check, tmp_path):
    subprocess.run([sys.executable, "-c", FORBID + RUN, package.path, tmp_path / "out.npz"], check=True)
    expected_outputs(package, check, tmp_path / "out.npz")


def bare_environment(folder: Path) -> Path:
    """An interpreter that sees numpy, tvm_ffi, libtvm_runtime.so and this package's runtime, nothing else."""
    venv.EnvBuilder(with_pip=False, symlinks=True).create(folder)
    (site,) = folder.glob("lib/python*/site-packages")
    for name in ("numpy", "tvm_ffi", "typing_extensions"):
        origin = Path(importlib.util.find_spec(name).origin)
        origin = origin.parent if origin.name == "__init__.py" else origin
        (site / origin.name).symlink_to(origin)
        libraries = origin.parent / f"{name}.libs"
        if libraries.exists():
            (site / libraries.name).symlink_to(libraries)
    tvm_package = Path(importlib.util.find_spec("tvm").origin).parent
    (site / "tvm" / "lib").mkdir(parents=True)
    (site / "tvm" / "lib" / "libtvm_runtime.so").symlink_to(tvm_package / "lib" / "libtvm_runtime.so")
    (site / "tvm" / "_version.py").symlink_to(tvm_package / "_version.py")
    ours = Path(tvm_sparse.__file__).parent
    (site / "tvm_sparse").mkdir()
    for name in ("__init__.py", "errors.py", "runtime"):
        (site / "tvm_sparse" / name).symlink_to(ours / name)
    return folder / "bin" / "python"


def test_fresh_environment(package, check, tmp_path):
    python = bare_environment(tmp_path / "env")
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "TVM_L"))}
    subprocess.run([python, "-c", RUN, package.path, tmp_path / "out.npz"], check=True, env=clean)
    expected_outputs(package, check, tmp_path / "out.npz")
    command = [python, "-m", "tvm_sparse.runtime", package.path, "--repeat", "2"]
    printed = subprocess.run(command, check=True, env=clean, capture_output=True, text=True).stdout
    assert "scores: float32[6, 40]" in printed and "Execution time summary" in printed
