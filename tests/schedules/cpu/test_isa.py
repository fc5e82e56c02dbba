"""Instruction sets of targets, and kernels compiled for machines that this one is not."""

import re

import pytest
import tvm
from tvm_sparse.schedules.cpu.attention_columns import AttentionColumns
from tvm_sparse.schedules.cpu.dense_columns import DenseColumnsKernel
from tvm_sparse.schedules.cpu.isa import Isa
from tvm_sparse.schedules.cpu.linear_rows import DenseRows, SparseRows
from tvm_sparse.schedules.cpu.pool_columns import MaxPoolColumns
from tvm_sparse.schedules.cpu.relayout import BlendColumns, MeanColumns, ToColumns, ToImages, ToTokens
from tvm_sparse.schedules.cpu.sparse_columns import SparseColumns

from tvm_sparse.build.target import make_target

NAMES = {
    "llvm -mcpu=x86-64": ("generic", 4),
    "llvm -mcpu=nehalem": ("generic", 4),
    "llvm -mcpu=sandybridge": ("generic", 4),
    "llvm -mcpu=haswell": ("avx2", 8),
    "llvm -mcpu=x86-64 -mattr=+avx2,+fma": ("avx2", 8),
    "llvm -mcpu=znver3": ("avx2", 8),
    "llvm -mcpu=skylake-avx512": ("avx512", 16),
    "llvm -mcpu=znver4": ("avx512", 16),
    "llvm -mtriple=aarch64-linux-gnu -mattr=+neon": ("neon", 4),
    "llvm -mtriple=aarch64-linux-gnu -mcpu=neoverse-n1": ("neon", 4),
}


@pytest.mark.parametrize("target", NAMES)
def test_instruction_set_of_a_target(target):
    isa = Isa.from_target(make_target(target))
    assert (isa.name, isa.lanes) == NAMES[target]
    assert isa.arch == ("aarch64" if "aarch64" in target else "x86_64")


KERNELS = [
    SparseColumns((3, 1), True, "silu", True),
    SparseColumns((3, 1), False),
    DenseColumnsKernel((2, 1), True, "prelu", True),
    DenseColumnsKernel((2, 1), False),
    MaxPoolColumns((2, 2)),
    DenseRows(2, "hard_swish", True),
    SparseRows(2),
    AttentionColumns(2, True),
    ToColumns(4),
    ToImages(),
    ToTokens(3),
    BlendColumns(),
    MeanColumns(),
]
# A multiply-add of whole vectors in assembly; where a kernel multiplies nothing, a load or store of one.
MULTIPLY = {"neon": r"\bfmla\s+v\d+\.4s", "avx512": r"\bvfn?m(add|sub)\d*ps\b.*%zmm"}
MOVE = {"neon": r"\b(ldr|ldp|str|stp|stur|ldur)\s+q\d+|\.4s", "avx512": r"%zmm"}
NOTHING_MULTIPLIED = (MaxPoolColumns, ToColumns, ToImages, ToTokens, MeanColumns, SparseRows)
CROSS = {"neon": "llvm -mtriple=aarch64-linux-gnu -mattr=+neon", "avx512": "llvm -mcpu=znver4"}


@pytest.mark.parametrize("isa_name", CROSS)
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: type(k).__name__)
def test_kernels_compile_to_vector_code(kernel, isa_name):
    target = make_target(CROSS[isa_name])
    isa = Isa.from_target(target)
    assert isa.name == isa_name
    executable = tvm.compile(kernel.build(isa), target=target)
    assembly = executable.mod.inspect_source("asm")
    assert kernel.symbol(isa) in assembly
    pattern = MOVE if isinstance(kernel, NOTHING_MULTIPLIED) else MULTIPLY
    if not isinstance(kernel, SparseRows):  # gathers one number at a time
        assert re.search(pattern[isa_name], assembly), assembly[:2000]
    called = set(re.findall(r"\b(?:bl|callq?)\s+([a-z]\w*)", assembly))
    assert not called & {"expf", "tanhf", "erff", "fmaf", "powf", "logf"}


def test_object_is_for_the_other_machine(tmp_path):
    target = make_target(CROSS["neon"])
    path = tmp_path / "kernel.o"
    tvm.compile(ToImages().build(Isa.from_target(target)), target=target).mod.write_to_file(str(path))
    header = path.read_bytes()[:20]
    assert header[:4] == b"\x7fELF"
    assert int.from_bytes(header[18:20], "little") == 183  # EM_AARCH64


def test_symbols_tell_every_variant_apart():
    isa = Isa.from_target(make_target("llvm -mcpu=haswell"))
    variants = [
        make(tile, halo, activation, residual)
        for make in (SparseColumns, DenseColumnsKernel)
        for tile in ((1, 2), (2, 1))
        for halo in (False, True)
        for activation in ("clip", "gelu")
        for residual in (False, True)
    ]
    symbols = [kernel.symbol(isa) for kernel in [*variants, *KERNELS]]
    assert len(set(symbols)) == len(set([*variants, *KERNELS]))
