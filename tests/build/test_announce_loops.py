"""AnnounceLoops: a call before each parallel loop, and nothing else."""

from __future__ import annotations

import tvm
from tvm.script import ir as I
from tvm.script import tirx as T

from tvm_sparse.build.announce_loops import AnnounceLoops, announce_loops


@I.ir_module
class Before:
    @T.prim_func(s_tir=True)
    def main(a: T.Buffer((6, 40), "float32"), count: T.Buffer((1,), "int32")):
        for i in T.parallel(6):
            for j in range(40):
                a[i, j] = a[i, j] + T.float32(1)
        for i in range(2):
            for j in T.parallel(count[0]):
                a[i, j] = T.float32(0)


@I.ir_module
class Expected:
    @T.prim_func(s_tir=True)
    def main(a: T.Buffer((6, 40), "float32"), count: T.Buffer((1,), "int32")):
        T.call_extern("int32", "tvm_sparse_announce_loop", T.int64(6))
        for i in T.parallel(6):
            for j in range(40):
                a[i, j] = a[i, j] + T.float32(1)
        for i in range(2):
            T.call_extern("int32", "tvm_sparse_announce_loop", T.Cast("int64", count[0]))
            for j in T.parallel(count[0]):
                a[i, j] = T.float32(0)


@I.ir_module
class Serial:
    @T.prim_func(s_tir=True)
    def main(a: T.Buffer((6,), "float32")):
        for i in range(6):
            a[i] = T.float32(1)


def test_calls_stand_before_parallel_loops():
    tvm.ir.assert_structural_equal(AnnounceLoops()(Before), Expected)


def test_serial_loops_stay():
    assert announce_loops(Serial["main"]).same_as(Serial["main"])
