"""Targets: the host's CPU by default, strings as former ``tvmc`` users wrote them, JSON."""

from __future__ import annotations

import difflib
import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tvm

from tvm_sparse.errors import TvmSparseError
from tvm_sparse.runtime.host import cpu_features
from tvm_sparse.schedules.cpu.isa import code_features

# First parts of the triples for which there are kernels.
_MACHINES = ("x86_64", "amd64", "aarch64", "arm64")


def make_target(target: str | Mapping[str, Any] | tvm.target.Target | None) -> tvm.target.Target:
    """Make an LLVM target.

    Parameters
    ----------
    target : str, mapping, Target or None
        ``"llvm"`` or None (this machine's CPU), ``"llvm -mcpu=znver4 -mattr=+avx2"``, JSON, the path of a JSON file,
        a mapping, or a target.

    Returns
    -------
    tvm.target.Target
        The target, with a CPU.

    Raises
    ------
    TvmSparseError
        If the target is not understood or not an LLVM target.
    """
    if isinstance(target, tvm.target.Target):
        if target.kind.name != "llvm":
            raise TvmSparseError(f"target {target.kind.name!r} is not supported; use 'llvm'")
        _check_cpu(target.attrs.get("mtriple"), target.attrs.get("mcpu"))
        return target
    description = _describe(target)
    if description.get("kind") != "llvm":
        raise TvmSparseError(f"target {description.get('kind')!r} is not supported; use 'llvm'")
    if isinstance(description.get("mtriple", ""), str) and isinstance(description.get("mcpu", ""), str):
        _check_cpu(description.get("mtriple"), description.get("mcpu"))
    if "mcpu" not in description and "mtriple" not in description:
        description["mcpu"] = str(tvm.get_global_func("tvm.codegen.llvm.GetHostCPUName")())
        native = "mattr" not in description
    else:
        native = False
    description.setdefault("num-cores", os.cpu_count() or 1)
    try:
        made = tvm.target.Target(description)
        hidden = _hidden_features(made) if native else []
        return tvm.target.Target({**description, "mattr": [f"-{name}" for name in hidden]}) if hidden else made
    except (ValueError, TypeError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise TvmSparseError(f"target {description} is not understood: {reason}") from error


def _hidden_features(target: tvm.target.Target) -> list[str]:
    """Features of this machine's CPU model that the machine doesn't have, since a hypervisor hides them."""
    present = cpu_features()
    if present is None:
        return []
    return sorted(name for name, kernel_name in code_features(target).items() if kernel_name not in present)


def _check_cpu(triple: str | None, cpu: str | None) -> None:
    """Refuse a machine or CPU that LLVM doesn't know: it would warn and take another, or crash on the machine."""
    if triple is not None and triple.split("-")[0] not in _MACHINES:
        raise TvmSparseError(f"mtriple {triple!r} names no supported machine; known: {', '.join(_MACHINES)}")
    if cpu is None:
        return
    triple = triple or str(tvm.get_global_func("tvm.codegen.llvm.GetDefaultTargetTriple")())
    if tvm.get_global_func("target.llvm_is_valid_cpu")(cpu, triple):
        return
    machine = tvm.target.Target({"kind": "llvm", "mtriple": triple})
    known = [str(name) for name in tvm.get_global_func("target.llvm_get_cpu_archlist")(machine)]
    near = difflib.get_close_matches(cpu, known, n=5)
    similar = f"; similar ones: {', '.join(near)}" if near else ""
    raise TvmSparseError(f"mcpu {cpu!r} is not a CPU that LLVM knows for {triple}{similar}")


def _describe(target: Any) -> dict[str, Any]:
    if target is None:
        return {"kind": "llvm"}
    if isinstance(target, Mapping):
        return dict(target)
    if not isinstance(target, str):
        raise TvmSparseError(f"a target is text, a mapping or a tvm Target, not {type(target).__name__}")
    text = target.strip()
    if text.endswith(".json"):
        text = _read(Path(text))
    if text.startswith("{"):
        try:
            return dict(json.loads(text))
        except ValueError as error:
            raise TvmSparseError(f"target is not valid JSON: {error}") from error
    try:
        kind, *options = shlex.split(text) or [""]
    except ValueError as error:
        raise TvmSparseError(f"target {text!r} cannot be parsed: {error}") from error
    description: dict[str, Any] = {"kind": kind}
    for option in options:
        name, equals, value = option.lstrip("-").partition("=")
        if not option.startswith("-") or not equals:
            raise TvmSparseError(f"target option {option!r} is not of the form -name=value")
        if name == "mattr":
            description[name] = value.split(",")
        elif name == "num-cores":
            if not value.isdecimal() or int(value) < 1:
                raise TvmSparseError(f"target option {option!r} needs a positive integer")
            description[name] = int(value)
        else:
            description[name] = value
    return description


def _read(path: Path) -> str:
    """Text of a JSON file with a target."""
    try:
        text = path.read_text().strip()
    except (OSError, ValueError) as error:
        raise TvmSparseError(f"target file '{path}' cannot be read: {error}") from error
    if not text.startswith("{"):
        raise TvmSparseError(f"target file '{path}' does not hold a JSON object")
    return text
