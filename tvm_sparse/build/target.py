"""Targets: the host's CPU by default, strings as former ``tvmc`` users wrote them, JSON."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tvm

from tvm_sparse.errors import TvmSparseError


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
        return target
    description = _describe(target)
    if description.get("kind") != "llvm":
        raise TvmSparseError(f"target {description.get('kind')!r} is not supported; use 'llvm'")
    if "mcpu" not in description and "mtriple" not in description:
        description["mcpu"] = str(tvm.get_global_func("tvm.codegen.llvm.GetHostCPUName")())
    description.setdefault("num-cores", os.cpu_count() or 1)
    try:
        return tvm.target.Target(description)
    except (ValueError, TypeError, tvm.TVMError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise TvmSparseError(f"target {description} is not understood: {reason}") from error


def _describe(target: str | Mapping[str, Any] | None) -> dict[str, Any]:
    if target is None:
        return {"kind": "llvm"}
    if isinstance(target, Mapping):
        return dict(target)
    text = target.strip()
    if text.endswith(".json") and Path(text).is_file():
        text = Path(text).read_text()
    if text.startswith("{"):
        try:
            return dict(json.loads(text))
        except ValueError as error:
            raise TvmSparseError(f"target is not valid JSON: {error}") from error
    kind, *options = shlex.split(text) or [""]
    description: dict[str, Any] = {"kind": kind}
    for option in options:
        name, equals, value = option.lstrip("-").partition("=")
        if not option.startswith("-") or not equals:
            raise TvmSparseError(f"target option {option!r} is not of the form -name=value")
        if name == "mattr":
            description[name] = value.split(",")
        elif name == "num-cores":
            description[name] = int(value)
        else:
            description[name] = value
    return description
