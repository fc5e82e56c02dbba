"""A small compiled model, made with TVM directly so that these tests need no part of the project but its linker."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tvm_sparse import __version__
from tvm_sparse.runtime import Package
from tvm_sparse.runtime.cache import cache_root
from tvm_sparse.runtime.host import machine

WEIGHTS = np.random.default_rng(1).standard_normal((24, 40)).astype("float32")
TARGET = {"kind": "llvm"}
FEATURES = {"x86_64": ["sse2"], "aarch64": ["asimd"]}


def reference(x: np.ndarray, tokens: np.ndarray) -> dict[str, np.ndarray]:
    """What the model computes: one float output, one integer output, one constant and one input handed on."""
    hidden = np.maximum(x.astype("float64") @ WEIGHTS.astype("float64"), 0)
    return {
        "scores": hidden.astype("float32"),
        "next": tokens + 1,
        "weights": WEIGHTS,
        "same": x,
    }


@pytest.fixture()
def check():
    """A function that compares outputs by name with the reference."""

    def compare(outputs: dict, inputs: dict) -> None:
        expected = reference(**inputs)
        assert list(outputs) == list(expected)
        for name, array in expected.items():
            assert outputs[name].dtype == array.dtype
            np.testing.assert_allclose(outputs[name], array, rtol=1e-5, atol=1e-5)

    return compare


def link(executable, tmp_path_factory) -> Path:
    """Link a model as the compiler does."""
    import tvm

    from tvm_sparse.build.link import find_compiler, linker

    path = tmp_path_factory.mktemp("library") / "mod.so"
    executable.export_library(str(path), fcompile=linker(find_compiler(), tvm.target.Target(TARGET)))
    return path


@pytest.fixture(scope="session")
def library(tmp_path_factory) -> Path:
    """Shared library of the model, built for any CPU of this architecture."""
    import tvm
    from tvm import relax
    from tvm.script import relax as R
    from tvm.script import tirx as T

    @T.prim_func(s_tir=True)
    def rectify(a: T.Buffer((6, 40), "float32"), b: T.Buffer((6, 40), "float32")):
        for i in T.parallel(6):
            for j in range(40):
                with T.sblock("rectify"):
                    row, column = T.axis.remap("SS", [i, j])
                    b[row, column] = T.max(a[row, column], T.float32(0))

    builder = relax.BlockBuilder()
    x = relax.Var("x", R.Tensor((6, 24), "float32"))
    tokens = relax.Var("tokens", R.Tensor((3,), "int64"))
    # A parallel loop, so that the number of threads matters.
    function = builder.add_func(rectify.without_attr("global_symbol"), "rectify")
    with builder.function("main", [x, tokens]):
        with builder.dataflow():
            weights = relax.const(WEIGHTS)
            product = builder.emit(relax.op.matmul(x, weights))
            scores = builder.emit(relax.call_tir(function, [product], out_ty=product.ty))
            following = builder.emit(relax.op.add(tokens, relax.const(1, "int64")))
            result = builder.emit_output(relax.Tuple([scores, following, weights, x]))
        builder.emit_func_output(result)
    return link(tvm.compile(builder.get(), target=tvm.target.Target(TARGET)), tmp_path_factory)


@pytest.fixture()
def metadata() -> dict:
    """Metadata as the compiler writes it."""
    return {
        "tvm_sparse": __version__,
        "tvm": "0.27.0.post1",
        "target": "llvm",
        "isa": "generic",
        "features": FEATURES[machine()],
        "arch": machine(),
        "inputs": [
            {"name": "x", "shape": [6, 24], "dtype": "float32"},
            {"name": "tokens", "shape": [3], "dtype": "int64"},
        ],
        "outputs": [
            {"name": "scores", "shape": [6, 40], "dtype": "float32"},
            {"name": "next", "shape": [3], "dtype": "int64"},
            {"name": "weights", "shape": [24, 40], "dtype": "float32"},
            {"name": "same", "shape": [6, 24], "dtype": "float32"},
        ],
        "plan": {},
        "num_threads": None,
    }


@pytest.fixture(autouse=True)
def private_cache(tmp_path, monkeypatch) -> Path:
    """A cache of each test's own."""
    monkeypatch.setenv("TVM_SPARSE_CACHE_DIR", str(tmp_path / "cache"))
    return cache_root() / "packages"


@pytest.fixture()
def package(library, metadata, tmp_path) -> Package:
    """The model as a tar package."""
    return Package.write(tmp_path / "module.tar", library, metadata)


@pytest.fixture(scope="session")
def library_with_weights(tmp_path_factory) -> Path:
    """The model again, with its constant weight as a field of a last argument."""
    import tvm
    from tvm import relax
    from tvm.script import relax as R

    builder = relax.BlockBuilder()
    x = relax.Var("x", R.Tensor((6, 24), "float32"))
    tokens = relax.Var("tokens", R.Tensor((3,), "int64"))
    shift, matrix = R.Tensor((1,), "int64"), R.Tensor((24, 40), "float32")
    weights = relax.Var("weights", R.Tuple(shift, matrix))
    with builder.function("main", [x, tokens, weights]):
        with builder.dataflow():
            matrix = builder.emit(relax.TupleGetItem(weights, 1))
            scores = builder.emit(relax.op.nn.relu(relax.op.matmul(x, matrix)))
            following = builder.emit(relax.op.add(tokens, relax.TupleGetItem(weights, 0)))
            result = builder.emit_output(relax.Tuple([scores, following, matrix, x]))
        builder.emit_func_output(result)
    return link(tvm.compile(builder.get(), target=tvm.target.Target(TARGET)), tmp_path_factory)


@pytest.fixture()
def weights() -> list[np.ndarray]:
    """Weights of that model; the first is not a multiple of 64 bytes long."""
    return [np.array([1]), WEIGHTS]


@pytest.fixture(params=["module.tar", "module.so"])
def package_with_weights(request, library_with_weights, metadata, weights, tmp_path) -> Package:
    """That model in both forms."""
    return Package.write(tmp_path / request.param, library_with_weights, metadata, weights)


@pytest.fixture()
def inputs() -> dict[str, np.ndarray]:
    """Valid inputs of the model."""
    rng = np.random.default_rng(0)
    return {"x": rng.standard_normal((6, 24)).astype("float32"), "tokens": np.array([1, -5, 2**40])}


@pytest.fixture()
def plain(library, metadata, tmp_path) -> Package:
    """The model as a shared library with its metadata beside it."""
    copy = tmp_path / "built.so"
    shutil.copy(library, copy)
    return Package.write(tmp_path / "plain.so", copy, metadata)
