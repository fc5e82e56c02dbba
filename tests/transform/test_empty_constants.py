"""Constants without elements."""

import numpy as np
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from tests.transform.canonicalize.helpers import constant, random
from tvm_sparse.transform.empty_constants import AllocateEmptyConstants


def module(array: np.ndarray) -> tvm.IRModule:
    x = relax.Var("x", relax.TensorType((2, 3), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        builder.emit_func_output(builder.emit(relax.op.concat([x, constant(array)], axis=1)))
    return builder.get()


def test_an_empty_constant_is_allocated():
    @I.ir_module
    class Expected:
        @R.function(pure=False)
        def main(x: R.Tensor((2, 3), "float32")) -> R.Tensor((2, 3), "float32"):
            empty = R.builtin.alloc_tensor(R.shape([2, 0]), R.dtype("float32"), R.prim_value(0))
            result = R.concat((x, empty), axis=1)
            return result

    after = AllocateEmptyConstants()(module(np.zeros((2, 0), "float32")))
    # The pass runs where purity is no longer tracked.
    tvm.ir.assert_structural_equal(after["main"].body, Expected["main"].body, map_free_vars=True)


def test_others_stay():
    before = module(random(2, 1))
    assert AllocateEmptyConstants()(before)["main"].same_as(before["main"])
