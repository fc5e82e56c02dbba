"""The lists of node tests that pass and that fail."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

_FOLDER = Path(__file__).parent
_PASSING = _FOLDER / "passing.txt"
_FAILING = _FOLDER / "failing.md"


def load_passing() -> list[str]:
    """Names of the tests that pass, sorted."""
    return _PASSING.read_text().split() if _PASSING.exists() else []


def load_failing() -> tuple[str, dict[str, str]]:
    """Version of onnx that the list was made with, and the reason of each test that fails, by name."""
    version, reasons, reason = "", {}, ""
    for line in _FAILING.read_text().splitlines():
        if line.startswith("onnx "):
            version = line.split()[1].rstrip(":")
        elif line.startswith("## "):
            reason = line[3:]
        elif line.startswith("- "):
            reasons[line[2:]] = reason
    return version, reasons


def save(passing: Sequence[str], failing: Mapping[str, str], version: str) -> None:
    """Write both lists; failing tests are grouped by reason."""
    _PASSING.write_text("".join(f"{name}\n" for name in sorted(passing)))
    groups: dict[str, list[str]] = defaultdict(list)
    for name, reason in failing.items():
        groups[reason].append(name)
    lines = [
        "# Node tests of the onnx package that fail, by reason",
        "",
        f"onnx {version}: {len(passing)} pass, {len(failing)} do not.",
        "Made by `python -m tests.onnx_backend.update`.",
    ]
    for reason in sorted(groups):
        lines += ["", f"## {reason}", *(f"- {name}" for name in sorted(groups[reason]))]
    _FAILING.write_text("\n".join(lines) + "\n")
