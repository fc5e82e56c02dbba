"""``tvmc run``."""

import json

import numpy as np
import pytest

from tvm_sparse.tvmc.cmd_run import top_table


def test_inputs_and_outputs(tvmc, package_path, x, tmp_path):
    np.savez("in.npz", x=x)
    code, out, err = tvmc("run", package_path, "-i", "in.npz", "-o", "out.npz", "--num-threads", "1")
    assert code == 0, err
    with np.load("out.npz") as outputs:
        assert outputs.files == ["output_0"]
        np.testing.assert_array_equal(outputs["output_0"], np.maximum(x, 0))
    assert "y: float32[2, 5]" in out
    assert out.splitlines()[0] == "tvmc run" and "threads" in out


@pytest.mark.parametrize(
    ("mode", "check"), [("zeros", lambda y: (y == 0).all()), ("ones", lambda y: (y == 1).all())]
)
def test_fill_modes(tvmc, package_path, mode, check):
    assert tvmc("run", package_path, "--fill-mode", mode, "-o", "out.npz")[0] == 0
    assert check(np.load("out.npz")["output_0"])


def test_default_inputs_are_random(tvmc, package_path):
    assert tvmc("run", package_path, "-o", "out.npz")[0] == 0
    assert len(np.unique(np.load("out.npz")["output_0"])) == 10


def test_print_time(tvmc, package_path):
    code, out, _ = tvmc("run", package_path, "--print-time", "--repeat", "3", "--number", "2", "--end-to-end")
    summary = out[out.index("Execution time summary:") :].splitlines()
    assert code == 0 and "median (ms)" in summary[1]
    mean, median, slowest, fastest, deviation = map(float, summary[2].split())
    assert 0 < fastest <= median <= slowest and deviation >= 0 and fastest <= mean <= slowest


def test_print_top(tvmc, package_path, x):
    np.savez("in.npz", x=x)
    _, out, _ = tvmc("run", package_path, "-i", "in.npz", "--print-top", "2")
    rows = [line.split() for line in out.splitlines()[-4:]]
    assert rows == [["0", "1", "4", "5"], ["0", "2", "2", "3"], ["1", "1", "3", "4"], ["1", "2", "1", "2"]]


def test_print_top_of_any_shape():
    assert top_table(np.float32(3).reshape(()), 5).splitlines()[2:] == ["  0     1      0      3"]
    assert len(top_table(np.zeros((2, 3, 4), "int8"), 9).splitlines()) == 2 + 2 * 3 * 4


def test_profile_names_layers(tvmc, package_path):
    code, out, err = tvmc("run", package_path, "--profile", "--profile-output", "profile.json")
    assert code == 0
    # This package doesn't tell the width of its vectors.
    assert "no roofs to compare with" in err and "of roof" not in out
    line = next(line for line in out.splitlines() if line.startswith("conv1"))
    assert "unstructured" in line and "62%" in line
    assert any(line.split()[:1] == ["total"] for line in out.splitlines())
    with open("profile.json") as file:
        written = json.load(file)
    (layer,) = written["layers"]
    assert layer["name"] == "conv1" and layer["kernel"] == "rectify" and layer["bound"] is None
    assert layer["gflops"] == pytest.approx(2e-6 * 5000 / layer["best_ms"])
    assert written["roofs"] is None and written["run_ms"] > 0


def test_profile_output_alone_prints_no_table(tvmc, package_path):
    code, out, _ = tvmc("run", package_path, "--profile-output", "profile.json")
    assert code == 0 and "conv1" not in out
    assert tvmc("run", package_path, "--profile-output", "none/profile.json")[0] == 4


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"z": np.zeros(1)}, "the input tensor 'z' is not in the graph. Expected inputs: '['x']'"),
        ({"x": np.zeros((2, 5))}, "has dtype float64, expected float32"),
        ({"x": np.zeros((5, 2), "float32")}, "has shape (5, 2), expected (2, 5)"),
    ],
)
def test_wrong_inputs(tvmc, package_path, arrays, message):
    np.savez("in.npz", **arrays)
    code, _, err = tvmc("run", package_path, "-i", "in.npz")
    assert code == 4 and err.startswith("Error: ") and message in err


def test_unusable_files(tvmc, package_path, tmp_path):
    (tmp_path / "bad.tar").write_bytes(b"no tar")
    assert tvmc("run", "bad.tar")[0] == 4
    assert tvmc("run", package_path, "-i", "none.npz")[0] == 4
    assert tvmc("run", package_path, "-o", "none/out.npz")[0] == 4
