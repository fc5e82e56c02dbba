"""``from tvm_sparse import tvmc``, as scripts used ``tvm.driver.tvmc``."""

import numpy as np
import pytest

from tvm_sparse import tvmc as module
from tvm_sparse.runtime import BenchmarkResult


def test_load_compile_run(compiled, model, x, tmp_path):
    loaded = module.load(model, shape_dict={"x": [2, 5]})
    package = module.compile(
        loaded,
        target="llvm -mcpu=generic",
        package_path=tmp_path / "p.tar",
        disabled_pass="a,b",
        dump_code=["asm"],
    )
    (call,) = compiled
    assert call["model"] == str(model) and call["input_shapes"] == {"x": [2, 5]}
    assert call["target"] == {"kind": "llvm", "mcpu": "generic"}
    assert call["disabled_passes"] == ("a", "b") and call["dump_code"] == ("asm",)
    assert package.package_path == str(tmp_path / "p.tar")
    result = module.run(package, device="cpu", inputs={"x": x}, repeat=2, number=1, profile=True)
    np.testing.assert_array_equal(result.get_output("output_0"), np.maximum(x, 0))
    assert isinstance(result.times, BenchmarkResult) and len(result.times.results) == 2
    assert "Execution time summary" in result.format_times()
    assert any(call.name == "rectify" for call in result.profile.calls)
    result.save(tmp_path / "out.npz")
    assert np.load(tmp_path / "out.npz").files == ["output_0"]


def test_package_from_disk_without_times(package_path, x):
    result = module.run(module.TVMCPackage(str(package_path)), inputs={"x": x}, benchmark=False)
    assert result.times is None and result.profile is None and result.format_times() == ""
    assert list(result.outputs) == ["output_0"]


def test_errors(package_path, tmp_path):
    with pytest.raises(module.TVMCException, match="doesn't exist"):
        module.load(tmp_path / "none.onnx")
    with pytest.raises(module.TVMCException, match="doesn't exist"):
        module.TVMCPackage(str(tmp_path / "none.tar"))
    package = module.TVMCPackage(str(package_path))
    with pytest.raises(module.TVMCException, match="Unknown device 'cuda'"):
        module.run(package, device="cuda")
    with pytest.raises(module.TVMCException, match="No output 'output_9'"):
        module.run(package, benchmark=False).get_output("output_9")
    assert not hasattr(module, "tune_everything")
