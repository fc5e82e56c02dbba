"""Relayouts between plain tensors and columns, means and linear resizing, against numpy."""

import numpy as np
import pytest
from tvm import relax

from tests.transform.canonicalize.helpers import constant, module
from tvm_sparse.layout.geometry import Geometry, choose_geometry
from tvm_sparse.layout.resample import linear, source_positions
from tvm_sparse.schedules.cpu.move_columns import BlendColumns
from tvm_sparse.transform.columns.values import Emitter, token_geometry

from .compiled import WIDEST, every_isa, isa_of
from .pipeline import context_for, kernel_kinds, run_module

OP = relax.op
IMAGES = [(1, 1, 1, 1), (1, 3, 7, 5), (2, 5, 3, 3), (3, 1, 1, 31), (1, 17, 14, 14), (5, 2, 2, 2), (1, 33, 4, 9)]
TOKENS = [(7, 1), (1, 19), (3, 11, 5), (2, 16, 16), (2, 3, 5, 17), (1, 1, 35)]


def random(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def emit(context, shapes, body):
    """A module whose "main" is what ``body(emitter, *inputs)`` emits."""
    inputs = [relax.Var(f"x{i}", relax.TensorType(shape, "float32")) for i, shape in enumerate(shapes)]
    builder = relax.BlockBuilder()
    with builder.function("main", inputs):
        with builder.dataflow():
            output = builder.emit_output(relax.Tuple(body(Emitter(builder, context), *inputs)))
        builder.emit_func_output(output)
    return builder.get()


@every_isa
def test_images_to_columns_and_back(isa_name):
    context, lanes = context_for(isa_name), isa_of(isa_name).lanes
    arrays = [random(shape, seed) for seed, shape in enumerate(IMAGES)]

    def body(emitter, *inputs):
        columns = [emitter.image_columns(x) for x in inputs]
        return [c.value for c in columns] + [emitter.plain(c) for c in columns]

    results = run_module(emit(context, IMAGES, body), context, arrays)
    for x, columns, plain in zip(arrays, results[: len(arrays)], results[len(arrays) :], strict=True):
        geometry = choose_geometry(x.shape[0], *x.shape[2:], lanes)
        np.testing.assert_array_equal(geometry.unpack(columns), x)
        np.testing.assert_array_equal(plain, x)
        assert np.isfinite(columns).all(), "unused lanes hold copies of pixels"


@every_isa
def test_parts_of_a_larger_tensor_to_columns(isa_name):
    """Views that begin inside of a tensor, images and tokens."""
    context = context_for(isa_name)
    shapes = [(3, 4, 8, 2), (5, 16, 4)]
    arrays = [random(shape, seed) for seed, shape in enumerate(shapes)]

    def body(emitter, images, tokens):
        parts = [
            emitter.image_columns(emitter.emit(OP.memory.view(images, (1, 4, 8, 2), "float32", 2 * 256))),
            emitter.token_columns(emitter.emit(OP.memory.view(tokens, (2, 16, 4), "float32", 3 * 256))),
        ]
        return [emitter.plain(part) for part in parts]

    image, sequences = run_module(emit(context, shapes, body), context, arrays)
    np.testing.assert_array_equal(image, arrays[0][2:])
    np.testing.assert_array_equal(sequences, arrays[1][3:])


@every_isa
def test_tokens_to_columns_and_back(isa_name):
    context, lanes = context_for(isa_name), isa_of(isa_name).lanes
    arrays = [random(shape, seed) for seed, shape in enumerate(TOKENS)]

    def body(emitter, *inputs):
        columns = [emitter.token_columns(x) for x in inputs]
        return [c.value for c in columns] + [emitter.plain(c) for c in columns]

    results = run_module(emit(context, TOKENS, body), context, arrays)
    for x, columns, plain in zip(arrays, results[: len(arrays)], results[len(arrays) :], strict=True):
        geometry = token_geometry(x.shape, lanes)
        # In the order of the tokens, whatever they were joined to.
        np.testing.assert_array_equal(geometry.unpack(columns).transpose(0, 2, 3, 1).reshape(x.shape), x)
        np.testing.assert_array_equal(plain, x)


@every_isa
def test_other_geometries(isa_name):
    context, lanes = context_for(isa_name), isa_of(isa_name).lanes
    x = random((2, 5, 9, 13))
    targets = [Geometry(2, 9, 13, lanes, *at) for at in [((1, 1), (1, 1)), ((1, lanes), (3, 1)), ((lanes, 1), (2, 5))]]

    def body(emitter, value):
        columns = emitter.image_columns(value)
        moved = []
        for target in targets:  # from one to the next
            columns = emitter.with_geometry(columns, target)
            moved.append(columns.value)
        return [*moved, emitter.plain(columns)]

    *moved, plain = run_module(emit(context, [x.shape], body), context, [x])
    for columns, target in zip(moved, targets, strict=True):
        np.testing.assert_array_equal(target.unpack(columns), x)
    np.testing.assert_array_equal(plain, x)


@every_isa
def test_gathered_pixels_and_shifted_channels(isa_name):
    context, lanes = context_for(isa_name), isa_of(isa_name).lanes
    x = random((3, 8, 6, 7))
    rng = np.random.default_rng(1)
    y, x_at, shift = rng.integers(0, 6, (4, 5)), rng.integers(0, 7, (4, 5)), rng.integers(0, 4, (4, 5))
    target = choose_geometry(3, 4, 5, lanes)

    def body(emitter, value):
        columns = emitter.image_columns(value)
        return [
            emitter.move_pixels(columns, target, y, x_at, (3, 8, 4, 5)).value,
            emitter.move_pixels(columns, target, y, x_at, (3, 5, 4, 5), 5, shift).value,
        ]

    all_channels, some = run_module(emit(context, [x.shape], body), context, [x])
    np.testing.assert_array_equal(target.unpack(all_channels), x[:, :, y, x_at])
    want = np.stack([x[:, shift + c, y, x_at] for c in range(5)], 1)
    np.testing.assert_array_equal(target.unpack(some), want)


def unchanged(x, channels):
    """A layer that brings an image to columns and nothing else."""
    return OP.nn.conv2d(x, constant(np.eye(channels, dtype="float32").reshape(channels, channels, 1, 1)))


@every_isa
def test_mean_over_pixels(isa_name):
    shapes = [(1, 3, 7, 5), (2, 17, 9, 13), (8, 5, 3, 3)]
    context = context_for(isa_name)

    def body(*inputs):
        columns = [unchanged(x, x.ty.shape[1].value) for x in inputs]
        means = [OP.mean(c, [2, 3], keepdims=i % 2 == 0) for i, c in enumerate(columns)]
        return (*means, OP.nn.adaptive_avg_pool2d(columns[0], (1, 1)))

    arrays = [random(shape, seed) + 1 for seed, shape in enumerate(shapes)]
    *means, pooled = run_module(module(shapes, body), context, arrays)
    assert "MeanColumns" in kernel_kinds(context)
    for i, (x, mean) in enumerate(zip(arrays, means, strict=True)):
        want = x.astype("float64").mean((2, 3), keepdims=i % 2 == 0)
        np.testing.assert_allclose(mean, want, rtol=1e-6, atol=2e-7)
    np.testing.assert_array_equal(pooled, means[0])


@pytest.mark.parametrize("mode", ["half_pixel", "align_corners", "asymmetric"])
@every_isa
def test_linear_resize(isa_name, mode):
    x, sizes = random((1, 3, 7, 5)), [(14, 10), (5, 9), (1, 1), (7, 23)]
    context = context_for(isa_name)

    def body(value):
        columns = unchanged(value, 3)
        options = {"layout": "NCHW", "method": "linear", "coordinate_transformation_mode": mode}
        return tuple(OP.image.resize2d(columns, size, **options) for size in sizes)

    results = run_module(module([x.shape], body), context, [x])
    assert "BlendColumns" in kernel_kinds(context)
    for size, got in zip(sizes, results, strict=True):
        want = x.astype("float64")
        for axis in range(2):
            positions = source_positions(x.shape[2 + axis], size[axis], mode)
            pixels, weights = linear(positions, x.shape[2 + axis])
            matrix = sum(np.eye(x.shape[2 + axis])[at] * w[:, None] for at, w in zip(pixels, weights, strict=True))
            want = np.moveaxis(np.tensordot(matrix, want, (1, 2 + axis)), 0, 2 + axis)
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@every_isa
def test_sum_with_a_resized_image(isa_name):
    options = {"layout": "NCHW", "method": "linear"}

    def body(x, y):
        def resized():
            return OP.image.resize2d(unchanged(x, 3), (14, 10), **options)

        shared = relax.BlockBuilder.current().emit(resized())
        return OP.add(resized(), y), OP.add(OP.tanh(y), resized()), OP.add(resized(), resized()), OP.add(shared, shared)

    x, y = random((1, 3, 7, 5)), random((1, 3, 14, 10), 1)
    context = context_for(isa_name)
    results = run_module(module([x.shape, y.shape], body), context, [x, y])
    assert {kernel.residual for kernel in context.kernels.values() if isinstance(kernel, BlendColumns)} == {False, True}
    (alone,) = run_module(
        module([x.shape], lambda v: OP.image.resize2d(unchanged(v, 3), (14, 10), **options)), context_for(isa_name), [x]
    )
    for got, want in zip(results, (alone + y, np.tanh(y) + alone, 2 * alone, 2 * alone), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_widest_runs_here():
    # The other tests would be empty without any instruction set.
    assert isa_of(WIDEST).lanes >= 4
