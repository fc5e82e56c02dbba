"""1x1 convolutions and constants of channels move in front of what enlarges images."""

import pytest
from tvm import relax

from tvm_sparse.transform.canonicalize.resize_after_pointwise import ResizeAfterPointwise

from .helpers import assert_rewrites, assert_same_results, assert_unchanged, calls, constant, module, random, rewritten

OP = relax.op
SHAPE = (2, 6, 5, 7)


def resize(x, size=(10, 14), method="linear", mode="half_pixel", **options):
    return OP.image.resize2d(
        x, size=size, roi=[0.0] * 4, layout="NCHW", method=method, coordinate_transformation_mode=mode,
        rounding_method="round" if method == "nearest_neighbor" else "", **options,
    )  # fmt: skip


def conv(x, outputs=4, inputs=6, kernel=1, **options):
    return OP.nn.conv2d(x, constant(random(outputs, inputs, kernel, kernel)), **options)


BIAS = random(1, 4, 1, 1, seed=3)


LINEAR = [("linear", mode) for mode in ("half_pixel", "align_corners", "asymmetric")]


@pytest.mark.parametrize("method, mode", [*LINEAR, ("nearest_neighbor", "half_pixel")])
def test_convolution_with_its_bias_comes_first(method, mode):
    before = module([SHAPE], lambda x: OP.nn.relu(OP.add(conv(resize(x, (13, 15), method, mode)), constant(BIAS))))
    expected = module(
        [SHAPE], lambda x: OP.nn.relu(resize(OP.add(conv(x), constant(BIAS)), (13, 15), method, mode))
    )
    assert_same_results(before, assert_rewrites(before, expected, ResizeAfterPointwise()))


def test_scales_and_shifts_of_channels_come_first():
    scale, shift = random(6, 1, 1, seed=1), random(1, seed=2)
    before = module([SHAPE], lambda x: OP.add(constant(shift), OP.multiply(resize(x), constant(scale))))
    expected = module([SHAPE], lambda x: resize(OP.add(constant(shift), OP.multiply(x, constant(scale)))))
    assert_same_results(before, assert_rewrites(before, expected, ResizeAfterPointwise()))


def test_groups():
    before = module([SHAPE], lambda x: conv(resize(x), 4, 3, groups=2))
    after = rewritten(before, ResizeAfterPointwise())
    assert calls(after) == ["nn.conv2d", "image.resize2d"]
    assert_same_results(before, after)


def test_wider_results_where_the_arithmetic_is_worth_it():
    wide = (1, 64, 3, 3)
    after = rewritten(module([wide], lambda x: conv(resize(x), 80, 64)), ResizeAfterPointwise())
    assert calls(after) == ["nn.conv2d", "image.resize2d"]


def read_twice(x):
    larger = relax.BlockBuilder.current().emit(resize(x))
    return conv(larger), OP.nn.relu(larger)


STAYS = {
    "smaller image": lambda x: conv(resize(x, (3, 4))),
    "window": lambda x: conv(resize(x), kernel=3, padding=1),
    "stride": lambda x: conv(resize(x), strides=2),
    "padding": lambda x: conv(resize(x), padding=1),
    "read by others": read_twice,
    "more channels than before": lambda x: conv(resize(x), 8),
    "cropped region": lambda x: conv(resize(x, mode="tf_crop_and_resize", extrapolation_value=1.0)),
    "not linear": lambda x: OP.nn.relu(resize(x)),
    "constant of pixels": lambda x: OP.add(resize(x), constant(random(10, 14))),
    "constant of items": lambda x: OP.add(resize(x), constant(random(2, 1, 1, 1))),
    "other operand is no constant": lambda x: OP.add(resize(x), resize(OP.nn.relu(x))),
}


@pytest.mark.parametrize("name", STAYS)
def test_others_stay(name):
    assert_unchanged(module([SHAPE], STAYS[name]), ResizeAfterPointwise())
