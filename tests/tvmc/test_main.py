"""Commands, exit codes, messages."""

import os
import subprocess
import sys

import pytest

import tvm_sparse
from tvm_sparse.errors import MissingPackageError, TvmSparseError
from tvm_sparse.tvmc import texts
from tvm_sparse.tvmc.main import build_parser, register_parser
from tvm_sparse.tvmc.registry import REGISTERED


def test_no_command_prints_help_to_stderr(tvmc):
    code, out, err = tvmc()
    assert code == 1 and out == ""
    assert "usage: tvmc" in err and all(name in err for name in ("compile", "run", "benchmark", "analyze"))


def test_version(tvmc):
    assert tvmc("--version") == (0, f"{tvm_sparse.__version__}\n", "")


@pytest.mark.parametrize(
    "argv",
    [
        ["frobnicate"],
        ["compile"],
        ["compile", "a.onnx", "b.onnx"],
        ["compile", "a.onnx", "--opt-level", "4"],
        ["compile", "a.onnx", "--input-shapes", "x"],
        ["compile", "a.onnx", "--model-format", "caffe"],
        ["compile", "a.onnx", "--output-format", "mlf"],
        ["compile", "a.onnx", "--dump-code", "asm,exe"],
        ["compile", "a.onnx", "--sparsity-threshold", "1.5"],
        ["compile", "a.onnx", "--num-threads", "0"],
        ["compile", "a.onnx", "--pass-config", "novalue"],
        ["run", "m.tar", "--fill-mode", "twos"],
        ["run", "m.tar", "--device", "tpu"],
        ["run", "m.tar", "--repeat", "-1"],
        ["benchmark", "a.onnx", "--python", "nothing"],
        ["analyze", "a.onnx", "--what-if", "2"],
    ],
)
def test_wrong_usage(tvmc, argv):
    code, _, err = tvmc(*argv)
    assert code == 2 and "usage: tvmc" in err and "error:" in err


@pytest.mark.parametrize("command", ["compile", "run", "benchmark", "analyze"])
def test_missing_file(tvmc, command):
    code, out, err = tvmc(command, "none.onnx")
    assert code == 4 and out == ""
    assert err == "Error: Input file 'none.onnx' doesn't exist, is a broken symbolic link, or a directory.\n"


def test_folder_is_no_file(tvmc, tmp_path):
    assert tvmc("compile", tmp_path)[0] == 4


def failing_compile(error):
    def compile(model, **options):
        raise error

    return compile


def test_error_without_traceback_unless_very_verbose(tvmc, model, monkeypatch):
    error = TvmSparseError("the operator 'Foo' is unknown")
    monkeypatch.setitem(vars(tvm_sparse), "compile", failing_compile(error))
    for flags in ([], ["-v"]):
        code, _, err = tvmc(*flags, "compile", model)
        assert code == 4 and "Traceback" not in err
        assert err.splitlines()[-1] == "Error: the operator 'Foo' is unknown"
    code, _, err = tvmc("-vv", "compile", model)
    assert code == 4 and "Traceback" in err and err.splitlines()[-1].startswith("Error: ")


def test_missing_package(tvmc, model, monkeypatch):
    error = MissingPackageError("torch", "pip install torch")
    monkeypatch.setitem(vars(tvm_sparse), "compile", failing_compile(error))
    code, _, err = tvmc("compile", model)
    assert code == 5
    assert err.splitlines()[-1] == 'Package "torch" is not installed. Hint: pip install torch'


def test_a_bug_is_not_disguised(tvmc, model, monkeypatch):
    monkeypatch.setitem(vars(tvm_sparse), "compile", failing_compile(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        tvmc("compile", model)


def test_interrupt(tvmc, model, monkeypatch):
    monkeypatch.setitem(vars(tvm_sparse), "compile", failing_compile(KeyboardInterrupt()))
    assert tvmc("compile", model)[0] == 130


def test_other_packages_can_add_commands(tvmc):
    @register_parser
    def add_hello(subparsers):
        subparsers.add_parser("hello").set_defaults(func=lambda args: 7)

    try:
        assert tvmc("hello")[0] == 7
    finally:
        REGISTERED.remove(add_hello)


def test_every_flag_has_a_help_text():
    parser = build_parser()
    (commands,) = (action for action in parser._actions if hasattr(action, "choices") and action.choices)
    for command in commands.choices.values():
        assert all(action.help for action in command._actions), command.prog
        assert command.format_help()
    assert all(isinstance(value, str) for name, value in vars(texts).items() if name.isupper())


def test_help_is_fast_because_it_loads_no_compiler():
    script = (
        "import sys; from tvm_sparse.tvmc.main import build_parser; build_parser().format_help();"
        "sys.exit(bool({'tvm', 'onnx', 'torch', 'onnxslim'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_python_dash_m():
    done = subprocess.run(
        [sys.executable, "-m", "tvm_sparse.tvmc", "--version"], capture_output=True, text=True, env=os.environ
    )
    assert (done.returncode, done.stdout) == (0, f"{tvm_sparse.__version__}\n")
