"""What the benchmark writes: ratios, geometric means, a Markdown table."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from tvm_sparse.tvmc.tables import format_bytes, markdown_table

OURS = "tvm"
REFERENCE = "onnxruntime"


@dataclass
class Row:
    """Measurements of one model.

    Parameters
    ----------
    model : str
        Name.
    group : str
        ``"dense"`` or ``"sparse"``.
    milliseconds : dict
        Best median of a round, by engine.
    peak_bytes : dict
        Most memory of the process, by engine.
    error : float, optional
        Our largest difference to ONNX Runtime's output over the output's largest value; None if not compared.
    compile_seconds : float, optional
        Time that compiling took, with kernels cached from earlier models.
    package_bytes : int, optional
        Size of the package.
    notes : dict
        Why something is missing, by engine.
    """

    model: str
    group: str = "dense"
    milliseconds: dict[str, float] = field(default_factory=dict)
    peak_bytes: dict[str, int] = field(default_factory=dict)
    error: float | None = None
    compile_seconds: float | None = None
    package_bytes: int | None = None
    notes: dict[str, str] = field(default_factory=dict)

    def ratio(self, engine: str) -> float | None:
        """How many times faster ours is than an engine; None if one of the two is missing."""
        if engine not in self.milliseconds or OURS not in self.milliseconds:
            return None
        return self.milliseconds[engine] / self.milliseconds[OURS]


def geometric_mean(values: Iterable[float]) -> float | None:
    """Geometric mean of positive numbers; None of none."""
    logarithms = [math.log(value) for value in values]
    return math.exp(sum(logarithms) / len(logarithms)) if logarithms else None


def means(rows: list[Row], engines: list[str]) -> dict[str, dict[str, float]]:
    """Geometric mean of our ratio to each engine, by group, where there is one."""
    result: dict[str, dict[str, float]] = {}
    for group in ("dense", "sparse"):
        for engine in engines:
            ratios = [row.ratio(engine) for row in rows if row.group == group]
            mean = geometric_mean(ratio for ratio in ratios if ratio is not None)
            if mean is not None and engine != OURS:
                result.setdefault(group, {})[engine] = mean
    return result


def to_json(rows: list[Row], engines: list[str], machine: dict[str, Any]) -> dict[str, Any]:
    """Everything measured as JSON values."""
    entries = []
    for row in rows:
        ratios = {engine: row.ratio(engine) for engine in engines if engine != OURS}
        entries.append({**asdict(row), "ratios": {e: r for e, r in ratios.items() if r is not None}})
    summary = means(rows, engines)
    return {"machine": machine, "engines": engines, "models": entries, "geometric_means": summary}


def to_markdown(rows: list[Row], engines: list[str]) -> str:
    """The table: milliseconds of each engine, ours relative to each, error, memory, compile time, size."""
    peers = [engine for engine in engines if engine != OURS]
    header = ["model", *(f"{engine} (ms)" for engine in engines), *(f"vs {engine}" for engine in peers)]
    compared = [engine for engine in (OURS, REFERENCE) if engine in engines]
    header += ["error", f"peak memory, {' / '.join(compared)}", "compile (s)", "package"]
    lines = []
    for row in sorted(rows, key=lambda row: row.group):
        cells = [row.model]
        cells += [_number(row.milliseconds.get(engine), "{:.2f}") for engine in engines]
        cells += [_number(row.ratio(engine), "{:.2f}x") for engine in peers]
        cells.append(_number(row.error, "{:.1e}"))
        peaks = (row.peak_bytes.get(engine) for engine in compared)
        cells.append(" / ".join("-" if peak is None else format_bytes(peak) for peak in peaks))
        cells.append(_number(row.compile_seconds, "{:.1f}"))
        cells.append(format_bytes(row.package_bytes) if row.package_bytes is not None else "-")
        lines.append(cells)
    for group, ratios in means(rows, engines).items():
        cells = [f"**geometric mean, {group}**", *["" for _ in engines]]
        cells += [_number(ratios.get(engine), "**{:.2f}x**") for engine in peers]
        lines.append([*cells, "", "", "", ""])
    return markdown_table(header, lines, right=range(1, len(header)))


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
