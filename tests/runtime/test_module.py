"""Running a loaded model: inputs, outputs, threads."""

import gc
import math
import threading

import numpy as np
import pytest

from tvm_sparse.errors import InputError
from tvm_sparse.runtime import Module, Package, TensorSpec, load
from tvm_sparse.runtime.arrays import aligned_empty, as_tensor, fill_inputs


@pytest.fixture()
def module(package) -> Module:
    return package.load()


def test_outputs_by_name(check, module, inputs):
    check(module.run(inputs), inputs)


def test_describes_inputs_and_outputs(module):
    assert module.inputs == (TensorSpec("x", (6, 24), "float32"), TensorSpec("tokens", (3,), "int64"))
    assert [spec.name for spec in module.outputs] == ["scores", "next", "weights", "same"]


def test_call_takes_positions_and_names(check, module, inputs):
    names = [spec.name for spec in module.outputs]
    check(dict(zip(names, module(inputs["x"], inputs["tokens"]), strict=True)), inputs)
    check(dict(zip(names, module(inputs["x"], tokens=inputs["tokens"]), strict=True)), inputs)


def test_plain_library(check, plain, inputs):
    check(load(plain.path).run(inputs), inputs)


@pytest.mark.parametrize("offset", [0, 4, 16, 60])
def test_any_alignment(check, module, inputs, offset):
    raw = aligned_empty((6 * 24 * 4 + 64,), "uint8")
    x = raw[offset : offset + 6 * 24 * 4].view("float32").reshape(6, 24)
    x[...] = inputs["x"]
    check(module.run({**inputs, "x": x}), inputs)


def test_any_memory_order(check, module, inputs):
    wide = np.repeat(inputs["x"], 2, axis=1)
    for x in (np.asfortranarray(inputs["x"]), wide[:, ::2], inputs["x"][::-1][::-1]):
        check(module.run({**inputs, "x": x}), inputs)


def test_read_only_input(check, module, inputs):
    inputs["x"].flags.writeable = False
    check(module.run(inputs), inputs)


def test_nobody_else_uses_the_memory_of_outputs(check, module, inputs):
    first = module.run(inputs)
    kept = {name: array.copy() for name, array in first.items()}
    arrays = [*first.values(), *module.run(inputs).values(), *inputs.values()]
    for number, array in enumerate(first.values()):
        assert array.flags.writeable
        assert not any(np.shares_memory(array, other) for other in arrays[:number] + arrays[number + 1 :])
        array[...] = 0
    # Neither the model's constant nor the caller's input was changed through an output.
    check(module.run(inputs), inputs)
    second = module.run({"x": inputs["x"] * 2, "tokens": inputs["tokens"]})
    assert not np.array_equal(second["scores"], kept["scores"])


def test_outputs_outlive_the_module(check, package, inputs):
    module = package.load()
    outputs = module.run(inputs)
    del module
    gc.collect()
    check(outputs, inputs)


def test_loading_again_and_again(check, package, inputs):
    for _ in range(20):
        first, second = package.load(), package.load()
        del first
        check(second.run(inputs), inputs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"z": np.zeros(1)},
            r"the input tensor 'z' is not in the graph. Expected inputs: '\['x', 'tokens'\]'",
        ),
        ({"x": None}, "the input tensor 'x' is missing"),
        ({"x": np.zeros((6, 24))}, "'x' has dtype float64, expected float32"),
        ({"tokens": np.zeros(3, "int32")}, "'tokens' has dtype int32, expected int64"),
        ({"x": np.zeros((6, 24), ">f4")}, "'x' has dtype >f4, expected float32"),
        ({"x": np.zeros((24, 6), "float32")}, r"'x' has shape \(24, 6\), expected \(6, 24\)"),
        ({"x": np.zeros((1, 6, 24), "float32")}, r"'x' has shape \(1, 6, 24\), expected \(6, 24\)"),
    ],
)
def test_wrong_inputs(check, module, inputs, change, message):
    changed = {name: array for name, array in {**inputs, **change}.items() if array is not None}
    with pytest.raises(InputError, match=message):
        module.run(changed)
    check(module.run(inputs), inputs)


def test_wrong_number_of_positions(module, inputs):
    with pytest.raises(InputError, match="takes 2 inputs, 3 were given"):
        module(inputs["x"], inputs["tokens"], inputs["x"])
    with pytest.raises(InputError, match="'x' was given twice"):
        module(inputs["x"], x=inputs["x"])
    with pytest.raises(InputError, match="'tokens' is missing"):
        module(inputs["x"])


def test_concurrent_callers(check, module):
    failures = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(100):
            inputs = {"x": rng.standard_normal((6, 24)).astype("float32"), "tokens": rng.integers(0, 9, 3)}
            try:
                check(module.run(inputs), inputs)
            except AssertionError as error:
                failures.append(error)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures


def test_benchmark_counts_runs(module, inputs, monkeypatch):
    result = module.benchmark(inputs, number=3, repeat=5)
    assert len(result.results) == 5
    assert 0 < result.min <= result.median <= result.max
    end_to_end = module.benchmark(inputs, number=200, repeat=5, end_to_end=True)
    assert end_to_end.min > module.benchmark(inputs, number=200, repeat=5).min


def test_benchmark_refuses_wrong_inputs(module):
    with pytest.raises(InputError, match="is missing"):
        module.benchmark({})


def test_profile_names_kernels(check, module, inputs):
    profile = module.profile(inputs, repeat=3)
    names = [call.name for call in profile.kernels]
    assert any("matmul" in name for name in names)
    assert all(call.calls == 1 and call.ms > 0 for call in profile.calls)
    by_name = profile.by_name()
    assert sum(row.calls for row in by_name) == len(profile.calls)
    assert [row.ms for row in by_name] == sorted((row.ms for row in by_name), reverse=True)
    assert len(profile.table(top=2).splitlines()) == 3
    # Later runs aren't instrumented and give the same.
    check(module.run(inputs), inputs)


def test_fill_modes_are_accepted_and_repeatable(check, module):
    for mode in ("random", "zeros", "ones"):
        first, second = fill_inputs(module.inputs, mode), fill_inputs(module.inputs, mode)
        for name in first:
            np.testing.assert_array_equal(first[name], second[name])
        check(module.run(first), first)
    with pytest.raises(InputError, match="fill mode"):
        fill_inputs(module.inputs, "twos")


def test_package_load_needs_no_open(check, package: Package, inputs):
    check(Package.open(package.path).load().run(inputs), inputs)


@pytest.mark.parametrize("shape", [(2, 0, 4), (0, 3), (3, 0), (0,)])
def test_tensors_without_elements_are_compact(shape):
    tensor = as_tensor(np.zeros(shape, "float32"))
    assert tuple(tensor.shape) == shape
    # As C orders them, an extent of 0 counted as such: what compiled code checks.
    expected = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    assert list(tensor.strides) == expected
