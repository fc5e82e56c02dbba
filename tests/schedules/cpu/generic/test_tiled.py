"""The general rule on what legalisation and fusion produce: same results, and loops of the promised form."""

import pytest
from tvm import relax
from tvm.script import tirx as T

from tests.transform.canonicalize.helpers import constant, number, random
from tvm_sparse.schedules.cpu.generic.emit import MIN_PARALLEL_WORK

from ..compiled import RUNNABLE, WIDEST, every_isa, isa_of
from .helpers import allocated, check, conditions, fused, parallel, vectorized

OP = relax.op
NN = relax.op.nn


def norm(x):
    width = int(x.ty.shape[-1])
    return NN.layer_norm(x, constant(random(width)), constant(random(width, seed=1)), axes=[-1])


def with_transpose(x):
    y = relax.BlockBuilder.current().emit(OP.exp(x))
    return OP.add(y, OP.permute_dims(y, [1, 0]))


CASES = {
    "one element": ([(1,)], OP.exp),
    "no axes": ([()], OP.negative),
    "less than a vector": ([(3,)], OP.exp),
    "a vector and one": ([(17,)], OP.tanh),
    "a prime number of elements": ([(997,)], OP.sigmoid),
    "three axes become one": ([(3, 5, 7)], lambda x: OP.multiply(OP.exp(x), number(2))),
    "two inputs": ([(5, 33), (5, 33)], lambda x, y: OP.maximum(OP.subtract(x, y), OP.abs(x))),
    "rows and columns": ([(4, 1, 9), (5, 1)], OP.add),
    "column is broadcast": ([(37, 19), (37, 1)], OP.multiply),
    "row is broadcast": ([(37, 19), (1, 19)], OP.divide),
    "channels last": ([(2, 7, 6, 5)], lambda x: OP.permute_dims(x, [0, 2, 3, 1])),
    "transposed": ([(33, 18)], lambda x: OP.permute_dims(x, [1, 0])),
    "transposed sum": ([(33, 18), (18, 33)], lambda x, y: OP.add(OP.permute_dims(x, [1, 0]), y)),
    "padding": ([(2, 3, 5, 7)], lambda x: NN.pad(x, [0, 0, 0, 0, 1, 2, 0, 3], pad_value=1.5)),
    "padding of all axes": ([(3, 5)], lambda x: NN.pad(x, [1, 1, 2, 2])),
    "concatenation": ([(2, 3, 5), (2, 1, 5), (2, 17, 5)], lambda *x: OP.concat(list(x), axis=1)),
    "concatenation of rows": ([(4, 3), (4, 18), (4, 1)], lambda *x: OP.concat(list(x), axis=1)),
    "every other": ([(6, 70)], lambda x: OP.exp(OP.strided_slice(x, [1], [0], [70], [2]))),
    "every other from one": ([(3, 67)], lambda x: OP.abs(OP.strided_slice(x, [1], [1], [67], [2]))),
    "every third row": ([(20, 21)], lambda x: OP.strided_slice(x, [0], [1], [20], [3])),
    "backwards": ([(5, 21)], lambda x: OP.flip(x, axis=1)),
    "tiles": ([(3, 5)], lambda x: OP.tile(x, [2, 3])),
    "softmax": ([(6, 300)], lambda x: NN.softmax(x, axis=-1)),
    "softmax of few": ([(40, 3)], lambda x: NN.softmax(x, axis=-1)),
    "softmax of one": ([(9, 1)], lambda x: NN.softmax(x, axis=-1)),
    "softmax down the channels": ([(2, 13, 19)], lambda x: NN.softmax(x, axis=1)),
    "softmax of columns": ([(31, 20)], lambda x: NN.softmax(x, axis=0)),
    "log softmax": ([(5, 77)], lambda x: NN.log_softmax(x, axis=-1)),
    "layer norm": ([(7, 65)], norm),
    "layer norm of columns": ([(2, 37, 3, 16)], lambda x: NN.layer_norm(
        x, constant(random(37)), constant(random(37)), axes=[1])),
    "sum of rows": ([(9, 131)], lambda x: OP.sum(x, axis=[1])),
    "sum of columns": ([(131, 9)], lambda x: OP.sum(x, axis=[0])),
    "sum of all": ([(11, 13)], OP.sum),
    "mean of pixels": ([(3, 5, 7, 9)], lambda x: OP.mean(x, axis=[2, 3])),
    "maximum of rows": ([(9, 35)], lambda x: OP.max(x, axis=[1])),
    "minimum of rows": ([(9, 35)], lambda x: OP.min(x, axis=[1], keepdims=True)),
    "product of rows": ([(9, 19)], lambda x: OP.prod(x, axis=[1])),
    "variance": ([(9, 70)], lambda x: OP.variance(x, axis=[1])),
    "position of the maximum": ([(9, 35)], lambda x: OP.argmax(x, axis=1)),
    "position of the minimum of columns": ([(9, 35)], lambda x: OP.argmin(x, axis=0)),
    "max pooling": ([(2, 3, 15, 13)], lambda x: NN.max_pool2d(x, 3, 2, padding=1)),
    "average pooling": ([(2, 3, 14, 14)], lambda x: NN.avg_pool2d(x, 2, 2)),
    "vector times matrix": ([(1, 37), (37, 50)], OP.matmul),
    "matrix times vector": ([(50, 37), (37, 1)], OP.matmul),
    "matrices": ([(2, 5, 9), (2, 9, 21)], OP.matmul),
    "convolution": ([(1, 3, 9, 10), (4, 3, 3, 3)], lambda x, w: NN.conv2d(x, w, padding=1)),
    "gathered rows": ([(12, 30), ((5,), "int64")], lambda x, i: OP.take(x, i, axis=0)),
    "gathered columns": ([(12, 30), ((5,), "int64")], lambda x, i: OP.take(x, i, axis=1)),
    "a choice": ([(4, 30), ((4, 30), "bool"), (4, 30)], lambda x, c, y: OP.where(c, x, y)),
    "integers": ([((4, 30), "int64"), ((4, 1), "int64")], OP.add),
    "narrow integers": ([((4, 37), "int8")], lambda x: OP.add(x, relax.const(3, "int8"))),
    "integers to floats": ([((4, 37), "int32")], lambda x: OP.exp(OP.astype(x, "float32"))),
    "float64": ([((4, 37), "float64")], OP.exp),
    "nearest pixels": ([(1, 2, 5, 6)], lambda x: OP.image.resize2d(x, (10, 12), layout="NCHW",
        method="nearest_neighbor")),
    "reshape at the end": ([(6, 35)], lambda x: OP.reshape(OP.exp(x), (7, 30))),
    "shuffled channels": ([(1, 6, 4, 5)], lambda x: OP.reshape(OP.permute_dims(
        OP.reshape(x, (1, 2, 3, 4, 5)), [0, 2, 1, 3, 4]), (1, 6, 4, 5))),
    "sum with its transpose": ([(21, 21)], with_transpose),
    "diagonal": ([(9, 9)], lambda x: OP.tril(x)),
    "attention": ([(2, 5, 3, 8)] * 3, NN.attention),
    "attention of more than a vector": ([(1, 21, 2, 8)] * 3, NN.attention),
    "calls in a row": ([(5, 67)], lambda x: OP.exp(OP.sigmoid(OP.tanh(x)))),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_same_results(name):
    check(fused(*CASES[name]))


SOME = (
    "a vector and one",
    "every other",
    "softmax",
    "layer norm of columns",
    "maximum of rows",
    "padding",
    "attention of more than a vector",
)


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("isa_name", RUNNABLE[1:])
def test_same_results_for_narrower_vectors(isa_name, name):
    check(fused(*CASES[name]), isa_name)


@every_isa
def test_large_elementwise_is_one_parallel_loop_of_vectors(isa_name):
    func = check(fused([(8, 40, 101)], lambda x: OP.multiply(OP.exp(x), x)), isa_name)
    assert len(parallel(func)) == 1
    assert vectorized(func) and all(v % isa_of(isa_name).lanes == 0 for v in vectorized(func))
    assert not allocated(func)


def test_little_work_is_not_parallel():
    extent = MIN_PARALLEL_WORK // 2
    assert not parallel(check(fused([(extent - 1,)], OP.negative)))
    assert parallel(check(fused([(extent + 1,)], OP.negative)))


def test_softmax_keeps_one_row():
    func = check(fused([(64, 300)], lambda x: NN.softmax(x, axis=-1)))
    assert parallel(func) == [64]
    assert max(allocated(func)) == 300


def test_softmax_down_the_channels_keeps_one_tile():
    # Vectors lie along the pixels; a tile of them for all channels is kept.
    func = check(fused([(1, 21, 32, 32)], lambda x: NN.softmax(x, axis=1)))
    assert max(allocated(func)) <= 21 * 4 * isa_of(WIDEST).lanes
    assert parallel(func)


def test_layer_norm_keeps_no_tensor():
    func = check(fused([(64, 260)], norm))
    assert max(allocated(func)) <= 260 and parallel(func) == [64]


def test_padded_pooling_keeps_no_image():
    func = check(fused([(1, 32, 30, 30)], lambda x: NN.max_pool2d(x, 3, 2, padding=1)))
    assert max(allocated(func), default=0) < 32 * 32 * 32
    assert vectorized(func)


@pytest.mark.parametrize("name", ["padding", "padding of all axes", "concatenation", "concatenation of rows"])
def test_copies_have_no_conditions_left(name):
    func = fused(*CASES[name])
    assert conditions(func)
    assert not conditions(check(func))


def test_reshapes_vanish():
    func = check(fused([(6, 35)], lambda x: OP.reshape(OP.exp(OP.reshape(x, (210,))), (7, 30))))
    assert not allocated(func) and len(vectorized(func)) == 1


def test_every_other_element_is_two_loads_and_a_shuffle():
    func = check(fused([(16, 256)], lambda x: OP.abs(OP.strided_slice(x, [1], [0], [256], [2]))))
    assert "T.Shuffle" in func.script()


@pytest.mark.parametrize("extent", [1, 15, 16, 17, 31, 64, 65, 127, 200])
def test_every_rest_of_a_reduction(extent):
    # The rest of a row is one more tile, masked: no element twice, none left out.
    check(fused([(3, extent)], lambda x: OP.sum(x, axis=[1])))
    check(fused([(3, extent), (3, extent)], lambda x, y: OP.max(OP.multiply(x, y), axis=[1])))


@T.prim_func(private=True, s_tir=True)
def chain_across_groups(
    x: T.Buffer((997,), "float32"), q: T.Buffer((5, 7), "float32"), y: T.Buffer((997,), "float32")
):
    T.func_attr({"tirx.noalias": True})
    a = T.sblock_alloc_buffer((997,), "float32")
    b = T.sblock_alloc_buffer((997,), "float32")
    c = T.sblock_alloc_buffer((997,), "float32")
    d = T.sblock_alloc_buffer((997,), "float32")
    total = T.sblock_alloc_buffer((5,), "float32")
    for i in range(997):
        with T.sblock("a"):
            v = T.axis.spatial(997, i)
            a[v] = T.exp(x[v])
    for i, k in T.grid(5, 7):
        with T.sblock("total"):
            v, w = T.axis.remap("SR", [i, k])
            with T.init():
                total[v] = T.float32(0)
            total[v] = total[v] + q[v, w]
    for i in range(997):
        with T.sblock("b"):
            v = T.axis.spatial(997, i)
            b[v] = T.tanh(a[v])
    for i in range(997):
        with T.sblock("c"):
            v = T.axis.spatial(997, i)
            c[v] = T.tanh(x[v])
    for i in range(997):
        with T.sblock("d"):
            v = T.axis.spatial(997, i)
            d[v] = T.exp(c[v])
    for i in range(997):
        with T.sblock("y"):
            v = T.axis.spatial(997, i)
            y[v] = (b[996 - v] + b[v]) * total[0] + (d[996 - v] + d[v])


@every_isa
def test_scratch_that_takes_the_place_of_what_it_is_computed_from(isa_name):
    # Tiles that overlapped there would compute elements from their own results.
    check(chain_across_groups, isa_name)
