"""Operators that treat the items of a batch apart: whole and in groups they compute the same; others are known."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax

from tests.schedules.cpu.compiled import WIDEST
from tests.schedules.cpu.pipeline import context_for
from tests.transform.canonicalize.helpers import assert_same_results, constant, module, random, rewritten
from tvm_sparse.transform.batch import CopyViews, SplitBatch
from tvm_sparse.transform.batch.roles import Role, roles_of

OP, NN = relax.op, relax.op.nn
BATCH = 6
IMAGE, ROWS, IDS = (BATCH, 4, 6, 5), (BATCH, 8), ((BATCH, 3), "int64")
STACKED = (2 * BATCH, 4, 3)  # each item has two rows
G, W = constant(random(4)), constant(random(8, 5))

SPLIT = {
    "unary": ([IMAGE], NN.relu),
    "clip": ([IMAGE], lambda x: OP.clip(x, -0.5, 0.5)),
    "astype": ([IMAGE], lambda x: OP.astype(x, "int32")),
    "two tensors": ([IMAGE, IMAGE], OP.add),
    "constant per channel": ([IMAGE], lambda x: OP.multiply(x, constant(random(1, 4, 1, 1)))),
    "constant of fewer axes": ([(BATCH, BATCH)], lambda x: OP.add(x, constant(random(BATCH)))),
    "constant with items": ([IMAGE], lambda x: OP.add(x, constant(random(*IMAGE)))),
    "constant with equal items": ([IMAGE], lambda x: OP.add(x, constant(np.repeat(random(1, 4, 6, 5), BATCH, 0)))),
    "shared input": ([ROWS, (8,)], OP.add),
    "where": ([(IMAGE, "bool"), IMAGE, IMAGE], OP.where),
    "comparison": ([IMAGE, IMAGE], OP.less),
    "two rows an item": ([STACKED, STACKED], OP.subtract),
    "broadcast": ([(BATCH, 1, 8)], lambda x: OP.broadcast_to(x, (BATCH, 3, 8))),
    "convolution": ([IMAGE], lambda x: NN.conv2d(x, constant(random(7, 4, 3, 3)), padding=1)),
    "pooling": ([IMAGE], lambda x: NN.max_pool2d(x, (2, 2), (2, 2))),
    "mean over windows": ([IMAGE], lambda x: NN.avg_pool2d(x, (3, 3), padding=(1, 1))),
    "resize": ([IMAGE], lambda x: OP.image.resize2d(x, (9, 7), layout="NCHW")),
    "layer norm": ([ROWS], lambda x: NN.layer_norm(x, constant(random(8)), constant(random(8)), [-1])),
    "group norm": ([IMAGE], lambda x: NN.group_norm(x, G, G, 2, 1, [2, 3])),
    "instance norm": ([IMAGE], lambda x: NN.instance_norm(x, G, G, 1, [2, 3])),
    "softmax": ([IMAGE], lambda x: NN.softmax(x, -1)),
    "sum": ([IMAGE], lambda x: OP.sum(x, [1, -1])),
    "mean that keeps axes": ([IMAGE], lambda x: OP.mean(x, [2, 3], True)),
    "argmax": ([IMAGE], lambda x: OP.argmax(x, 1)),
    "cumsum": ([IMAGE], lambda x: OP.cumsum(x, 1)),
    "split": ([IMAGE], lambda x: OP.multiply(*(OP.split(x, 2, 1)[i] for i in range(2)))),
    "rows of all items": ([(BATCH, 4, 8)], lambda x: OP.reshape(x, (BATCH * 4, 8))),
    "rows back to items": ([(BATCH, 32)], lambda x: OP.reshape(OP.reshape(x, (BATCH * 4, 8)), (BATCH, 4, 8))),
    "flatten": ([IMAGE], OP.flatten),
    "batch flatten": ([IMAGE], NN.batch_flatten),
    "squeeze": ([(BATCH, 1, 8)], lambda x: OP.squeeze(x, [1])),
    "expand": ([ROWS], lambda x: OP.expand_dims(x, [1])),
    "transpose": ([IMAGE], lambda x: OP.permute_dims(x, [0, 2, 3, 1])),
    "concat": ([IMAGE, IMAGE], lambda x, y: OP.concat([x, y, constant(random(*IMAGE))], 1)),
    "stack": ([ROWS, ROWS], lambda x, y: OP.stack([x, y], 1)),
    "slice": ([IMAGE], lambda x: OP.strided_slice(x, [1, 3], [1, 0], [3, 5], [1, 2])),
    "pad": ([IMAGE], lambda x: NN.pad(x, [0, 0, 0, 0, 1, 2, 3, 0])),
    "tile": ([IMAGE], lambda x: OP.tile(x, (2, 1, 2))),
    "repeat": ([IMAGE], lambda x: OP.repeat(x, 2, 1)),
    "flip": ([IMAGE], lambda x: OP.flip(x, 2)),
    "embedding": ([IDS], lambda i: OP.take(constant(random(9, 5)), i, 0)),
    "same places": ([ROWS], lambda x: OP.take(x, constant(np.array([3, 1])), 1)),
    "gather": ([ROWS, IDS], lambda x, i: OP.gather_elements(x, i, 1)),
    "rows by a matrix": ([ROWS], lambda x: OP.matmul(x, W)),
    "matrix of rows and items": ([(BATCH, 3, 8)], lambda x: OP.matmul(x, W)),
    "stacked matrices": ([(BATCH, 3, 8), (BATCH, 8, 2)], OP.matmul),
    "one matrix by stacked ones": ([(BATCH, 8, 3)], lambda x: OP.matmul(constant(random(2, 8)), x)),
    "attention": ([(BATCH, 5, 2, 4)] * 3, NN.attention),
    "attention of a mask": ([*[(BATCH, 5, 2, 4)] * 3, (BATCH, 1, 1, 5)], NN.attention),
    "attention of one mask": ([*[(BATCH, 5, 2, 4)] * 3, (1, 1, 5, 5)], NN.attention),
}  # fmt: skip

MIXED = {
    "sum over items": ([ROWS], lambda x: OP.sum(x, [0])),
    "sum over all": ([ROWS], OP.sum),
    "softmax over items": ([ROWS], lambda x: NN.softmax(x, 0)),
    "norm over items": ([IMAGE], lambda x: NN.layer_norm(x, *[constant(random(*IMAGE))] * 2, [0, 1, 2, 3])),
    "argmax of all": ([ROWS], OP.argmax),
    "cumsum over items": ([ROWS], lambda x: OP.cumsum(x, 0)),
    "items and channels swapped": ([(BATCH, BATCH, 2)], lambda x: OP.permute_dims(x, [1, 0, 2])),
    "all axes reversed": ([(BATCH, BATCH)], OP.permute_dims),
    "items into channels": ([IMAGE], lambda x: OP.reshape(x, (1, 4 * BATCH, 6, 5))),
    "all squeezed": ([(BATCH, 1)], OP.squeeze),
    "joined items": ([ROWS, ROWS], lambda x, y: OP.concat([x, y], 0)),
    "items chosen": ([ROWS], lambda x: OP.strided_slice(x, [0], [0], [BATCH], [1])),
    "items by index": ([ROWS, ((BATCH,), "int64")], lambda x, i: OP.take(OP.exp(x), i, 0)),
    "matrix of items": ([(BATCH, BATCH)] * 2, lambda x, y: OP.matmul(x, OP.exp(y))),
    "padded items": ([ROWS], lambda x: NN.pad(x, [3, 3, 0, 0])),
    "repeated items": ([ROWS], lambda x: OP.repeat(x, 2, 0)),
    "tiled items": ([ROWS], lambda x: OP.tile(x, (2, 1))),
    "flipped items": ([ROWS], lambda x: OP.flip(x, 0)),
    "new first axis": ([ROWS], lambda x: OP.expand_dims(x, [0])),
    "triangle": ([(BATCH, BATCH)], OP.triu),
    "channels of a square": ([(BATCH, BATCH)], lambda x: OP.add(x, OP.exp(OP.sum(x, [1])))),
}  # fmt: skip


def split(specs, body, group):
    context = context_for(WIDEST)
    before = module(specs, body)
    return before, rewritten(before, SplitBatch(context, group), CopyViews(context))


def parts(mod):
    return [function for name, function in mod.functions_items() if name.name_hint.startswith("part")]


@pytest.mark.parametrize("group", [1, 3])
@pytest.mark.parametrize("name", SPLIT)
def test_groups_compute_what_the_batch_does(name, group):
    before, after = split(*SPLIT[name], group)
    assert parts(after), "not split"
    assert_same_results(before, after)


@pytest.mark.parametrize("name", MIXED)
def test_mixed_items(name):
    before, after = split(*MIXED[name], 1)
    values = [binding.value for block in before["main"].body.blocks for binding in block.bindings]
    last = next(value for value in reversed(values) if isinstance(value, relax.Call))
    roles = roles_of(last, BATCH)
    # Some operators only mix items where what they read as a whole has items; then the split stops before them.
    assert roles is None or Role.WHOLE in roles
    assert_same_results(before, after)
    inside = [b.value for part in parts(after) for block in part.body.blocks for b in block.bindings]
    assert last.op not in [value.op for value in inside if isinstance(value, relax.Call)]
