"""Lowering to columns: which operators stay in columns, which layers become which kernels, and the results."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax

from tests.schedules.cpu.compiled import RUNNABLE, TILED, WIDEST, every_isa, isa_of
from tests.schedules.cpu.pipeline import context_for, run_module
from tvm_sparse.plan.plan import Plan
from tvm_sparse.transform.columns import ToColumns
from tvm_sparse.transform.columns.to_columns import handles
from tvm_sparse.transform.context import CompileContext
from tvm_sparse.transform.pipeline import run_until_layers

from .canonicalize.helpers import arrays_for, constant, module, number, outputs, random

OP = relax.op
NN = relax.op.nn
# An odd number of images, which share no vectors.
IMAGE = (3, 5, 9, 7)
# The kernels of dense layers: pixels in the lanes, or output channels. With short vectors images as small as these are
# worth a fast algorithm, too.
DENSE = ["DenseColumnsKernel", "DensePixels", *["WinogradKernel"] * (isa_of(WIDEST).lanes < 16)]
# The one of poolings that do not stride: by a register tile where lanes move between vectors.
POOL = ["MaxPoolPanels" if WIDEST in TILED else "MaxPoolColumns"]


def sparse(*shape: int, zeros: float = 0.9, seed: int = 0) -> np.ndarray:
    weight = random(*shape, seed=seed)
    weight.reshape(-1)[np.random.default_rng(seed).permutation(weight.size)[: round(weight.size * zeros)]] = 0
    return weight


def conv(x, weight=None, **options):
    weight = random(6, int(x.ty.shape[1]), 3, 3) if weight is None else weight
    return NN.conv2d(x, constant(weight), **{"padding": 1, **options})


def lowered(specs, body, plan: Plan | None = None, isa_name: str = WIDEST):
    """The module after ToColumns, and its compilation."""
    context = context_for(isa_name, plan)
    mod = run_until_layers(module(specs, body), context)
    after = ToColumns(context)(mod)
    relax.analysis.well_formed(after)
    return after, context


def steps(mod: tvm.IRModule, context: CompileContext) -> list[str]:
    """What "main" calls, in order: kernels by class, operators by name."""
    found = []
    for block in mod["main"].body.blocks:
        for binding in block.bindings:
            call = binding.value
            if isinstance(call, relax.Call) and call.op.name == "relax.call_dps_packed":
                found.append(type(context.kernels[str(call.args[0].global_symbol)]).__name__)
            elif isinstance(call, relax.Call):
                found.append(call.op.name.removeprefix("relax."))
    return found


BODIES = {
    "activations": (lambda x: OP.tanh(NN.gelu(OP.sqrt(OP.abs(conv(x))))), ["abs", "sqrt", "nn.gelu", "tanh"]),
    "numbers": (lambda x: OP.divide(OP.exp(conv(x)), number(3)), ["exp", "reshape", "divide"]),
    "a number per channel": (
        lambda x: OP.multiply(OP.exp(conv(x)), constant(random(6, 1, 1))), ["exp", "multiply"]),
    "a number per pixel": (lambda x: OP.multiply(OP.exp(conv(x)), constant(random(9, 7))), ["exp", "multiply"]),
    "max pooling": (lambda x: NN.max_pool2d(conv(x), 3, 2, padding=1), ["MaxPoolColumns"]),
    "max pooling in place": (lambda x: NN.max_pool2d(conv(x), 3, 1, padding=1), POOL),
    "average pooling": (lambda x: NN.avg_pool2d(conv(x), 3, 1), ["SparseColumns"]),
    "channels cut off": (lambda x: OP.strided_slice(conv(x), [1], [1], [4]), ["strided_slice"]),
    "pixels cut off": (lambda x: OP.strided_slice(conv(x), [2, 3], [1, 0], [9, 7], [2, 3]), ["a kernel"]),
    "softmax of channels": (lambda x: NN.softmax(conv(x), axis=1), ["nn.softmax"]),
    "concatenation": (lambda x: OP.concat([OP.exp(conv(x)), OP.tanh(conv(x))], axis=1), None),
    "nearest pixels": (lambda x: OP.image.resize2d(
        conv(x), (18, 14), layout="NCHW", method="nearest_neighbor"), ["a kernel"]),
    "linear resizing": (lambda x: OP.image.resize2d(conv(x), (18, 14), layout="NCHW", method="linear"), None),
    "mean of pixels": (lambda x: OP.exp(OP.mean(conv(x), [2, 3])), None),
    "gates": (lambda x: (lambda y: OP.multiply(y, OP.sigmoid(OP.mean(y, [2, 3], keepdims=True))))(
        relax.BlockBuilder.current().emit(conv(x))), None),
    "split": (lambda x: relax.TupleGetItem(OP.split(conv(x), 3, axis=1), 1), None),
    "padding larger than the window": (lambda x: NN.max_pool2d(conv(x), 3, 2, padding=(0, 0, 2, 1)), None),
    "ceiling": (lambda x: NN.avg_pool2d(conv(x), 2, 2, ceil_mode=True), None),
    "ceiling counts the padding": (
        lambda x: NN.avg_pool2d(conv(x), 3, 2, padding=1, ceil_mode=True, count_include_pad=True), None),
    "channels last": (lambda x: OP.exp(OP.permute_dims(conv(x), [0, 2, 3, 1])), None),
    "pixels as tokens": (
        lambda x: OP.matmul(OP.permute_dims(
            OP.reshape(conv(x), (int(x.ty.shape[0]), 6, 63)), [0, 2, 1]), constant(random(6, 4))), None),
    "strided 1x1": (lambda x: conv(x, random(4, 5, 1, 1), strides=(2, 3), padding=0), None),
}  # fmt: skip


@pytest.mark.parametrize("name", [n for n in BODIES if BODIES[n][1] is not None])
def test_operator_stays_in_columns(name):
    body, want = BODIES[name]
    first, *got, last = steps(*lowered([IMAGE], body))
    assert (first, last) == ("DenseColumnsKernel", "ToImages")
    # Which kernel moves pixels is not of interest here.
    assert got == want or (want == ["a kernel"] and len(got) == 1 and got[0].endswith("Columns"))


@every_isa
@pytest.mark.parametrize("batch", [IMAGE[0], 4])
def test_results_of_operators(isa_name, batch):
    """Of images by themselves, and of images that share vectors."""
    # All at once, since most of the time goes to compiling the reference.
    before = module([(batch, *IMAGE[1:])], lambda x: tuple(body(x) for body, _ in BODIES.values()))
    arrays = arrays_for(before)
    got = run_module(before, context_for(isa_name), arrays)
    for name, result, want in zip(BODIES, got, reference(before, arrays), strict=True):
        assert result.shape == want.shape, name
        np.testing.assert_allclose(result, want, rtol=0, atol=1e-5 * max(1, np.abs(want).max()), err_msg=name)


_REFERENCES: dict[bytes, list[np.ndarray]] = {}


def reference(mod, arrays):
    """What TVM computes without this package, once for all instruction sets."""
    key = arrays[0].tobytes() + str(len(mod["main"].body.blocks[0].bindings)).encode()
    if key not in _REFERENCES:
        _REFERENCES[key] = outputs(mod, arrays)
    return _REFERENCES[key]


STAYS_PLAIN = {
    "without a layer before": lambda x: NN.max_pool2d(OP.exp(x), 2, 2),
    "softmax of pixels": lambda x: NN.softmax(conv(x), axis=3),
    "batches joined": lambda x: OP.concat([conv(x), conv(x)], axis=0),
}


@pytest.mark.parametrize("name", STAYS_PLAIN)
def test_other_operators_see_plain_tensors(name):
    got = steps(*lowered([IMAGE], STAYS_PLAIN[name]))
    assert got[-1] in ("nn.max_pool2d", "nn.softmax", "concat")
    assert not {"MaxPoolColumns", "MaxPoolPanels"} & set(got)


def test_layers_follow_each_other_in_columns():
    def body(x):
        y = relax.BlockBuilder.current().emit(NN.relu(conv(x)))
        return OP.add(conv(NN.max_pool2d(y, 3, 1, padding=1), random(6, 6, 1, 1), padding=0), y)

    assert steps(*lowered([IMAGE], body)) == ["DenseColumnsKernel", *POOL, "DenseColumnsKernel", "ToImages"]


def channels_last(x):
    return relax.BlockBuilder.current().emit(OP.permute_dims(x, [0, 3, 1, 2]))


READ_IMAGES = {
    "dense": (IMAGE, conv, "DenseColumnsKernel"),
    "pruned": (IMAGE, lambda x: conv(x, sparse(6, 5, 3, 3)), "SparseColumns"),
    "by a fast algorithm": ((1, 3, 36, 40), lambda x: conv(x, random(32, 3, 7, 7), padding=3), "WinogradKernel"),
    "channels last": ((2, 19, 17, 3), lambda x: conv(channels_last(x)), "DenseColumnsKernel"),
    "images that share vectors": ((4, 3, 5, 5), lambda x: conv(x, sparse(6, 3, 3, 3)), "SparseColumns"),
    "strided 1x1": (IMAGE, lambda x: conv(x, random(6, 5, 1, 1), strides=2, padding=0), "DenseColumnsKernel"),
}


@pytest.mark.parametrize("name", READ_IMAGES)
def test_layers_read_plain_images(name):
    shape, body, want = READ_IMAGES[name]
    found, context = lowered([shape], body)
    *before, layer, _ = steps(found, context)
    assert layer == want and "ToColumns" not in before
    assert any(getattr(kernel, "image", False) for kernel in context.kernels.values())
    check_results(module([shape], body), tolerance=5e-6)


NEED_COLUMNS = {
    "another reader": (IMAGE, lambda x: OP.concat([conv(x), conv(x)], axis=1)),
    "groups": (WIDE := (1, 32, 9, 7), lambda x: conv(x, random(32, 8, 3, 3), groups=4)),
    "depth-wise": (WIDE, lambda x: conv(x, random(32, 1, 3, 3), groups=32)),
    "1x1": (IMAGE, lambda x: conv(x, random(6, 5, 1, 1), padding=0)),
    "many channels side by side": ((1, 9, 7, 200), lambda x: conv(channels_last(x))),
}


@pytest.mark.parametrize("name", NEED_COLUMNS)
def test_other_images_are_brought_to_columns(name):
    shape, body = NEED_COLUMNS[name]
    assert "ToColumns" in steps(*lowered([shape], body))
    check_results(module([shape], body))


TOKENS = (2, 19, 6)


def test_tokens_stay_in_columns():
    width = isa_of(WIDEST).lanes // 2  # outputs that filled vectors would be in the lanes

    def body(x):
        y = OP.matmul(x, constant(random(6, width)))
        y = NN.layer_norm(y, constant(random(width)), constant(random(width)), axes=[-1])
        y = OP.matmul(OP.reshape(y, (38, width)), constant(random(width, 4, seed=1)))
        return NN.softmax(OP.reshape(y, (2, 19, 4)), axis=-1)

    before = module([TOKENS], body)
    assert steps(*lowered([TOKENS], body)) == [
        "ToColumns", "DenseColumnsKernel", "NormColumns", "DenseColumnsKernel", "nn.softmax", "ToTokens"
    ]  # fmt: skip
    arrays = arrays_for(before)
    (got,) = run_module(before, context_for(WIDEST), arrays)
    np.testing.assert_allclose(got, outputs(before, arrays)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("isa_name", RUNNABLE)
def test_few_rows_are_read_as_they_are(isa_name):
    few = isa_of(isa_name).lanes // 2
    layer = lambda x: OP.matmul(x, constant(random(6, 8)))  # noqa: E731
    assert steps(*lowered([(few, 6)], layer, isa_name=isa_name)) == ["DenseRows"]
    assert set(DENSE) & set(steps(*lowered([(few + 1, 6)], layer, isa_name=isa_name)))


def test_several_rows_share_vectors_where_that_is_faster():
    few = isa_of(WIDEST).lanes // 2
    layer = lambda x: OP.matmul(x, constant(sparse(256, 64)))  # noqa: E731
    assert not {"ToColumns", "ToTokens"} & set(steps(*lowered([(1, 256)], layer)))
    assert steps(*lowered([(few, 256)], layer))[0] == "ToColumns"


def attention(x, heads=3, depth=4):
    """Queries, keys and values of one tensor."""
    emit = relax.BlockBuilder.current().emit
    batch, tokens, width = (int(extent) for extent in x.ty.shape)
    weights = [constant(random(width, heads * depth, seed=i)) for i in range(3)]
    parts = [emit(OP.reshape(emit(OP.matmul(x, w)), (batch, tokens, heads, depth))) for w in weights]
    return emit(OP.reshape(emit(NN.attention(*parts)), (batch, tokens, heads * depth)))


def check_results(before, tolerance=2e-5):
    arrays = arrays_for(before)
    for got, want in zip(run_module(before, context_for(WIDEST), arrays), outputs(before, arrays), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * max(1, np.abs(want).max()))


def test_attention_reads_a_range_of_channels_in_place():
    before = relax.transform.Normalize()(module([(2, 31, 6)], attention))
    after, context = lowered([(2, 31, 6)], attention)
    assert steps(after, context) == ["ToColumns", "DenseColumnsKernel", "AttentionColumns", "ToTokens"]
    check_results(before)


def test_readers_of_another_geometry_share_a_relayout():
    def body(x):
        y = relax.BlockBuilder.current().emit(NN.conv2d(x, constant(random(16, 16, 1, 1))))
        halves = [NN.conv2d(y, constant(random(16, 1, 3, 3, seed=i)), 2, [0, 0, 1, 1], groups=16) for i in range(2)]
        return OP.concat(halves, axis=1)

    found = steps(*lowered([(1, 16, 28, 28)], body, isa_name="avx512"))
    assert found.count("MoveColumns") == 1 and found.count("DepthwiseColumns") == 2


def test_another_reader_copies_the_range_once():
    def body(x):
        emit = relax.BlockBuilder.current().emit
        q, k = emit(OP.split(emit(OP.matmul(x, constant(random(6, 12)))), 2, axis=-1))
        return emit(OP.exp(q)), emit(OP.tanh(q)), k

    assert steps(*lowered([(2, 31, 6)], body)).count("strided_slice") == 2
    check_results(module([(2, 31, 6)], body))


@pytest.mark.parametrize("count, step", [(1, 1), (3, 1), (20, 1), (3, 7)])
@pytest.mark.parametrize("shape", [(2, 31, 6), (1, 70, 6), (70, 6), (2, 17, 9, 6)], ids=str)
def test_slices_of_tokens(shape, count, step):
    axis = len(shape) - 2 if len(shape) < 4 else 1
    count = min(count, (shape[axis] - 3) // step)

    def body(x):
        y = NN.gelu(OP.matmul(x, constant(random(6, 8))))
        cut = OP.strided_slice(y, [axis], [2], [2 + (count - 1) * step + 1], [step])
        return OP.exp(cut), OP.sum(y)  # another reader: the slice is not moved to the layer's input

    assert "ToTokens" not in steps(*lowered([shape], lambda x: body(x)[0]))[:-1]
    check_results(module([shape], body))


@pytest.mark.parametrize("batch", [1, 3])
def test_first_token_of_the_last_layer(batch):
    # A classifier's encoder: queries and everything after them for one token of each sequence only.
    def body(x):
        emit = relax.BlockBuilder.current().emit
        one, zero = constant(np.ones(12, "float32")), constant(np.zeros(12, "float32"))
        y = emit(OP.matmul(x, constant(random(6, 12))))
        for _ in range(2):
            y = emit(NN.layer_norm(emit(OP.add(attention(y), y)), one, zero, axes=[-1]))
        return OP.matmul(emit(OP.strided_slice(y, [1], [0], [1])), constant(random(12, 5)))

    before = relax.transform.Normalize()(module([(batch, 31, 6)], body))
    after, context = lowered([(batch, 31, 6)], body)
    kernels = [kernel for kernel in context.kernels.values() if type(kernel).__name__ == "AttentionColumns"]
    assert {kernel.vectors for kernel in kernels} == {1, -(-31 // isa_of(WIDEST).lanes)}
    check_results(before)


def test_images_of_one_pixel_are_rows():
    assert steps(*lowered([(1, 5, 1, 1)], conv)) == ["reshape", "DenseRows", "reshape"]
    before = module([(1, 6, 1, 1)], lambda x: conv(x, random(9, 2, 3, 3), groups=3))
    arrays = arrays_for(before)
    (got,) = run_module(before, context_for(WIDEST), arrays)
    np.testing.assert_allclose(got, outputs(before, arrays)[0], rtol=1e-5, atol=1e-5)


def blocks(rows, *shape):
    """A weight of which a fifth of the blocks of rows is kept."""
    keep = np.random.default_rng(0).random((shape[0] // rows, *shape[1:])) < 0.2
    return random(*shape) * keep.repeat(rows, 0).astype("float32")


PRUNED = {
    "blocks": (lambda x: conv(x, blocks(4, 32, 32, 3, 3)), "block 4x1"),
    "pruned": (lambda x: conv(x, sparse(32, 32, 3, 3)), "unstructured"),
    "dense": (lambda x: conv(x, random(32, 32, 3, 3)), "dense"),
    "little pruned": (lambda x: conv(x, sparse(32, 32, 3, 3, zeros=0.4)), "dense"),
    "depth-wise": (lambda x: conv(x, random(32, 1, 3, 3), groups=32), "depthwise"),
}


@pytest.mark.parametrize("name", PRUNED)
def test_format_follows_the_zeros(name):
    body, want = PRUNED[name]
    after, context = lowered([WIDE], body)
    (layer,) = context.plan.layers
    assert layer.format == want and layer.name == "conv0" and layer.shape.endswith("@9x7")
    kernels = {
        "dense": DENSE,
        "block 4x1": {"BlockColumnsKernel"},
        # On 16 lanes these images leave some lanes' sources apart, which the sparse kernel's windows bring together.
        "depthwise": {"DepthwiseColumns", "SparseColumns"},
    }
    *_, kernel, last = steps(after, context)
    assert last == "ToImages" and kernel in kernels.get(want, {"SparseColumns"})
    assert layer.kernel in context.kernels and layer.bytes_dense > 0 and layer.bytes_packed > 0
    assert 0.05 < layer.density <= 1


OVERRULED = [
    ("pruned", Plan("off"), DENSE),
    ("pruned", Plan(threshold=0.95), DENSE),
    ("pruned", Plan(overrides={"conv0": "dense"}), DENSE),
    ("dense", Plan(overrides={"conv0": "unstructured"}), ("SparseColumns",)),
    ("pruned", Plan(overrides={"conv0": "block 1x4"}), ("BlockColumnsKernel",)),
    ("blocks", Plan(sparse_format="unstructured"), ("SparseColumns",)),
]


@pytest.mark.parametrize("name, plan, kernels", OVERRULED, ids=str)
def test_plan_has_the_last_word(name, plan, kernels):
    assert steps(*lowered([WIDE], PRUNED[name][0], plan))[-2] in kernels


def test_blocks_compute_what_the_weights_say():
    before = module([WIDE, WIDE], lambda x, y: OP.add(conv(x, blocks(4, 32, 32, 3, 3)), y))
    arrays = arrays_for(before)
    context = context_for(WIDEST)
    (got,) = run_module(before, context, arrays)
    assert context.plan.layers[0].format == "block 4x1"
    np.testing.assert_allclose(got, outputs(before, arrays)[0], rtol=1e-5, atol=1e-5)


def test_two_handlers_for_one_operator_are_refused():
    with pytest.raises(ValueError, match="two handlers for relax.exp"):
        handles("relax.exp")(lambda lowering, call: None)
