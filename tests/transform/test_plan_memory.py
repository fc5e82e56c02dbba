"""Tensors share storage only while they are not alive together."""

import itertools

import pytest
import tvm
from hypothesis import given
from hypothesis import strategies as st
from tvm import relax

from tests.schedules.cpu.compiled import WIDEST
from tests.schedules.cpu.pipeline import context_for
from tvm_sparse.transform.plan_memory import PlanMemory, Tensor, share_storage

EXTERN = "kernel"
ALLOC = relax.op.builtin.alloc_tensor


class _Kernel:
    def symbol(self, _isa):
        return EXTERN


def plan(function):
    context = context_for(WIDEST)
    context.use(_Kernel())
    return PlanMemory(context)(tvm.IRModule({"main": function}))["main"]


def build(body, *shapes):
    """A function of `body(alloc, call, *params)` without dataflow, and the variables of its allocations by name."""
    params = [relax.Var(f"p{i}", relax.TensorType(shape, "float32")) for i, shape in enumerate(shapes)]
    builder = relax.BlockBuilder()
    named = {}

    def alloc(name, *shape, dtype="float32"):
        named[name] = builder.emit(ALLOC(relax.ShapeExpr(shape), dtype, 0), name_hint=name)
        return named[name]

    def call(*arguments):
        builder.emit(relax.Call(relax.ExternFunc(EXTERN), arguments, ty_args=[relax.AnyType()]))

    with builder.function("main", params):
        builder.emit_func_output(body(builder, alloc, call, *params))
    return builder.get()["main"], named


def storage_of(function):
    """Name of the storage of each tensor that has one."""
    return {
        binding.var.name: binding.value.args[0].name
        for block in function.body.blocks
        for binding in block.bindings
        if getattr(getattr(binding.value, "op", None), "name", "") == "relax.memory.alloc_tensor"
    }


def sizes_of(function):
    return {
        binding.var.name: int(binding.value.args[0].values[0])
        for block in function.body.blocks
        for binding in block.bindings
        if getattr(getattr(binding.value, "op", None), "name", "") == "relax.memory.alloc_storage"
    }


def test_chain_takes_two_storages_and_the_result_none():
    def body(_builder, alloc, call, x):
        names = ["a", "b", "c", "d", "result"]
        last = x
        for name in names:
            new = alloc(name, 4, 100)
            call(last, new)
            last = new
        return last

    new = plan(build(body, (4, 100))[0])
    places = storage_of(new)
    assert places["a"] == places["c"] != places["b"] == places["d"]
    assert "result" not in places and set(sizes_of(new).values()) == {1600}


def test_small_results_that_stay_take_no_large_storage():
    """Groups of a batch: each leaves a small result, and all use the same large storages."""

    def body(_builder, alloc, call, x):
        small = []
        for group in range(4):
            wide, wider = alloc(f"wide{group}", 1000), alloc(f"wider{group}", 2000)
            call(x, wide)
            call(wide, wider)
            small.append(alloc(f"small{group}", 10))
            call(wider, small[-1])
        out = alloc("out", 40)
        call(*small, out)
        return out

    new = plan(build(body, (10,))[0])
    places = storage_of(new)
    for name in ("wide", "wider"):
        assert len({places[f"{name}{group}"] for group in range(4)}) == 1
    assert len({places[f"small{group}"] for group in range(4)}) == 4
    # The last one has a storage that nobody needs any more.
    assert sum(sizes_of(new).values()) == 8000 + 4032 + 3 * 64


@pytest.mark.parametrize("kind", ["alias", "view", "tuple"])
def test_other_names_keep_a_tensor_alive(kind):
    def body(builder, alloc, call, x):
        a = alloc("a", 16)
        call(x, a)
        if kind == "alias":
            other = builder.emit(a)
        elif kind == "view":
            other = builder.emit(relax.op.memory.view(a, relax.ShapeExpr([4, 4])))
        else:
            other = builder.emit(relax.Tuple([a, x]))
        b = alloc("b", 16)
        call(x, b)
        if kind == "tuple":
            other = builder.emit(relax.TupleGetItem(other, 0))
        c = alloc("c", 16)
        call(other, b, c)
        d = alloc("d", 16)
        call(c, d)
        return d

    places = storage_of(plan(build(body, (16,))[0]))
    assert len({places[name] for name in "abc"}) == 3


def test_returned_under_another_name():
    def body(builder, alloc, call, x):
        a = alloc("a", 16)
        call(x, a)
        return builder.emit(relax.op.memory.view(a, relax.ShapeExpr([4, 4])))

    function, _ = build(body, (16,))
    assert storage_of(plan(function)) == {}


def test_element_types():
    def body(_builder, alloc, call, x):
        flags, out = alloc("flags", 100, dtype="bool"), alloc("out", 3)
        call(x, flags)
        call(flags, out)
        return out

    assert list(sizes_of(plan(build(body, (16,))[0])).values()) == [128]


LIFE = st.tuples(st.integers(0, 30), st.integers(0, 12), st.integers(1, 40))


@given(st.lists(LIFE, max_size=25))
def test_nothing_alive_is_overwritten(lives):
    tensors = [
        Tensor(relax.Var(f"t{i}", relax.AnyType()), size * 64, "global", first, first + length)
        for i, (first, length, size) in enumerate(lives)
    ]
    storages = share_storage(tensors)
    placed = [t for storage in storages for t in storage.tensors]
    assert {id(t) for t in placed} == {id(t) for t in tensors} and len(placed) == len(tensors)
    for storage in storages:
        assert all(t.size <= storage.size for t in storage.tensors)
        for a, b in itertools.combinations(storage.tensors, 2):
            assert a.last < b.first or b.last < a.first
    total = sum(storage.size for storage in storages)
    alive = [sum(t.size for t in tensors if t.first <= at <= t.last) for at in range(45)]
    assert max(alive) <= total <= sum(t.size for t in tensors)


def test_scopes_do_not_mix():
    tensors = [Tensor(relax.Var(s, relax.AnyType()), 64, s, i, i) for i, s in enumerate(["global", "shared"])]
    assert len(share_storage(tensors)) == 2


def test_unused_tensor():
    assert share_storage([Tensor(relax.Var("t", relax.AnyType()), 64, "global")])[0].size == 64
