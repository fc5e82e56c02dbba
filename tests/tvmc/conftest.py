"""A package and a compiler stand-in, so that the command line is tested by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tvm_sparse
from tvm_sparse.runtime import Package
from tvm_sparse.runtime.host import machine
from tvm_sparse.tvmc.main import run_command

LAYERS = [
    {
        "name": "conv1",
        "kind": "conv 3x3 s2",
        "shape": "64x32x3x3 @56x56",
        "density": 0.1,
        "format": "unstructured",
        "kernel": "rectify",
        "bytes_dense": 73728,
        "bytes_packed": 9000,
        "speedup_estimate": 4.25,
        "why": "90% zeros",
        "calls": [0],
        "work": {
            "macs": 5000,
            "lane_macs": 8000,
            "utilisation": 0.625,
            "loaded": 40000,
            "l2_read": 800,
            "l2_written": 400,
            "memory_read": 100,
            "memory_written": 0,
            "read": 700,
            "written": 400,
        },
    },
    {
        "name": "fc",
        "kind": "linear",
        "shape": "1000x512",
        "density": 1.0,
        "format": "dense",
        "kernel": "other",
        "bytes_dense": 2048000,
        "bytes_packed": 2048000,
        "speedup_estimate": 1.0,
        "why": "0% zeros, below the threshold of 50%",
        "calls": [],
        "work": None,
    },
]


@pytest.fixture(scope="session")
def package_path(tmp_path_factory) -> Path:
    """Package of a model that clips negative values: input ``x`` [2, 5], output ``y`` [2, 5]."""
    import tvm
    from tvm import relax
    from tvm.script import relax as R
    from tvm.script import tirx as T

    @T.prim_func(s_tir=True)
    def rectify(a: T.Buffer((2, 5), "float32"), b: T.Buffer((2, 5), "float32")):
        for i, j in T.grid(2, 5):
            with T.sblock("rectify"):
                row, column = T.axis.remap("SS", [i, j])
                b[row, column] = T.max(a[row, column], T.float32(0))

    builder = relax.BlockBuilder()
    x = relax.Var("x", R.Tensor((2, 5), "float32"))
    function = builder.add_func(rectify.without_attr("global_symbol"), "rectify")
    with builder.function("main", [x]):
        with builder.dataflow():
            result = builder.emit_output(relax.call_tir(function, [x], out_ty=x.ty))
        builder.emit_func_output(result)
    folder = tmp_path_factory.mktemp("package")
    library = folder / "built.so"
    tvm.compile(builder.get(), target=tvm.target.Target({"kind": "llvm"})).export_library(str(library))
    spec = {"shape": [2, 5], "dtype": "float32"}
    metadata = {
        "tvm_sparse": tvm_sparse.__version__,
        "tvm": tvm.__version__,
        "target": "llvm",
        "isa": "generic",
        "features": [],
        "arch": machine(),
        "inputs": [{"name": "x", **spec}],
        "outputs": [{"name": "y", **spec}],
        "plan": {"layers": LAYERS},
        "num_threads": None,
    }
    return Package.write(folder / "module.tar", library, metadata).path


@pytest.fixture(autouse=True)
def private_folder(tmp_path, monkeypatch) -> None:
    """Every test has a cache and a current folder of its own."""
    monkeypatch.setenv("TVM_SPARSE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture()
def tvmc(capsys):
    """A function that runs a command line and returns exit code, stdout and stderr."""

    def run(*argv: object) -> tuple[int, str, str]:
        try:
            code = run_command([str(word) for word in argv])
        except SystemExit as leaving:
            code = leaving.code
        return (code, *capsys.readouterr())

    return run


@pytest.fixture()
def compiled(monkeypatch, package_path) -> list:
    """Replaces the compiler by one that records its arguments and writes the fixture's package."""
    calls = []

    def compile(model, target=None, **options):
        calls.append({"model": model, "target": target, **options})
        if options.get("progress"):
            options["progress"]("import")
        output = Path(options["output"])
        output.write_bytes(package_path.read_bytes())
        return Package.open(output)

    monkeypatch.setitem(vars(tvm_sparse), "compile", compile)
    return calls


@pytest.fixture()
def model(tmp_path) -> Path:
    """A file that passes for a model as long as nothing reads it."""
    path = tmp_path / "net.onnx"
    path.write_bytes(b"model")
    return path


@pytest.fixture()
def x() -> np.ndarray:
    """Input of the package's model."""
    return np.array([[1, -2, 3, -4, 5], [-1, 2, -3, 4, -5]], "float32")
