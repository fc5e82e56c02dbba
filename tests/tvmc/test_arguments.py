"""Parsers of shapes and targets."""

import argparse
import json

import pytest

from tvm_sparse.errors import TvmSparseError
from tvm_sparse.tvmc.shapes import parse_shape_string
from tvm_sparse.tvmc.target import TARGET_OPTIONS, add_target_arguments, parse_target, target_from_arguments


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        ("x:[1,3,224,224]", {"x": (1, 3, 224, 224)}),
        ("x:[1] y:[2,3]", {"x": (1,), "y": (2, 3)}),
        ("x:[1], y:[2]", {"x": (1,), "y": (2,)}),
        ("  x : [ 1 , 2 ]  ", {"x": (1, 2)}),
        ("input:0:[1]", {"input:0": (1,)}),
        ("a/b.c-d_e:0:[7] z:[1]", {"a/b.c-d_e:0": (7,), "z": (1,)}),
        ("scalar:[]", {"scalar": ()}),
        ("x:[1]y:[2]", {"x": (1,), "y": (2,)}),
    ],
)
def test_shapes(text, shapes):
    assert parse_shape_string(text) == shapes


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "x:1,2",
        "x:[1,2",
        "[1,2]",
        "x:[1,,2]",
        "x:[-1,2]",
        "x:[0]",
        "x:[n]",
        "x:[1.5]",
        "x:[1] x:[2]",
        "x:[1] z",
    ],
)
def test_wrong_shapes(text):
    with pytest.raises(argparse.ArgumentTypeError):
        parse_shape_string(text)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("llvm", {"kind": "llvm"}),
        ("llvm -mcpu=znver4", {"kind": "llvm", "mcpu": "znver4"}),
        ("llvm -mcpu znver4 -num-cores 2", {"kind": "llvm", "mcpu": "znver4", "num-cores": 2}),
        ("llvm --mattr=+avx2,+fma", {"kind": "llvm", "mattr": ["+avx2", "+fma"]}),
        ("llvm -fast-math -mcpu=a", {"kind": "llvm", "fast-math": True, "mcpu": "a"}),
        ("llvm -fast-math=0", {"kind": "llvm", "fast-math": False}),
        ('{"kind": "llvm", "mcpu": "a"}', {"kind": "llvm", "mcpu": "a"}),
        ("cuda -arch=sm_90", {"kind": "cuda", "arch": "sm_90"}),
    ],
)
def test_targets(text, target):
    assert parse_target(text) == target


def test_target_from_a_file(tmp_path):
    path = tmp_path / "target"
    path.write_text(json.dumps({"kind": "llvm", "num-cores": 3}))
    assert parse_target(str(path)) == {"kind": "llvm", "num-cores": 3}
    path.write_text("{")
    with pytest.raises(TvmSparseError, match="not valid JSON"):
        parse_target(str(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("vax", "Unknown target kind 'vax'. Known kinds: llvm, cuda"),
        ("llvm, cuda", "One target at a time"),
        ("llvm -mcpuu=x", "'mcpuu' is not an option of llvm targets"),
        ("llvm -mcpu", "needs a value"),
        ("llvm -num-cores=many", "needs an integer, not 'many'"),
        ("llvm -fast-math=maybe", "needs true or false"),
        ("llvm mcpu=x", "expected -option=value"),
        ("llvm -mcpu='x", "Cannot parse"),
        ('{"kind": 3}', 'expected an object with a "kind"'),
        ('{"mcpu": "x"}', 'expected an object with a "kind"'),
        ('{"kind"', "not valid JSON"),
    ],
)
def test_wrong_targets(text, message):
    with pytest.raises(TvmSparseError, match=message):
        parse_target(text)


def from_flags(*argv):
    parser = argparse.ArgumentParser()
    add_target_arguments(parser)
    return target_from_arguments(parser.parse_args(argv))


def test_generated_flags():
    assert from_flags() is None
    assert from_flags("--target", "llvm", "--target-llvm-mattr", "+a,-b") == {
        "kind": "llvm",
        "mattr": ["+a", "-b"],
    }
    assert from_flags("--target", "llvm -mcpu=a", "--target-llvm-mcpu", "b")["mcpu"] == "b"
    assert from_flags("--target-llvm-num-cores=2") == {"kind": "llvm", "num-cores": 2}


def test_flag_of_another_target():
    with pytest.raises(TvmSparseError, match="Passed --target-cuda-arch but did not specify cuda target"):
        from_flags("--target", "llvm", "--target-cuda-arch", "sm_90")


def test_options_are_those_of_tvm():
    import tvm

    options_of = tvm.get_global_func("target.ListTargetKindOptionsFromName")
    forms = {"str": "str", "int": "int", "bool": "bool", "list": "Array<str>"}
    for kind, options in TARGET_OPTIONS.items():
        known = {str(name): str(form) for name, form in options_of(kind).items()}
        assert {name: forms[form] for name, form in options.items()}.items() <= known.items()
