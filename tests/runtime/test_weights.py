"""Weights that are kept beside the library."""

import gc
import hashlib
import io
import json
import tarfile

import numpy as np
import pytest

from tvm_sparse.errors import PackageError
from tvm_sparse.runtime import Package
from tvm_sparse.runtime.weights import Weights, WeightsReader, describe_weights


def test_model_runs(package_with_weights, inputs, check):
    module = Package.open(package_with_weights.path).load()
    check(module.run(inputs), inputs)
    assert module.benchmark(inputs, number=1).min > 0
    assert module.profile(inputs, repeat=1).kernels


def test_models_share_them(package_with_weights, inputs, check):
    first, second = package_with_weights.load(), package_with_weights.load()
    assert first._weights is second._weights
    # A change of an output that is a weight stays with the caller.
    first.run(inputs)["weights"][...] = 0
    del first
    gc.collect()
    check(second.run(inputs), inputs)


def test_layout_of_the_block():
    arrays = [
        np.arange(3, dtype="int8"),
        np.arange(40, dtype="float32").reshape(5, 8),
        np.asfortranarray(np.arange(6, dtype="int64").reshape(2, 3)),
        np.zeros((0, 4), "float32"),
        np.float32(7).reshape(()),
    ]
    entries = describe_weights(arrays)
    assert [entry["offset"] for entry in entries] == [0, 64, 256, 320, 320]
    block = WeightsReader(arrays).read(1 << 20)
    for array, entry in zip(arrays, entries, strict=True):
        stored = np.frombuffer(block, array.dtype, array.size, entry["offset"]).reshape(entry["shape"])
        np.testing.assert_array_equal(stored, array)
    weights = Weights(io.BytesIO(block), len(block), hashlib.sha256(block).hexdigest(), entries, "test")
    for array, tensor in zip(arrays, weights.array, strict=True):
        np.testing.assert_array_equal(np.from_dlpack(tensor), array)
        assert tensor.data_ptr() % 64 == 0


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_reading_in_pieces(size):
    arrays = [np.full(n, n % 251, "uint8") for n in range(300)]
    whole = WeightsReader(arrays).read(1 << 20)
    reader, pieces = WeightsReader(arrays), []
    while piece := reader.read(size):
        pieces.append(piece)
    assert b"".join(pieces) == whole
    assert all(len(piece) == size for piece in pieces[:-1])


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "float32", "shape": [17], "offset": 0},
        {"dtype": "float32", "shape": [1], "offset": 64},
        {"dtype": "float32", "shape": [1], "offset": 4},
        {"dtype": "float32", "shape": [1], "offset": -64},
        {"dtype": "float32", "shape": [-4], "offset": 0},
    ],
)
def test_entries_outside_of_the_block(entry):
    block = bytes(64)
    with pytest.raises(PackageError, match="outside of its block"):
        Weights(io.BytesIO(block), 64, hashlib.sha256(block).hexdigest(), [entry], "test")


def weights_file(package):
    """Path and offset of the weights."""
    if package.path.suffix == ".so":
        return package.path.with_suffix(".params"), 0
    with tarfile.open(package.path) as tar:
        return package.path, tar.getmember("mod.params").offset_data


def test_damage_is_noticed(package_with_weights):
    path, offset = weights_file(package_with_weights)
    content = bytearray(path.read_bytes())
    content[offset + 100] ^= 1
    path.write_bytes(content)
    with pytest.raises(PackageError, match="its weights don't match its metadata"):
        package_with_weights.load()


def test_missing_and_truncated(library_with_weights, metadata, weights, tmp_path):
    package = Package.write(tmp_path / "plain.so", library_with_weights, metadata, weights)
    path = tmp_path / "plain.params"
    path.write_bytes(path.read_bytes()[:-64])
    with pytest.raises(PackageError, match="weights end early"):
        package.load()
    path.unlink()
    with pytest.raises(PackageError, match="cannot be read"):
        package.load()
    package = Package.write(tmp_path / "m.tar", library_with_weights, metadata, weights)
    with tarfile.open(package.path) as tar, tarfile.open(tmp_path / "less.tar", "w:") as less:
        for name in ("mod.json", "mod.so"):
            less.addfile(tar.getmember(name), tar.extractfile(name))
    with pytest.raises(PackageError, match="lacks 'mod.params'"):
        Package.open(tmp_path / "less.tar").load()


def test_malformed_description(package_with_weights, tmp_path):
    broken = json.loads(json.dumps(package_with_weights.metadata))
    del broken["weights"]["sha256"]
    with tarfile.open(tmp_path / "broken.tar", "w:") as tar:
        for name, content in (("mod.json", json.dumps(broken).encode()), ("mod.so", b"x")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    with pytest.raises(PackageError, match="malformed"):
        Package.open(tmp_path / "broken.tar")
