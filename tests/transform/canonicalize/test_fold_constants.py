import numpy as np
import pytest
from tvm import relax

from tvm_sparse.transform.canonicalize.evaluate import EVALUATORS
from tvm_sparse.transform.canonicalize.fold_constants import FoldConstants

from .helpers import assert_rewrites, assert_unchanged, calls, constant, module, outputs, random, rewritten

OP = relax.op


def test_transposed_weight_is_folded():
    weight = random(3, 4)
    before = module([(2, 4)], lambda x: OP.matmul(x, OP.permute_dims(constant(weight), [1, 0])))
    assert_rewrites(before, module([(2, 4)], lambda x: OP.matmul(x, constant(weight.T))), FoldConstants())


def test_chain_of_shape_arithmetic_is_folded():
    def body(x):
        table = constant(random(5, 2))
        extent = OP.take(OP.shape_to_tensor(OP.shape_of(table)), constant(np.array(0, "int64")), axis=0)
        return OP.add(x, OP.astype(extent, "int32"))

    after = rewritten(module([((3,), "int32")], body), FoldConstants())
    assert calls(after) == ["add"]
    np.testing.assert_array_equal(outputs(after, [np.array([1, 2, 3], "int32")])[0], [6, 7, 8])


def test_integer_type_is_kept():
    before = module(
        [((2,), "int64")], lambda x: OP.add(x, OP.multiply(*[constant(np.array([3, 4], "int64"))] * 2))
    )
    expected = module([((2,), "int64")], lambda x: OP.add(x, constant(np.array([9, 16], "int64"))))
    assert_rewrites(before, expected, FoldConstants())


def test_constant_output_stays_an_output():
    after = rewritten(module([(2,)], lambda x: OP.negative(constant(random(2)))), FoldConstants())
    np.testing.assert_array_equal(outputs(after, [random(2)])[0], -random(2))


def test_large_broadcast_is_left():
    before = module(
        [(64, 1024, 32)], lambda x: OP.add(x, OP.broadcast_to(constant(random(32)), (64, 1024, 32)))
    )
    assert_unchanged(before, FoldConstants())


def test_out_of_range_index_is_left():
    indices = constant(np.array([0, 7], "int64"))
    before = module([(2, 2)], lambda x: OP.add(x, OP.take(constant(random(3, 2)), indices, axis=0)))
    assert_unchanged(before, FoldConstants())


def test_a_tensor_without_elements_is_known():
    before = module([(2, 0, 3)], lambda x: OP.sum(OP.exp(x), axis=[1]))
    expected = module([(2, 0, 3)], lambda x: constant(np.zeros((2, 3), "float32")))
    assert_rewrites(before, expected, FoldConstants())
    product = rewritten(module([(2, 0, 3)], lambda x: OP.prod(x, axis=[1])), FoldConstants())
    np.testing.assert_array_equal(outputs(product, [np.zeros((2, 0, 3), "float32")])[0], np.ones((2, 3)))


A, B = random(2, 3) + 3, random(2, 3, seed=1) + 3
CASES = {
    "divide_int": lambda: OP.divide(
        constant(np.array([-7, 7], "int32")), constant(np.array([2, -2], "int32"))
    ),
    "power": lambda: OP.power(constant(A), constant(B)),
    "rsqrt": lambda: OP.rsqrt(constant(A)),
    "where": lambda: OP.where(constant(A > B), constant(A), constant(B)),
    "expand": lambda: OP.expand_dims(constant(A), [0, 2]),
    "squeeze": lambda: OP.squeeze(constant(A[None]), [0]),
    "concat": lambda: OP.concat([constant(A), constant(B)], axis=1),
    "stack": lambda: OP.stack([constant(A), constant(B)], axis=1),
    "slice": lambda: OP.strided_slice(constant(A), [1], [0], [3], [2]),
    "mean": lambda: OP.mean(constant(A), axis=[1], keepdims=True),
    "prod": lambda: OP.prod(constant(A), axis=[0]),
    "full": lambda: OP.full((2, 2), constant(np.array(2.5, "float32"))),
    "arange": lambda: OP.arange(1, 7, 2, dtype="int64"),
    "round": lambda: OP.round(constant(np.array([0.5, 1.5, -2.5], "float32"))),
    "flatten": lambda: OP.flatten(constant(A)),
}


@pytest.mark.parametrize("name", CASES)
def test_folding_agrees_with_running(name):
    before = module([(1,)], lambda x: CASES[name]())
    after = rewritten(before, FoldConstants())
    assert calls(after) == ["GenericConst"]
    arrays = [np.zeros(1, "float32")]
    np.testing.assert_allclose(outputs(after, arrays)[0], outputs(before, arrays)[0], rtol=1e-6)


def test_every_evaluator_is_of_an_operator():
    for name in EVALUATORS:
        operators = OP.nn if ".nn." in name else OP
        assert hasattr(operators, name.rpartition(".")[2]), name
