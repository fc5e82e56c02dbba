"""The parts of the generic engine: flat indices, inlining, groups, segments, reductions, tiles."""

import pytest
import tvm
from tvm import relax, tirx

from tests.transform.canonicalize.helpers import constant, number, random
from tvm_sparse.schedules.cpu.generic.emit import tile_width, tiles
from tvm_sparse.schedules.cpu.generic.flat import (
    can_fuse,
    flat_index,
    flatten,
    fuse_adjacent,
    linear,
    opaque,
    strides_of,
)
from tvm_sparse.schedules.cpu.generic.groups import fuse_shared, make_groups
from tvm_sparse.schedules.cpu.generic.inline import cost, inline
from tvm_sparse.schedules.cpu.generic.nest import const
from tvm_sparse.schedules.cpu.generic.reduce import combination
from tvm_sparse.schedules.cpu.generic.segments import cut

from ..compiled import WIDEST, isa_of
from .helpers import program_of

OP = relax.op
NN = relax.op.nn
ISA = isa_of(WIDEST)
P, Q = tirx.Var("i", "int64"), tirx.Var("j", "int64")


def inlined(specs, body):
    program = program_of(specs, body)
    inline(program)
    return program


# Flat indices.


def test_linear_form():
    form = linear((P * 3 + Q) * 4 - P + 5, [P, Q])
    assert form.coefficients == {P: 11, Q: 4} and form.offset == 5 and form.rest is None
    assert form.stride(P) == 11 and form.stride(tirx.Var("k", "int64")) == 0
    analyzer = tvm.sym.Analyzer()
    assert analyzer.can_prove_equal(form.expr(), P * 11 + Q * 4 + 5)


def test_what_is_not_linear_is_the_rest():
    form = linear(P * 2 + tirx.FloorMod(Q, const(3)) - Q, [P, Q])
    assert form.coefficients[P] == 2 and form.rest is not None
    assert form.stride(P) == 2 and form.stride(Q) is None
    assert tvm.sym.Analyzer().can_prove_equal(form.expr(), P * 2 + tirx.FloorMod(Q, const(3)) - Q)


def test_row_major_offsets():
    buffer = tirx.decl_buffer((2, 3, 5), "float32")
    assert strides_of(buffer) == [15, 5, 1]
    assert tvm.sym.Analyzer().can_prove_equal(flat_index(buffer, [const(1), P, Q]), P * 5 + Q + 15)


def test_contiguous_axes_fuse():
    program = inlined([(3, 5, 7)], OP.exp)
    flatten(program)
    (stage,) = program.stages
    assert can_fuse(stage, stage.axes[0], stage.axes[1])
    fuse_adjacent(stage, [axis.var for axis in stage.axes])
    assert [axis.extent for axis in stage.axes] == [105]


def test_broadcast_axes_fuse_only_with_their_like():
    program = inlined([(3, 5, 7, 11), (3, 5, 1, 1)], OP.add)
    flatten(program)
    (stage,) = program.stages
    fuse_adjacent(stage, [axis.var for axis in stage.axes])
    assert [axis.extent for axis in stage.axes] == [15, 77]


def test_transposed_axes_do_not_fuse():
    program = inlined([(5, 7)], lambda x: OP.permute_dims(x, [1, 0]))
    flatten(program)
    (stage,) = program.stages
    assert not can_fuse(stage, *stage.axes)


def test_axes_in_conditions_are_opaque():
    program = inlined([(3, 5)], lambda x: NN.pad(x, [0, 0, 1, 1]))
    flatten(program)
    (stage,) = program.stages
    assert opaque(stage) == {stage.axes[1].var}
    assert not can_fuse(stage, *stage.axes)


# Inlining.


def test_chain_becomes_one_stage():
    def body(x):
        return OP.reshape(OP.permute_dims(OP.add(OP.reshape(x, (4, 5, 6)), number(1)), [0, 2, 1]), (24, 5))

    program = inlined([(20, 6)], body)
    assert len(program.stages) == 1 and not program.locals


def test_expensive_value_of_two_readers_is_kept():
    # The exponentials of a softmax are read twice: as their sum and in the quotient.
    program = inlined([(6, 10)], lambda x: NN.softmax(x, axis=-1))
    assert len(program.stages) == 4 and len(program.locals) == 3


def test_cheap_value_of_two_readers_is_repeated():
    def body(x):
        y = relax.BlockBuilder.current().emit(OP.negative(x))
        return OP.multiply(OP.exp(y), OP.permute_dims(y, [1, 0]))

    assert len(inlined([(10, 10)], body).stages) == 1


def test_exponential_read_in_two_places_is_not_repeated():
    def body(x):
        y = relax.BlockBuilder.current().emit(OP.exp(x))
        return OP.multiply(y, OP.permute_dims(y, [1, 0]))

    assert len(inlined([(10, 10)], body).stages) == 2


def test_cost_counts_arithmetic_but_not_indices():
    x = tirx.decl_buffer((64,), "float32")
    value = tirx.BufferLoad(x, [P * 2 + Q]) * tirx.const(2.0, "float32") + tirx.const(1.0, "float32")
    assert cost(value) == 2
    assert cost(tirx.exp(value)) == 18


