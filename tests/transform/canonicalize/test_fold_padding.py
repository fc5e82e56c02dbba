import math

import pytest
from tvm import relax

from tvm_sparse.transform.canonicalize.fold_padding import FoldPadding

from .helpers import assert_rewrites, assert_same_results, assert_unchanged, constant, module, random

OP = relax.op
SHAPE = (1, 4, 8, 9)


def pad(x, value=0.0, widths=(0, 1, 2, 1)):
    top, bottom, left, right = widths
    return OP.nn.pad(x, [0, 0, 0, 0, top, bottom, left, right], pad_value=value)


def conv(x, padding):
    return OP.nn.conv2d(x, constant(random(6, 4, 3, 3)), strides=2, padding=padding)


def test_zeros_go_into_a_convolution():
    before = module([SHAPE], lambda x: conv(pad(x), [1, 1, 1, 1]))
    after = assert_rewrites(before, module([SHAPE], lambda x: conv(x, [1, 3, 2, 2])), FoldPadding())
    assert_same_results(before, after)


def test_minus_infinity_goes_into_a_maximum():
    before = module([SHAPE], lambda x: OP.nn.max_pool2d(pad(x, -math.inf), 3, 2))
    expected = module([SHAPE], lambda x: OP.nn.max_pool2d(x, 3, 2, padding=[0, 2, 1, 1]))
    assert_same_results(before, assert_rewrites(before, expected, FoldPadding()))


def test_zeros_around_relu_go_into_a_maximum():
    before = module([SHAPE], lambda x: OP.nn.max_pool2d(pad(OP.nn.relu(x)), 3, 2))
    expected = module([SHAPE], lambda x: OP.nn.max_pool2d(OP.nn.relu(x), 3, 2, padding=[0, 2, 1, 1]))
    assert_same_results(before, assert_rewrites(before, expected, FoldPadding()))


def test_zeros_go_into_an_average():
    before = module([SHAPE], lambda x: OP.nn.avg_pool2d(pad(x), 3, 2, count_include_pad=False))
    expected = module(
        [SHAPE], lambda x: OP.nn.avg_pool2d(x, 3, 2, padding=[0, 2, 1, 1], count_include_pad=True)
    )
    assert_same_results(before, assert_rewrites(before, expected, FoldPadding()))


STAYS = {
    "other value": lambda x: conv(pad(x, 1.0), 0),
    "reflected": lambda x: conv(OP.nn.pad(x, [0, 0, 0, 0, 1, 1, 1, 1], pad_mode="reflect"), 0),
    "cropped": lambda x: conv(pad(x, widths=(-1, 0, 0, 0)), 0),
    "channels": lambda x: OP.nn.max_pool2d(OP.nn.pad(x, [0, 0, 1, 1, 0, 0, 0, 0], pad_value=-math.inf), 2),
    "zeros in a maximum": lambda x: OP.nn.max_pool2d(pad(x), 3, 2),
    "wider than the window": lambda x: OP.nn.max_pool2d(pad(x, -math.inf, (2, 2, 2, 2)), 2, 2),
    "average with its own padding": lambda x: OP.nn.avg_pool2d(
        pad(x), 3, 2, padding=1, count_include_pad=False
    ),
    "ceil": lambda x: OP.nn.avg_pool2d(pad(x), 3, 2, ceil_mode=True, count_include_pad=True),
}


@pytest.mark.parametrize("name", STAYS)
def test_pad_that_cannot_be_folded_stays(name):
    assert_unchanged(module([SHAPE], STAYS[name]), FoldPadding())
