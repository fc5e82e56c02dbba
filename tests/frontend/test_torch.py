"""The PyTorch front end. Tests that need PyTorch are skipped where it is not installed."""

import sys

import numpy as np
import pytest

from tests.onnx_backend.runner import compile_plain
from tvm_sparse.errors import ImportModelError, MissingPackageError
from tvm_sparse.frontend import import_model


def _network():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU6(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(4, 2),
    ).eval()


def _program(network, *shapes, **options):
    import torch

    inputs = tuple(torch.randn(shape, generator=torch.Generator().manual_seed(1)) for shape in shapes)
    return torch.export.export(network, inputs, **options), [value.numpy() for value in inputs]


def _outputs(program, arrays):
    imported = import_model(program)
    feeds = {spec.name: array for spec, array in zip(imported.inputs, arrays, strict=True)}
    results = compile_plain(imported)(feeds)
    return [results[spec.name] for spec in imported.outputs]


def test_pytorch_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingPackageError, match=r'"torch" is not installed. Hint: pip install'):
        import_model(tmp_path / "m.pt2")


def test_network():
    network = _network()
    program, arrays = _program(network, (2, 3, 8, 8))
    imported = import_model(program)
    assert [spec.shape for spec in imported.inputs] == [(2, 3, 8, 8)]
    assert [spec.shape for spec in imported.outputs] == [(2, 2)]
    assert len(imported.module["main"].params) == 1
    import torch

    want = network(torch.from_numpy(arrays[0])).detach().numpy()
    np.testing.assert_allclose(_outputs(program, arrays)[0], want, rtol=1e-4, atol=1e-5)


def test_saved_program(tmp_path):
    torch = pytest.importorskip("torch")
    program, arrays = _program(_network(), (1, 3, 8, 8))
    torch.export.save(program, tmp_path / "m.pt2")
    (want,), (got,) = _outputs(program, arrays), _outputs(tmp_path / "m.pt2", arrays)
    np.testing.assert_array_equal(got, want)
    data = (tmp_path / "m.pt2").read_bytes()
    (tmp_path / "cut.pt2").write_bytes(data[: len(data) // 2])
    with pytest.raises(ImportModelError, match="cut.pt2"):
        import_model(tmp_path / "cut.pt2")
    with pytest.raises(ImportModelError, match="none.pt2' doesn't exist"):
        import_model(tmp_path / "none.pt2")


def test_several_outputs_in_order():
    torch = pytest.importorskip("torch")

    class Two(torch.nn.Module):
        def forward(self, a, b):
            return a + b, a - b

    program, (a, b) = _program(Two(), (2, 3), (2, 3))
    total, difference = _outputs(program, [a, b])
    np.testing.assert_allclose(total, a + b)
    np.testing.assert_allclose(difference, a - b)


def test_shapes_are_fixed_by_the_export():
    torch = pytest.importorskip("torch")
    program, _ = _program(_network(), (1, 3, 8, 8))
    (name,) = [spec.name for spec in import_model(program, {"input": [1, 3, 8, 8]}).inputs]
    assert name == "input"
    with pytest.raises(ImportModelError, match=r"\[2, 3, 8, 8\] does not fit input 'input'"):
        import_model(program, {"input": [2, 3, 8, 8]})
    with pytest.raises(ImportModelError, match="'y', which is not an input"):
        import_model(program, {"y": [1]})
    batch = torch.export.Dim("batch", min=2, max=8)
    dynamic, _ = _program(_network(), (3, 3, 8, 8), dynamic_shapes=({0: batch},))
    with pytest.raises(ImportModelError, match="open dimensions.*without dynamic_shapes"):
        import_model(dynamic)


def test_nan_weight_is_named():
    torch = pytest.importorskip("torch")
    network = _network()
    with torch.no_grad():
        network[0].weight[0, 0, 0, 0] = float("nan")
    program, _ = _program(network, (1, 3, 8, 8))
    with pytest.raises(ImportModelError, match=r"NaN in weight '0\.weight'"):
        import_model(program)


def test_unsupported_operator_is_an_import_error():
    torch = pytest.importorskip("torch")

    class Odd(torch.nn.Module):
        def forward(self, x):
            return torch.linalg.eigvals(x).real

    program, _ = _program(Odd(), (3, 3))
    with pytest.raises(ImportModelError, match="(?i)eig"):
        import_model(program)
