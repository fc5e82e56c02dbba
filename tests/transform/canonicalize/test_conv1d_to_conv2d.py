import pytest
from tvm import relax

from tvm_sparse.transform.canonicalize.conv1d_to_conv2d import Conv1dToConv2d

from .helpers import (
    assert_rewrites,
    assert_same_results,
    assert_unchanged,
    calls,
    constant,
    module,
    random,
    rewritten,
)

OP = relax.op
SHAPE = (2, 4, 16)


def test_convolution():
    weight = random(6, 2, 3)

    def body(x):
        return OP.nn.conv1d(x, constant(weight), strides=2, padding=[1, 2], dilation=2, groups=2)

    def expected(x):
        y = OP.nn.conv2d(
            OP.reshape(x, (2, 4, 1, 16)),
            constant(weight[:, :, None]),
            strides=[1, 2],
            padding=[0, 1, 0, 2],
            dilation=[1, 2],
            groups=2,
        )
        return OP.reshape(y, (2, 6, 8))

    before = module([SHAPE], body)
    assert_same_results(before, assert_rewrites(before, module([SHAPE], expected), Conv1dToConv2d()))


def test_transposed_convolution():
    body = lambda x: OP.nn.conv1d_transpose(x, constant(random(4, 3, 3)), strides=2, output_padding=1)  # noqa: E731
    before = module([SHAPE], body)
    after = rewritten(before, Conv1dToConv2d())
    assert calls(after) == ["reshape", "nn.conv2d_transpose", "reshape"]
    assert_same_results(before, after)


@pytest.mark.parametrize("pool", [OP.nn.max_pool1d, OP.nn.avg_pool1d])
def test_chain_has_reshapes_at_its_ends_only(pool):
    def body(x):
        y = OP.add(OP.nn.conv1d(x, constant(random(6, 4, 3)), padding=1), constant(random(1, 6, 1)))
        y = relax.BlockBuilder.current().emit(OP.nn.silu(y))
        z = OP.clip(OP.nn.conv1d(y, constant(random(6, 6, 1))), -1.0, 1.0)
        return pool(OP.concat([OP.add(y, z), y], axis=1), 3, 2, padding=1)

    before = module([SHAPE], body)
    after = rewritten(before, Conv1dToConv2d())
    names = calls(after)
    assert names.count("reshape") == 2 and names[0] == names[-1] == "reshape"
    assert_same_results(before, after)


def test_weights_that_are_not_constant_stay():
    assert_unchanged(module([SHAPE, (6, 4, 3)], lambda x, w: OP.nn.conv1d(x, w)), Conv1dToConv2d())


def test_other_tensors_of_three_axes_stay():
    body = lambda x: OP.nn.relu(OP.reshape(x, (2, 4, 16)))  # noqa: E731
    assert_unchanged(module([(2, 4, 1, 16)], body), Conv1dToConv2d())
