"""``python -m tvm_sparse.runtime``."""

import numpy as np
import pytest

from tvm_sparse.runtime.__main__ import main


def test_inputs_to_outputs(package, inputs, check, tmp_path, capsys):
    np.savez(tmp_path / "in.npz", **inputs)
    code = main([str(package.path), "-i", str(tmp_path / "in.npz"), "-o", str(tmp_path / "out.npz")])
    assert code == 0
    assert "next: int64[3]" in capsys.readouterr().out
    names = [spec.name for spec in package.outputs]
    with np.load(tmp_path / "out.npz") as outputs:
        assert outputs.files == [f"output_{index}" for index in range(4)]
        check({name: outputs[key] for name, key in zip(names, outputs.files, strict=True)}, inputs)


@pytest.mark.parametrize("content", [b"not an archive", b"PK\x03\x04 truncated"])
def test_bad_input_file(package, tmp_path, capsys, content):
    (tmp_path / "in.npz").write_bytes(content)
    assert main([str(package.path), "-i", str(tmp_path / "in.npz")]) == 4
    assert "is not a .npz file" in capsys.readouterr().err


def test_pickles_are_not_read(package, tmp_path, capsys):
    np.savez(tmp_path / "in.npz", x=np.array([{}], dtype=object))
    assert main([str(package.path), "-i", str(tmp_path / "in.npz")]) == 4
    assert "is not a .npz file" in capsys.readouterr().err


def test_single_array_is_not_an_archive(package, tmp_path, capsys):
    np.save(tmp_path / "in.npy", np.zeros(3))
    assert main([str(package.path), "-i", str(tmp_path / "in.npy")]) == 4
    assert "is not a .npz file" in capsys.readouterr().err


def test_exit_codes(package, tmp_path, capsys):
    assert main([str(tmp_path / "none.tar")]) == 4
    assert main([str(package.path), "-i", str(tmp_path / "none.npz")]) == 4
    assert main([str(package.path), "-o", str(tmp_path / "none" / "out.npz")]) == 4
    assert capsys.readouterr().err.count("Error: ") == 3
    with pytest.raises(SystemExit) as usage:
        main([])
    assert usage.value.code == 2
