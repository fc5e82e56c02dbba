"""``--target`` in its forms, and the flags generated for the options of each kind."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
from typing import Any

from tvm_sparse.errors import TvmSparseError
from tvm_sparse.tvmc import texts

# Options of TVM's target kinds that make sense here; a test compares them with TVM (--help doesn't load it).
TARGET_OPTIONS: dict[str, dict[str, str]] = {
    "llvm": {
        "mcpu": "str",
        "mattr": "list",
        "mtriple": "str",
        "mabi": "str",
        "mfloat-abi": "str",
        "num-cores": "int",
        "vector-width": "int",
        "opt-level": "int",
        "cl-opt": "list",
        "jit": "str",
        "fast-math": "bool",
    },
    "cuda": {
        "arch": "str",
        "mcpu": "str",
        "max_shared_memory_per_block": "int",
        "max_threads_per_block": "int",
        "thread_warp_size": "int",
        "registers_per_block": "int",
        "l2_cache_size_bytes": "int",
    },
}


def add_target_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--target`` and the generated ``--target-<kind>-<option>`` flags."""
    parser.add_argument("--target", help=texts.TARGET)
    for kind, options in TARGET_OPTIONS.items():
        group = parser.add_argument_group(f"target {kind}")
        for option in options:
            group.add_argument(
                f"--target-{kind}-{option}",
                dest=_destination(kind, option),
                metavar=option.upper(),
                help=texts.TARGET_OPTION.format(kind=kind, option=option),
            )


def target_from_arguments(args: argparse.Namespace) -> dict[str, Any] | None:
    """The target as TVM's dictionary form; None stands for this machine's CPU.

    Raises
    ------
    TvmSparseError
        For a target that cannot be understood, or a flag of a kind that is not the target's.
    """
    given = {
        (kind, option): getattr(args, _destination(kind, option))
        for kind, options in TARGET_OPTIONS.items()
        for option in options
        if getattr(args, _destination(kind, option)) is not None
    }
    # Flags of llvm alone are enough: it is the default.
    text = args.target or ("llvm" if given else None)
    if text is None:
        return None
    target = parse_target(text)
    for (kind, option), value in given.items():
        if kind != target["kind"]:
            raise TvmSparseError(f"Passed --target-{kind}-{option} but did not specify {kind} target")
        target[option] = _convert(value, TARGET_OPTIONS[kind][option], f"--target-{kind}-{option}")
    return target


def parse_target(text: str) -> dict[str, Any]:
    """Parse a target given as text.

    Parameters
    ----------
    text : str
        ``"llvm"``, ``"llvm -mcpu=znver4 -num-cores 2"``, inline JSON, or the path of a JSON file.

    Returns
    -------
    dict
        ``{"kind": ..., option: value, ...}``.

    Raises
    ------
    TvmSparseError
        For anything else, and for kinds and options that are unknown.
    """
    text = text.strip()
    if text.startswith("{"):
        return _from_json(text, "the inline target")
    if os.path.isfile(text):
        with open(text) as file:
            return _from_json(file.read(), f"'{text}'")
    return _from_options(text)


def _from_json(text: str, where: str) -> dict[str, Any]:
    try:
        target = json.loads(text)
    except ValueError as error:
        raise TvmSparseError(f"{where} is not valid JSON: {error}") from error
    if not isinstance(target, dict) or not isinstance(target.get("kind"), str):
        raise TvmSparseError(f'{where} is not a target: expected an object with a "kind", such as "llvm".')
    _check_kind(target["kind"])
    return target


def _from_options(text: str) -> dict[str, Any]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise TvmSparseError(f"Cannot parse the target '{text}': {error}.") from error
    if not words:
        raise TvmSparseError("The target is empty.")
    kind, rest = words[0], words[1:]
    _check_kind(kind)
    target: dict[str, Any] = {"kind": kind}
    while rest:
        word = rest.pop(0)
        match = re.fullmatch(r"--?([A-Za-z][\w-]*)(?:=(.*))?", word)
        if match is None:
            raise TvmSparseError(f"Cannot parse '{word}' in the target '{text}': expected -option=value.")
        option, value = match.groups()
        form = TARGET_OPTIONS[kind].get(option)
        if form is None:
            known = ", ".join(TARGET_OPTIONS[kind])
            raise TvmSparseError(f"'{option}' is not an option of {kind} targets. Known options: {known}.")
        if value is None and rest and not rest[0].startswith("-"):
            value = rest.pop(0)
        if value is None and form != "bool":
            raise TvmSparseError(f"The option '{option}' in the target '{text}' needs a value.")
        target[option] = _convert("true" if value is None else value, form, f"-{option}")
    return target


def _check_kind(kind: str) -> None:
    if "," in kind:
        raise TvmSparseError(f"One target at a time: '{kind}' names several.")
    if kind not in TARGET_OPTIONS:
        raise TvmSparseError(f"Unknown target kind '{kind}'. Known kinds: {', '.join(TARGET_OPTIONS)}.")


def _convert(text: str, form: str, name: str) -> Any:
    if form == "int":
        try:
            return int(text)
        except ValueError:
            raise TvmSparseError(f"{name} needs an integer, not '{text}'.") from None
    if form == "bool":
        if text.lower() not in ("true", "false", "0", "1"):
            raise TvmSparseError(f"{name} needs true or false, not '{text}'.")
        return text.lower() in ("true", "1")
    if form == "list":
        return [part for part in text.split(",") if part]
    return text


def _destination(kind: str, option: str) -> str:
    return f"target_{kind}_{option}".replace("-", "_")
