"""Instruction sets of targets, and kernels compiled for machines that this one is not."""

import re

import pytest
import tvm
from tvm import relax

from tests.transform.canonicalize.helpers import constant, module, random
from tvm_sparse.build.target import make_target
from tvm_sparse.plan.plan import Plan
from tvm_sparse.schedules.cpu.block_columns import BlockColumnsKernel
from tvm_sparse.schedules.cpu.dense_columns import DenseColumnsKernel
from tvm_sparse.schedules.cpu.isa import Isa
from tvm_sparse.schedules.cpu.pool_columns import MaxPoolColumns
from tvm_sparse.schedules.cpu.sparse_columns import SparseColumns
from tvm_sparse.transform.context import CompileContext
from tvm_sparse.transform.pipeline import run_phases

OP = relax.op
NN = relax.op.nn

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


# A multiply-add of whole vectors in assembly, and a load or store of one.
MULTIPLY = {"neon": r"\bfmla\s+v\d+\.4s", "avx512": r"\bvfn?m(add|sub)\d*ps\b.*%zmm"}
MOVE = {"neon": r"\b(ldr|ldp|str|stp|stur|ldur)\s+q\d+|\.4s", "avx512": r"%zmm"}
NOTHING_MULTIPLIED = ("MaxPool", "ToColumns", "ToImages", "ToTokens", "Move", "Mean", "Transpose")
CROSS = {"neon": "llvm -mtriple=aarch64-linux-gnu -mattr=+neon", "avx512": "llvm -mcpu=znver4"}
FUNCTIONS = {"expf", "tanhf", "erff", "fmaf", "powf", "logf", "exp", "tanh", "erf", "pow", "log"}


def every_kernel(target: tvm.target.Target) -> CompileContext:
    """A compilation that uses a kernel of every family."""

    def image(x):
        emit = relax.BlockBuilder.current().emit
        y = emit(NN.silu(NN.conv2d(x, constant(random(8, 5, 3, 3)), padding=1)))
        pruned = random(8, 8, 3, 3)
        pruned[:, 1:] = 0
        y = emit(NN.relu(OP.add(NN.conv2d(y, constant(pruned), padding=1), y)))
        # Output channels that fill no vectors: pixels do.
        y = emit(NN.conv2d(y, constant(random(6, 8, 1, 1))))
        sized = OP.image.resize2d(y, (18, 14), layout="NCHW", method="linear")
        near = OP.image.resize2d(y, (18, 14), layout="NCHW", method="nearest_neighbor")
        return sized, near, NN.max_pool2d(y, 3, 2), OP.mean(y, [2, 3])

    def tokens(x, mask):
        split = (OP.reshape(OP.matmul(x, constant(random(6, 6, seed=i))), (2, 31, 2, 3)) for i in range(3))
        return OP.reshape(NN.attention(*split, mask), (2, 31, 6))

    def rows(x):
        matrix = random(6, 32)
        matrix[1:] = 0
        return OP.matmul(OP.matmul(x, constant(matrix)), constant(random(32, 9)))

    context = CompileContext(target, Isa.from_target(target), Plan())
    for specs, body in [([(1, 5, 9, 7)], image), ([(2, 31, 6), (2, 1, 1, 31)], tokens), ([(1, 6)], rows)]:
        own = CompileContext(target, context.isa, Plan(overrides={"conv1": "unstructured", "linear0": "unstructured"}))
        run_phases(module(specs, body), own)
        context.kernels.update(own.kernels)
    return context


@pytest.mark.parametrize("isa_name", CROSS)
def test_kernels_compile_to_vector_code(isa_name):
    context = every_kernel(make_target(CROSS[isa_name]))
    assert context.isa.name == isa_name
    families = {type(kernel).__name__ for kernel in context.kernels.values()}
    assert families >= {
        "SparseColumns", "DenseColumnsKernel", "MaxPoolColumns", "DenseRows", "SparseRows", "AttentionColumns",
        "ToColumns", "ToImages", "ToTokens", "BlendColumns", "MeanColumns",
    }  # fmt: skip
    for symbol, kernel in context.kernels.items():
        assembly = tvm.compile(kernel.build(context.isa), target=context.target).mod.inspect_source("asm")
        assert symbol in assembly
        if "sparse_rows" not in symbol:  # that gathers one number at a time
            moves = type(kernel).__name__.startswith(NOTHING_MULTIPLIED)
            pattern = (MOVE if moves else MULTIPLY)[isa_name]
            assert re.search(pattern, assembly), f"{symbol} has no vector code"
        assert not set(re.findall(r"\b(?:bl|callq?)\s+([a-z]\w*)", assembly)) & FUNCTIONS, symbol


@pytest.mark.parametrize("cpu", ["haswell", "znver4"])
@pytest.mark.parametrize(
    "kernel",
    [
        SparseColumns((4, 1), False, "none"),
        SparseColumns((14, 1), False, "none"),
        BlockColumnsKernel((4, 1), False, "none", shape=(1, 4)),
    ],
    ids=str,
)
def test_weights_are_loaded_four_at_a_time(cpu, kernel):
    """LLVM must not turn a load of four and their shuffles into four broadcasts from memory."""
    target = make_target(f"llvm -mtriple=x86_64-linux-gnu -mcpu={cpu}")
    assembly = tvm.compile(kernel.build(Isa.from_target(target)), target=target).mod.inspect_source("asm")
    quads = re.findall(r"\bvbroadcast(?:f128|[fi]32x4)\b", assembly)
    spread = re.findall(r"\bv(?:shufps|permilps|movs[lh]dup|movddup)\b", assembly)
    assert quads and len(spread) >= 2 * len(quads)


def test_object_is_for_the_other_machine(tmp_path):
    target = make_target(CROSS["neon"])
    path = tmp_path / "kernel.o"
    tvm.compile(MaxPoolColumns((1, 1)).build(Isa.from_target(target)), target=target).mod.write_to_file(str(path))
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
    assert len({kernel.symbol(isa) for kernel in variants}) == len(variants) == 32
