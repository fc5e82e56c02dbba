"""Tables of a profile by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from tvm_sparse.runtime import LayerProfile, LayerTime, Roofs
from tvm_sparse.tvmc.tables import format_table

LAYER_HEADER = ("layer", "kind", "shape", "format", "time (ms)", "best", "share", "GF/s", "lanes", "bound", "of roof")
_RIGHT = (4, 5, 6, 7, 8, 10)
Table = Callable[[Sequence[str], Iterable[Sequence[str]], Iterable[int]], str]


def profile_tables(profile: LayerProfile, make: Table = format_table) -> str:
    """A table of the layers, one of the other functions, and the totals.

    Parameters
    ----------
    profile : LayerProfile
        What was measured.
    make : callable
        `format_table` or `markdown_table`.
    """
    total = profile.total_ms or 1.0
    columns = len(LAYER_HEADER) if profile.roofs else len(LAYER_HEADER) - 2
    rows = [_layer_row(layer, total)[:columns] for layer in profile.layers]
    right = [column for column in _RIGHT if column < columns]
    parts = [make(LAYER_HEADER[:columns], rows, right)] if rows else ["No call of this model is a layer of its plan."]
    functions = [(call.name, str(call.calls), f"{call.ms:.4f}", f"{call.ms / total:.1%}") for call in profile.functions]
    if functions:
        parts.append(make(("function", "calls", "time (ms)", "share"), functions, (1, 2, 3)))
    sums = [
        ("layers", profile.layers_ms),
        ("other functions", profile.functions_ms),
        ("virtual machine", profile.machine_ms),
        ("total", profile.total_ms),
    ]
    cells = [(name, f"{ms:.4f}", f"{ms / total:.1%}") for name, ms in sums]
    parts.append(make(("total of", "time (ms)", "share"), cells, (1, 2)))
    parts.append(f"a run whose calls are not measured: {profile.run_ms:.4f} ms")
    if profile.roofs:
        parts.append(roofs_text(profile.roofs, profile.memory))
    return "\n\n".join(parts)


def roofs_text(roofs: Roofs, memory: str | None) -> str:
    """The roofs in two lines, and the level of memory that counts for the model."""
    threads = f"{roofs.num_threads} thread" + "s" * (roofs.num_threads > 1)

    def rates(of: dict[str, float]) -> str:
        return ", ".join(f"{level} {rate / 1e9:.1f}" for level, rate in of.items())

    counts = f"; the model's memory is {memory}" if memory else ""
    return (
        f"roofs of {threads}: FMA {roofs.flops / 1e9:.1f} GF/s{counts}\n"
        f"read, GB/s: {rates(dict(roofs.read))}; written, GB/s: {rates(dict(roofs.write))}"
    )


def below_roof(profile: LayerProfile, share: float) -> list[LayerTime]:
    """Layers that stay under a share of their roof, those that lose most time first."""
    found = [layer for layer in profile.layers if layer.share_of_roof is not None and layer.share_of_roof < share]
    return sorted(found, key=lambda layer: max(layer.limits.values()) - layer.best_ms)


def _layer_row(layer: LayerTime, total: float) -> tuple[str, ...]:
    def number(value: float | None, form: str) -> str:
        return "-" if value is None else form.format(value)

    return (
        layer.name,
        layer.kind,
        layer.shape,
        layer.format,
        f"{layer.ms:.4f}",
        f"{layer.best_ms:.4f}",
        f"{layer.ms / total:.1%}",
        number(layer.gflops, "{:.1f}"),
        number(layer.utilisation, "{:.0%}"),
        layer.bound or "-",
        number(layer.share_of_roof, "{:.0%}"),
    )
