"""Constants that leave the library, in the module and in a package."""

import subprocess
import sys
import tarfile

import numpy as np
import onnx
import pytest
import tvm
from onnx import helper, numpy_helper
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

import tvm_sparse
from tests.transform.canonicalize.helpers import constant, random
from tvm_sparse.transform.lift_constants import LiftConstants

LARGE, OTHER, SMALL = random(4, 8), random(4, 8, seed=1), random(2)


def module(first: np.ndarray, second: np.ndarray) -> tvm.IRModule:
    """Two constants, of which the first is read twice."""
    x = relax.Var("x", relax.TensorType((4, 8), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        a = builder.emit(relax.op.add(x, constant(first)))
        b = builder.emit(relax.op.multiply(a, constant(first)))
        builder.emit_func_output(builder.emit(relax.Tuple([b, constant(second)])))
    return builder.get()


def lifted(mod: tvm.IRModule, min_bytes: int) -> tuple[tvm.IRModule, list[np.ndarray]]:
    weights: list[np.ndarray] = []
    return LiftConstants(weights, min_bytes)(mod), weights


def test_each_content_becomes_one_field():
    @I.ir_module
    class Expected:
        @R.function
        def main(
            x: R.Tensor((4, 8), "float32"),
            weights: R.Tuple(R.Tensor((4, 8), "float32"), R.Tensor((4, 8), "float32")),
        ) -> R.Tuple(R.Tensor((4, 8), "float32"), R.Tensor((4, 8), "float32")):
            weight0 = weights[0]
            weight1 = weights[1]
            a = R.add(x, weight0)
            b = R.multiply(a, weight0)
            result = (b, weight1)
            return result

    after, weights = lifted(module(LARGE, OTHER), LARGE.nbytes)
    tvm.ir.assert_structural_equal(after, Expected)
    relax.analysis.well_formed(after)
    np.testing.assert_array_equal(weights, [LARGE, OTHER])


def test_small_ones_stay():
    before = module(LARGE, SMALL)
    after, weights = lifted(before, LARGE.nbytes)
    assert len(after["main"].params[1].ty.fields) == len(weights) == 1
    after, weights = lifted(before, LARGE.nbytes + 1)
    assert not weights and after["main"].same_as(before["main"])


def test_types_that_numpy_lacks_stay():
    half = tvm.runtime.tensor(LARGE).numpy().astype("bfloat16")
    before = module(LARGE, half)
    after, weights = lifted(before, half.nbytes)
    assert [array.dtype for array in weights] == [np.dtype("float32")]
    assert "GenericConst" in after.script()


def test_branches():
    flag = relax.Var("flag", relax.TensorType((), "bool"))
    branches = [relax.SeqExpr([], constant(array)) for array in (LARGE, OTHER)]
    builder = relax.BlockBuilder()
    with builder.function("main", [flag]):
        builder.emit_func_output(builder.emit(relax.If(flag, *branches)))
    after, weights = lifted(builder.get(), 1)
    relax.analysis.well_formed(after)
    executable = relax.build(after, tvm.target.Target("llvm"))
    run = relax.VirtualMachine(executable, tvm.cpu())["main"]
    for value, want in ((True, LARGE), (False, OTHER)):
        got = run(tvm.runtime.tensor(np.array(value)), [tvm.runtime.tensor(array) for array in weights])
        np.testing.assert_array_equal(got.numpy(), want)


@pytest.fixture(scope="module")
def network() -> onnx.ModelProto:
    """A linear layer whose weight is an output too, and a small bias."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Add", ["h", "b"], ["y"]),
        helper.make_node("Neg", ["w"], ["z"]),
    ]
    weights = {"w": random(64, 96), "b": random(96)}
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [3, 64])],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in "yz"],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_package_keeps_them_apart(network, tmp_path):
    package = tvm_sparse.compile(network, output=tmp_path / "module.tar")
    with tarfile.open(package.path) as tar:
        sizes = {member.name: member.size for member in tar.getmembers()}
    # The packed weight and the negated one; the library holds code and the bias.
    assert sizes["mod.params"] >= 2 * random(64, 96).nbytes
    x = random(3, 64, seed=2)
    got = package.load().run({"x": x})
    np.testing.assert_allclose(got["y"], x @ random(64, 96) + random(96), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(got["z"], -random(64, 96))
    # The same with the runtime alone.
    np.savez(tmp_path / "in.npz", x=x)
    command = [sys.executable, "-m", "tvm_sparse.runtime", str(package.path)]
    command += ["-i", str(tmp_path / "in.npz"), "-o", str(tmp_path / "out.npz")]
    subprocess.run(command, check=True, capture_output=True)
    with np.load(tmp_path / "out.npz") as outputs:
        np.testing.assert_array_equal(outputs["output_0"], got["y"])
        np.testing.assert_array_equal(outputs["output_1"], got["z"])


def test_plain_library_holds_them(network, tmp_path):
    package = tvm_sparse.compile(network, output=tmp_path / "module.so")
    assert {path.name for path in tmp_path.iterdir()} == {"module.so", "module.json"}
    assert "weights" not in package.metadata
    assert package.path.stat().st_size > 2 * random(64, 96).nbytes
    x = random(3, 64, seed=2)
    apart = tvm_sparse.compile(network).load().run({"x": x})
    for name, array in package.load().run({"x": x}).items():
        np.testing.assert_array_equal(array, apart[name])


def test_the_pass_can_be_left_out(network, tmp_path):
    package = tvm_sparse.compile(
        network, disabled_passes=["LiftConstants"], output=tmp_path / "module.tar"
    )
    assert "weights" not in package.metadata
    assert package.load().run({"x": random(3, 64)})


RUN_AND_MEASURE = """
import sys
from tvm_sparse.runtime import load
from tvm_sparse.runtime.arrays import fill_inputs
module = load(sys.argv[1], num_threads=1)
module.run(fill_inputs(module.inputs))
(peak,) = (line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(peak)
"""


def peak_bytes(depth: int, outputs: int, folder) -> int:
    """Peak memory of a process that runs a linear layer."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, depth])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(random(depth, outputs), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    package = tvm_sparse.compile(model, output=folder / "linear.tar")
    command = [sys.executable, "-c", RUN_AND_MEASURE, str(package.path)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) * 1024


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_weights_are_in_memory_once(tmp_path):
    extra = peak_bytes(2048, 4096, tmp_path) - peak_bytes(16, 16, tmp_path)
    assert extra < 1.25 * 2048 * 4096 * 4
