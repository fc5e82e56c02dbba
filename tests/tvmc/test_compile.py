"""``tvmc compile``: from flags to arguments of the API, and what is printed."""

import json

import pytest

import tvm_sparse
from tvm_sparse.tvmc.progress import Progress

DEFAULTS = {
    "target": None,
    "input_shapes": None,
    "model_format": None,
    "sparsity": "auto",
    "sparsity_threshold": 0.5,
    "sparse_format": "auto",
    "block_shape": "auto",
    "opt_level": 3,
    "disabled_passes": (),
    "pass_config": {},
    "print_ir_before": (),
    "print_ir_after": (),
    "print_pass_times": False,
    "cross_compiler": None,
    "cross_compiler_options": (),
    "dump_code": (),
    "num_threads": None,
}


def test_defaults(tvmc, compiled, model, tmp_path):
    code, _, _ = tvmc("compile", model)
    assert code == 0
    (call,) = compiled
    assert isinstance(call.pop("progress"), Progress)
    assert call == {"model": str(model), "output": "module.tar", **DEFAULTS}
    assert (tmp_path / "module.tar").is_file()


@pytest.mark.parametrize(
    ("flags", "changes"),
    [
        (["--input-shapes", "x:[1,3,8,8] y:[2]"], {"input_shapes": {"x": (1, 3, 8, 8), "y": (2,)}}),
        (["--model-format", "pytorch"], {"model_format": "pytorch"}),
        (["--target", "llvm -mcpu=znver4"], {"target": {"kind": "llvm", "mcpu": "znver4"}}),
        (["--target-llvm-num-cores", "4"], {"target": {"kind": "llvm", "num-cores": 4}}),
        (["-O", "1"], {"opt_level": 1}),
        (["--disabled-pass", "FoldPad, FuseLayers"], {"disabled_passes": ("FoldPad", "FuseLayers")}),
        (
            ["--print-ir-before", "a", "--print-ir-after", "*"],
            {"print_ir_before": ("a",), "print_ir_after": ("*",)},
        ),
        (["--print-pass-times"], {"print_pass_times": True}),
        (
            ["--pass-config", "a.b=1", "--pass-config", "c=true", "--pass-config", "d=x=y"],
            {"pass_config": {"a.b": 1, "c": True, "d": "x=y"}},
        ),
        (
            ["--cross-compiler", "cc", "--cross-compiler-options=-a '-b c'"],
            {"cross_compiler": "cc", "cross_compiler_options": ("-a", "-b c")},
        ),
        (["--dump-code", "asm,relax"], {"dump_code": ("asm", "relax")}),
        (["--sparsity", "off"], {"sparsity": "off"}),
        (["--sparsity-threshold", "0.8"], {"sparsity_threshold": 0.8}),
        (["--sparse-format", "unstructured"], {"sparse_format": "unstructured"}),
        (
            ["--sparse-format", "block", "--block-shape", "4x1"],
            {"sparse_format": "block", "block_shape": "4x1"},
        ),
        (["--num-threads", "2"], {"num_threads": 2}),
        (["--output", "other.tar"], {"output": "other.tar"}),
        (["-f", "so"], {}),
        # argparse's abbreviations, which scripts rely on.
        (["--input-sh", "x:[1]"], {"input_shapes": {"x": (1,)}}),
    ],
)
def test_flags(tvmc, compiled, model, flags, changes):
    code, _, err = tvmc("compile", model, *flags)
    assert code == 0, err
    (call,) = compiled
    del call["progress"]
    assert call == {"model": str(model), "output": "module.tar", **DEFAULTS, **changes}


def test_arguments_are_what_the_api_takes():
    import inspect

    parameters = inspect.signature(tvm_sparse.compile).parameters
    assert set(DEFAULTS) | {"model", "output", "progress"} == set(parameters)
    for name, value in DEFAULTS.items():
        # An empty mapping stands for none.
        assert (parameters[name].default or None) == (value or None), name


def test_prints_arguments_first_and_layers_last(tvmc, compiled, model):
    _, out, err = tvmc("compile", model, "--sparsity", "off", "--input-shapes", "x:[1,3]")
    lines = out.splitlines()
    assert lines[0] == "tvmc compile"
    shown = dict(line.split(maxsplit=1) for line in lines[1:10] if line.startswith("  "))
    assert shown["model"] == str(model) and shown["sparsity"] == "off" and shown["input_shapes"] == "x:[1,3]"
    assert shown["target"] == "llvm for the CPU of this machine"
    conv = next(line for line in lines if line.startswith("conv1"))
    assert conv.split() == (
        "conv1 conv 3x3 s2 64x32x3x3 @56x56 10.0% unstructured 73.7 kB 9.0 kB 4.25x 90% zeros".split()
    )
    assert "2 layers, 1 sparse; weights 2.1 MB -> 2.1 MB" in lines
    assert lines[-1].startswith("module.tar: ") and "compiled in" in lines[-1]
    assert "import" in err  # the phase, since stderr is no terminal here


def test_dump_plan(tvmc, compiled, model, tmp_path):
    assert tvmc("compile", model, "--dump-plan", "plan.json")[0] == 0
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert [layer["name"] for layer in plan["layers"]] == ["conv1", "fc"]


def test_edited_plan_is_passed_on(tvmc, compiled, model, tmp_path):
    (tmp_path / "plan.json").write_text("{}")
    assert tvmc("compile", model, "--sparsity", "plan.json")[0] == 0
    assert compiled[0]["sparsity"] == "plan.json"
    code, _, err = tvmc("compile", model, "--sparsity", "none.json")
    assert code == 4 and "--sparsity must be auto, off or an existing plan file, not 'none.json'" in err


@pytest.mark.parametrize("flag", ["--output", "--dump-plan"])
def test_unwritable_output_is_found_before_compiling(tvmc, compiled, model, tmp_path, flag):
    code, _, err = tvmc("compile", model, flag, tmp_path / "none" / "file")
    assert code == 4 and "doesn't exist" in err and not compiled
    assert tvmc("compile", model, flag, tmp_path)[0] == 4 and not compiled


def test_old_scripts_flags(tvmc, compiled, model):
    code, _, err = tvmc("compile", model, "--executor", "graph", "--runtime", "cpp")
    assert code == 0 and "one executor" in err
