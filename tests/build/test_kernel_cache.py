"""Kernels are compiled once; whatever the cache holds or cannot hold, the objects are right."""

from __future__ import annotations

import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import tvm
import tvm_ffi
from tvm.script import tirx as T

from tvm_sparse.build import kernel_cache
from tvm_sparse.build.kernel_cache import kernel_objects
from tvm_sparse.build.target import make_target
from tvm_sparse.errors import TvmSparseError
from tvm_sparse.schedules.cpu.isa import AVX2, Isa


@dataclass
class Kernel:
    """A kernel that adds a number; counts how often it is built."""

    name: str = "add_one"
    number: float = 1.0
    builds: list[str] = field(default_factory=list)

    def symbol(self, isa: Isa) -> str:
        return f"{self.name}_{isa.name}"

    def build(self, isa: Isa) -> tvm.tirx.PrimFunc:
        self.builds.append(self.name)

        @T.prim_func(s_tir=True)
        def add(a: T.Buffer((4,), "float32"), b: T.Buffer((4,), "float32")):
            for i in range(4):
                with T.sblock("add"):
                    v = T.axis.spatial(4, i)
                    b[v] = a[v] + T.float32(self.number)

        return add.with_attr("global_symbol", self.symbol(isa))


@pytest.fixture()
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache of the test's own."""
    monkeypatch.setenv("TVM_SPARSE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "kernels"


@pytest.fixture(scope="module")
def target():
    return make_target(None)


def provide(kernel: Kernel, target, **options) -> Path:
    (path,) = kernel_objects([kernel], AVX2, target, **options)
    return path


def run(path: Path, symbol: str, folder: Path) -> list[float]:
    """Link an object file alone and call its function on zeros."""
    library = folder / "linked.so"
    subprocess.run(["g++", "-shared", "-o", library, path], check=True)
    a, b = (tvm.runtime.tensor(np.zeros(4, "float32")) for _ in range(2))
    tvm_ffi.load_module(str(library))[symbol](a, b)
    return b.numpy().tolist()


def test_cold_and_warm(cache, target, tmp_path):
    kernel, steps = Kernel(), []
    first = provide(kernel, target, progress=steps.append)
    assert first.parent == cache and steps == ["add_one_avx2"] and len(kernel.builds) == 1
    assert run(first, "add_one_avx2", tmp_path) == [1.0] * 4
    before = first.stat()
    assert provide(kernel, target, progress=steps.append) == first
    assert len(steps) == len(kernel.builds) == 1 and first.stat().st_mtime_ns == before.st_mtime_ns
    # Nothing else is left behind.
    assert list(cache.iterdir()) == [first]


def test_order_of_the_kernels_is_kept(cache, target):
    kernels = [Kernel(f"k{i}") for i in range(4)]
    names = [path.name for path in kernel_objects(kernels, AVX2, target)]
    assert [name.split("_")[0] for name in names] == ["k0", "k1", "k2", "k3"]
    assert kernel_objects([], AVX2, target) == []


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-1], lambda data: data[:-1] + b"\x01"])
def test_damaged_files_are_compiled_again(cache, target, damage):
    kernel = Kernel()
    path = provide(kernel, target)
    content = path.read_bytes()
    path.write_bytes(damage(content))
    again = provide(kernel, target)
    assert len(kernel.builds) == 2 and again.read_bytes() == content
    assert list(cache.iterdir()) == [again]


def test_what_a_kernel_depends_on(cache, target, monkeypatch):
    kernel = Kernel()
    paths = {provide(kernel, target), provide(Kernel("other"), target)}
    paths.add(provide(kernel, make_target({"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "haswell"})))
    # A changed source of the kernels.
    monkeypatch.setattr(kernel_cache, "_sources", lambda: "changed")
    paths.add(provide(kernel, target))
    assert len(paths) == 4 and len(kernel.builds) == 3


def test_unwritable_cache_is_no_obstacle(target, tmp_path, monkeypatch):
    (tmp_path / "occupied").write_text("a file where the cache's folder should be")
    monkeypatch.setenv("TVM_SPARSE_CACHE_DIR", str(tmp_path / "occupied"))
    kernel = Kernel("unwritable")
    path = provide(kernel, target)
    assert path.is_file() and tmp_path not in path.parents
    # Kept for this process.
    assert provide(kernel, target) == path and len(kernel.builds) == 1


def test_cache_that_others_can_write_is_not_used(cache, target):
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    path = provide(Kernel("foreign"), target)
    assert path.parent != cache and not list(cache.iterdir())


@pytest.mark.parametrize("step", ["tempfile.mkstemp", "os.replace"])
def test_full_disk(cache, target, monkeypatch, step):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"tvm_sparse.build.kernel_cache.{step}", full)
    with pytest.raises(TvmSparseError, match="cannot write a kernel .*No space left on device"):
        provide(Kernel(), target)
    assert not list(cache.iterdir())


def test_failing_kernel_leaves_nothing(cache, target):
    class Failing(Kernel):
        def build(self, isa):
            raise ValueError("no such kernel")

    with pytest.raises(ValueError, match="no such kernel"):
        kernel_objects([Kernel(), Failing("failing")], AVX2, target)
    # The other one may be kept, but is whole.
    assert len(list(cache.iterdir())) <= 1
    assert provide(Kernel(), target).is_file()


def test_concurrent_builders(cache, target):
    barrier = threading.Barrier(3, timeout=60)

    class Meeting(Kernel):
        def build(self, isa):
            function = super().build(isa)
            # All have found the cache empty by now.
            barrier.wait()
            return function

    kernel, found = Meeting(), []
    threads = [threading.Thread(target=lambda: found.append(provide(kernel, target))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(kernel.builds) == 3 and len(found) == 3
    # One of the builders' files, whole, and no temporary ones.
    assert set(cache.iterdir()) == set(found)
    assert provide(Kernel(), target) in found
