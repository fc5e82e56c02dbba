import numpy as np
import pytest
from tvm import relax

from tests.schedules.cpu.compiled import WIDEST
from tests.schedules.cpu.pipeline import context_for
from tvm_sparse.transform.analyze import analyze_layers

from .canonicalize.helpers import constant, module, random
from .test_to_columns import sparse

OP = relax.op
NN = relax.op.nn
IMAGE = (1, 32, 28, 28)
WHAT_IF = (0.5, 0.8, 0.9, 0.95)


def analyze(specs, body, what_if=WHAT_IF):
    return analyze_layers(module(specs, body), context_for(WIDEST), what_if)


def conv(x, weight, **options):
    return NN.conv2d(x, constant(weight), **{"padding": 1, **options})


def one(weight, **options):
    (layer,) = analyze([IMAGE], lambda x: conv(x, weight, **options))
    return layer


def test_fields_of_a_pruned_convolution():
    weight = sparse(64, 32, 3, 3, zeros=0.9)
    layer = one(weight, strides=2)
    assert (layer["name"], layer["kind"], layer["shape"]) == ("conv0", "conv 3x3 s2", "64x32 @14x14")
    assert layer["zeros"] == pytest.approx(0.9, abs=1e-4) and layer["structure"] == "unstructured"
    assert layer["bytes_dense"] == weight.size * 4 == layer["bytes_by_format"]["dense"]
    # A value and a 16-bit offset for each nonzero.
    assert layer["bytes_by_format"]["unstructured"] == np.count_nonzero(weight) * 6
    assert set(layer["speedup"]) == {"as is", "at 50%", "at 80%", "at 90%", "at 95%"}


def test_speedup_grows_with_the_zeros():
    speedup = one(random(64, 32, 3, 3))["speedup"]
    assert speedup["as is"] == 1, "never below dense"
    estimates = [speedup[f"at {z:.0%}"] for z in WHAT_IF]
    assert estimates == sorted(estimates) and 2 < estimates[2] < 10


def test_estimate_for_pruned_is_what_it_would_be():
    pruned, dense = one(sparse(64, 32, 3, 3, zeros=0.9)), one(random(64, 32, 3, 3))
    assert pruned["speedup"]["as is"] == pytest.approx(dense["speedup"]["at 90%"], rel=0.05)


def test_block_structure_is_named():
    weight = random(64, 32, 3, 3)
    keep = np.random.default_rng(0).random((16, 1, 32, 3, 3)) < 0.2
    weight = (weight.reshape(16, 4, 32, 3, 3) * keep).reshape(64, 32, 3, 3).astype("float32")
    assert one(weight)["structure"] == "4x1 blocks"


def test_depthwise_layer_has_no_estimates():
    layer = one(random(32, 1, 3, 3), groups=32)
    assert layer["kind"] == "depthwise 3x3" and layer["speedup"] == {}


def test_layers_in_order_and_nothing_else():
    def body(x):
        y = conv(NN.relu(conv(x, random(8, 32, 3, 3))), random(8, 8, 1, 1), padding=0)
        return OP.matmul(OP.mean(y, [2, 3]), constant(random(8, 10)))

    layers = analyze([IMAGE], body)
    assert [layer["kind"] for layer in layers] == ["conv 3x3", "conv 1x1", "linear"]
    assert [layer["shape"] for layer in layers] == ["8x32 @28x28", "8x8 @28x28", "10x8"]
    assert len({layer["name"] for layer in layers}) == 3


def test_names_are_those_of_the_plan():
    from tvm_sparse.transform.columns import ToColumns
    from tvm_sparse.transform.pipeline import run_until_layers

    mod = module([IMAGE], lambda x: conv(conv(x, random(8, 32, 3, 3)), random(8, 8, 3, 3)))
    context = context_for(WIDEST)
    ToColumns(context)(run_until_layers(mod, context))
    names = [layer["name"] for layer in analyze_layers(mod, context_for(WIDEST), ())]
    assert names == [layer.name for layer in context.plan.layers]


def test_all_zero_and_tiny_weights():
    layer = one(np.zeros((4, 32, 3, 3), "float32"))
    assert layer["zeros"] == 1 and layer["bytes_by_format"]["unstructured"] == 0
    (tiny,) = analyze([(1, 1)], lambda x: OP.matmul(x, constant(random(1, 1))))
    assert tiny["shape"] == "1x1" and tiny["zeros"] == 0 and tiny["structure"] == "dense"


def test_model_without_layers():
    assert analyze([IMAGE], NN.relu) == []


def test_no_questions_no_estimates():
    (layer,) = analyze([IMAGE], lambda x: conv(x, random(8, 32, 3, 3)), what_if=())
    assert set(layer["speedup"]) == {"as is"}
