"""Targets in all their forms, and what is wrong with them said by name."""

from __future__ import annotations

import json

import pytest
import tvm

from tvm_sparse.build import target as target_module
from tvm_sparse.build.target import make_target
from tvm_sparse.errors import TvmSparseError
from tvm_sparse.runtime.host import machine
from tvm_sparse.schedules.cpu.isa import Isa, code_features

x86 = pytest.mark.skipif(machine() != "x86_64", reason="names CPUs of x86_64 without a triple")


def attributes(target) -> dict:
    made = make_target(target)
    assert made.kind.name == "llvm"
    return {name: made.attrs.get(name) for name in ("mcpu", "mtriple", "mattr", "num-cores")}


def test_this_machine_is_the_default():
    host = str(tvm.get_global_func("tvm.codegen.llvm.GetHostCPUName")())
    for target in (None, "llvm", " llvm ", {"kind": "llvm"}, "llvm -num-cores=2"):
        assert attributes(target)["mcpu"] == host
    assert attributes(None)["num-cores"] >= 1
    assert attributes("llvm -num-cores=3")["num-cores"] == 3


@x86
def test_options_as_text():
    made = attributes("llvm -mcpu=znver4 --mattr=+avx2,-avx512f -num-cores=7")
    assert made["mcpu"] == "znver4" and list(made["mattr"]) == ["+avx2", "-avx512f"] and made["num-cores"] == 7


def test_another_machine():
    made = attributes("llvm -mtriple=aarch64-linux-gnu")
    # This machine's CPU would be none of that machine's.
    assert made["mtriple"] == "aarch64-linux-gnu" and made["mcpu"] is None
    assert attributes("llvm -mtriple=aarch64-linux-gnu -mcpu=cortex-a72")["mcpu"] == "cortex-a72"


@x86
def test_json_and_mappings(tmp_path):
    description = {"kind": "llvm", "mcpu": "haswell", "num-cores": 2}
    path = tmp_path / "target.json"
    path.write_text(json.dumps(description))
    made = [attributes(t) for t in (description, json.dumps(description), str(path), make_target(description))]
    assert all(m == made[0] for m in made) and made[0]["mcpu"] == "haswell"
    # The caller's mapping is not filled in.
    partial = {"kind": "llvm"}
    make_target(partial)
    assert partial == {"kind": "llvm"}


@x86
@pytest.mark.parametrize(
    "target",
    [
        "llvm -mcpu=znver44",
        {"kind": "llvm", "mcpu": "znver44"},
        tvm.target.Target({"kind": "llvm", "mcpu": "znver44"}),
    ],
)
def test_cpu_that_does_not_exist(target):
    with pytest.raises(TvmSparseError, match=r"mcpu 'znver44' is not a CPU.*similar ones: .*znver4"):
        make_target(target)


def test_cpu_of_another_machine():
    with pytest.raises(TvmSparseError, match="mcpu 'cortex-a72' .* for x86_64-linux-gnu"):
        make_target("llvm -mtriple=x86_64-linux-gnu -mcpu=cortex-a72")
    with pytest.raises(TvmSparseError, match="mcpu 'znver4' .* for aarch64-linux-gnu"):
        make_target({"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "znver4"})


@pytest.mark.parametrize(
    ("target", "message"),
    [
        # LLVM would crash on an unknown one.
        ("llvm -mtriple=vax-dec-vms", "mtriple 'vax-dec-vms' names no supported machine; known: x86_64"),
        ("llvm -mtriple=riscv64-linux-gnu", "mtriple 'riscv64-linux-gnu' names no supported machine"),
        ("llvm -mcpu=", "mcpu '' is not a CPU"),
        ("cuda", "'cuda' is not supported; use 'llvm'"),
        ("", "'' is not supported"),
        ({"mcpu": "haswell"}, "None is not supported"),
        ("llvm mcpu=haswell", "'mcpu=haswell' is not of the form -name=value"),
        ("llvm -mcpu", "'-mcpu' is not of the form"),
        ("llvm -num-cores=many", "'-num-cores=many' needs a positive integer"),
        ("llvm -num-cores=0", "needs a positive integer"),
        ("llvm 'x", "cannot be parsed"),
        ("llvm -opt-level=2", "not understood: .*opt-level"),
        ("llvm -colour=red", "not understood: .*colour"),
        ({"kind": "llvm", "mcpu": 3}, "not understood: .*mcpu"),
        ({"kind": "llvm", "mtriple": 3}, "not understood: .*mtriple"),
        ('{"kind": ', "not valid JSON"),
        ("none.json", "'none.json' cannot be read"),
        (3, "text, a mapping or a tvm Target, not int"),
    ],
)
def test_wrong_targets(target, message):
    with pytest.raises(TvmSparseError, match=message):
        make_target(target)


def test_file_without_an_object(tmp_path):
    path = tmp_path / "target.json"
    for content in ("", "[1]", "llvm"):
        path.write_text(content)
        with pytest.raises(TvmSparseError, match="does not hold a JSON object"):
            make_target(str(path))


@pytest.mark.filterwarnings("ignore")
def test_target_objects_of_another_kind():
    with pytest.raises(TvmSparseError, match="'c' is not supported"):
        make_target(tvm.target.Target("c"))


@x86
def test_features_that_a_hypervisor_hides_are_not_used(monkeypatch):
    native = make_target(None)
    if "avx2" not in code_features(native):
        pytest.skip("needs an x86 CPU with AVX2")
    present = target_module.cpu_features()
    assert set(code_features(native).values()) <= present
    monkeypatch.setattr(target_module, "cpu_features", lambda: present - {"gfni", "movbe", "avx512f"})
    masked = make_target(None)
    assert not {"gfni", "movbe", "avx512f"} & set(Isa.from_target(masked).features)
    # A CPU that the user names is taken as it is.
    assert "avx512f" in Isa.from_target(make_target("llvm -mcpu=znver4")).features


@x86
def test_a_package_names_the_features_of_its_cpu():
    assert "avx512_vnni" in Isa.from_target(make_target("llvm -mcpu=znver4")).features
    features = Isa.from_target(make_target("llvm -mcpu=haswell")).features
    assert {"avx2", "fma", "bmi2"} <= set(features) and not any(name.startswith("avx512") for name in features)


@x86
def test_layers_are_split_by_the_cores_of_the_target():
    tasks = [Isa.from_target(make_target(f"llvm -mcpu=znver4 -num-cores={n}")).tasks for n in (1, 2, 64)]
    assert tasks == [1, 2, 4]
