"""Tables and lists for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def format_table(header: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> str:
    """A plain text table.

    Parameters
    ----------
    header : sequence of str
        Titles of the columns.
    rows : iterable of sequence of str
        Cells.
    right : iterable of int
        Columns that are aligned to the right.

    Returns
    -------
    str
        Lines without trailing spaces.
    """
    lines = [list(header), *[list(row) for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    lines.insert(1, ["-" * width for width in widths])
    right = set(right)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> str:
    """The same as a Markdown table."""
    right = set(right)
    rule = ["---:" if column in right else "---" for column in range(len(header))]
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, rule, *rows])


def format_bytes(count: float) -> str:
    """A number of bytes with a unit: ``1.5 MB``; units are powers of 1000."""
    for unit in ("B", "kB", "MB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


LAYER_HEADER = ("layer", "kind", "shape", "density", "format", "dense", "packed", "speed-up", "why")


def layer_table(layers: Sequence[Mapping[str, Any]]) -> str:
    """The table of layers of a compiled model, with a line of totals.

    Parameters
    ----------
    layers : sequence of mapping
        ``plan["layers"]`` of a package: name, kind, shape, density, format, bytes_dense, bytes_packed,
        speedup_estimate, why.
    """
    if not layers:
        return "No layer of this model has weights that the planner handles."
    rows = [
        (
            layer["name"],
            layer["kind"],
            layer["shape"],
            f"{layer['density']:.1%}",
            layer["format"],
            format_bytes(layer["bytes_dense"]),
            format_bytes(layer["bytes_packed"]),
            f"{layer['speedup_estimate']:.2f}x",
            layer["why"],
        )
        for layer in layers
    ]
    dense = sum(layer["bytes_dense"] for layer in layers)
    packed = sum(layer["bytes_packed"] for layer in layers)
    sparse = sum(layer["format"] not in ("dense", "depthwise") for layer in layers)
    table = format_table(LAYER_HEADER, rows, right=(3, 5, 6, 7))
    sizes = f"{format_bytes(dense)} -> {format_bytes(packed)}"
    return f"{table}\n{len(layers)} layers, {sparse} sparse; weights {sizes}"


def format_arguments(command: str, arguments: Mapping[str, Any]) -> str:
    """The resolved arguments of a command, one a line."""
    width = max((len(name) for name in arguments), default=0)
    lines = [f"tvmc {command}"]
    lines += [f"  {name:<{width}}  {_plain(value)}" for name, value in arguments.items()]
    return "\n".join(lines)


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{key}:{_plain(item)}" for key, item in value.items())
    if isinstance(value, tuple | list):
        return "[" + ",".join(str(item) for item in value) + "]"
    return str(value)