def test_condition_costs_as_much_as_a_call():
    assert cost(tirx.if_then_else(P < 3, tirx.const(1.0, "float32"), tirx.const(2.0, "float32"))) == 16


# Groups.


def test_softmax_is_one_group_over_rows():
    program = inlined([(16, 10)], lambda x: NN.softmax(x, axis=-1))
    flatten(program)
    (group,) = make_groups(program)
    assert [shared.extent for shared in group.shared] == [16]
    assert set(group.private) == set(program.locals)
    assert [axis.extent for axis in group.own_axes(1)] == [10]
    exponentials = group.stages[1].stores[0].buffer
    assert group.dropped[exponentials] == [True, False]


def test_shared_axes_fuse():
    program = inlined([(4, 6, 10)], lambda x: NN.softmax(x, axis=-1))
    flatten(program)
    (group,) = make_groups(program)
    fuse_shared(group)
    assert [shared.extent for shared in group.shared] == [24]


def test_few_shared_points_do_not_join_stages():
    # Joined, only two iterations would be left to run in parallel.
    program = inlined([(2, 500)], lambda x: NN.softmax(x, axis=-1))
    flatten(program)
    assert len(make_groups(program)) > 1


def test_stages_without_common_axes_are_apart():
    # The deviations read the mean of all.
    program = inlined([(40, 50)], OP.variance)
    flatten(program)
    groups = make_groups(program)
    assert sum(len(group.stages) for group in groups) == len(program.stages)
    assert len(groups) > 1


# Segments.


def pieces_of(specs, body):
    program = inlined(specs, body)
    (stage,) = program.stages
    return stage, cut(stage, [axis.var for axis in stage.axes])


def test_padding_is_cut_into_borders_and_inside():
    stage, pieces = pieces_of([(3, 5)], lambda x: NN.pad(x, [0, 0, 2, 1]))
    assert sum(piece.stage.points for piece in pieces) == stage.points == 24
    assert [piece.stage.points for piece in pieces] == [6, 15, 3]


def test_concatenation_is_cut_at_every_part():
    _, pieces = pieces_of([(4, 3), (4, 18), (4, 1)], lambda *x: OP.concat(list(x), axis=1))
    assert [piece.stage.points for piece in pieces] == [12, 72, 4]


def test_nothing_to_cut():
    stage, pieces = pieces_of([(4, 3)], OP.exp)
    assert [piece.stage for piece in pieces] == [stage]


def test_conditions_on_two_axes_at_once_stay():
    stage, pieces = pieces_of([(9, 9)], OP.tril)
    assert [piece.stage for piece in pieces] == [stage]


# Reductions.


UPDATES = [(OP.sum, tirx.Add), (OP.max, tirx.Max), (OP.min, tirx.Min), (OP.prod, tirx.Mul)]


@pytest.mark.parametrize("reduce, kind", UPDATES)
def test_updates_are_understood(reduce, kind):
    program = inlined([(4, 9)], lambda x: reduce(x, axis=[1]))
    (store,) = program.stages[0].stores
    combine, element = combination(store)
    a, b = tirx.Var("a", "float32"), tirx.Var("b", "float32")
    assert isinstance(combine(a, b), kind)
    tvm.ir.assert_structural_equal(combine(tirx.BufferLoad(store.buffer, store.indices), element), store.value)


def test_position_of_a_maximum_is_no_simple_update():
    program = inlined([(4, 9)], lambda x: OP.argmax(x, axis=1))
    reduction = next(stage for stage in program.stages if stage.is_reduction)
    assert any(combination(store) is None for store in reduction.stores)


# Tiles.


@pytest.mark.parametrize("extent", [1, 2, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 100, 1000])
@pytest.mark.parametrize("vectors", [1, 2, 4])
@pytest.mark.parametrize("overlap", [False, True])
def test_tiles_cover_an_extent_without_leaving_it(extent, vectors, overlap):
    width = tile_width(extent, ISA, vectors)
    assert width == extent if extent <= ISA.lanes else width % ISA.lanes == 0
    assert width <= max(extent, ISA.lanes) and width <= vectors * ISA.lanes
    analyzer = tvm.sym.Analyzer()
    covered: list[int] = []
    parts = tiles(extent, width, overlap)
    for part in parts:
        for tile in range(part.count):
            start = int(analyzer.simplify(part.start(const(tile))))
            assert start >= 0 and start + part.width <= extent
            covered += range(start, start + part.width)
    assert len(parts) == 1 or not overlap
    assert len(covered) == extent or overlap
    assert set(covered) == set(range(extent))


def test_constants_are_parameters_of_the_function():
    program = inlined([(9, 6)], lambda x: NN.layer_norm(x, constant(random(6)), constant(random(6)), axes=[-1]))
    flatten(program)
    assert len(program.func.params) == 4
    assert not any(program.is_local(parameter) for parameter in program.func.params)
