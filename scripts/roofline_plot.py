"""The roofline plot: speed over intensity, with the limits of the machine."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tvm_sparse.runtime import LayerProfile, Roofs

matplotlib.rcParams["svg.hashsalt"] = "tvm-sparse"
COLOURS = {"FMA": "#1b6ca8", "L1": "#2a9d5c", "L2": "#d98a00", "L3": "#b23a48", "DRAM": "#5b3a8c"}
MARKERS = {"dense": "s", "unstructured": "o", "depthwise": "^"}
# Layers whose names are written beside them: those that take longest.
_NAMED = 8


def draw(profile: LayerProfile, title: str, path: Path) -> None:
    """Draw the layers of a profile with roofs.

    Parameters
    ----------
    profile : LayerProfile
        What was measured, with roofs.
    title : str
        Name of the model.
    path : Path
        File to write; its suffix tells the format.
    """
    layers = [layer for layer in profile.layers if layer.gflops and layer.intensity and layer.bound]
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.add_subplot(xscale="log", yscale="log")
    intensities = [layer.intensity or 1.0 for layer in layers] or [1.0]
    x = np.array([min(*intensities, 1.0) / 2, max(*intensities, 100.0) * 2])
    if profile.roofs:
        _draw_roofs(axes, profile.roofs, x)
    best = sum(layer.best_ms for layer in layers) or 1.0
    for layer in layers:
        axes.scatter(
            layer.intensity, layer.gflops, s=20 + 1500 * layer.best_ms / best,
            color=COLOURS[layer.bound or "FMA"], marker=MARKERS.get(layer.format, "D"),
            alpha=0.7, edgecolors="white", linewidths=0.5,
        )  # fmt: skip
    # One of each kind and shape: the others lie beside it.
    distinct = {(layer.kind, layer.shape): layer for layer in sorted(layers, key=lambda layer: layer.best_ms)}
    for layer in sorted(distinct.values(), key=lambda layer: -layer.best_ms)[:_NAMED]:
        share = f" {layer.share_of_roof:.0%}" if layer.share_of_roof else ""
        _write(axes, f"{layer.name}{share}", (layer.intensity or 1.0, layer.gflops or 1.0), "black", (6, 4), 7)
    for name in {layer.format: None for layer in layers}:
        axes.scatter([], [], color="grey", marker=MARKERS.get(name, "D"), label=name)
    for bound in COLOURS:
        if any(layer.bound == bound for layer in layers):
            axes.scatter([], [], color=COLOURS[bound], label=f"bound by {bound}")
    axes.set(
        title=f"{title}: layers {best:.2f} ms, the fastest call of each",
        xlabel="operations on nonzero weights for each byte of tensors and weights, read or written once",
        ylabel="GF/s on nonzero weights",
        xlim=tuple(x),
    )
    axes.grid(True, which="both", alpha=0.2)
    axes.legend(fontsize=8, loc="lower right")
    # No date, so that the same measurement gives the same file.
    figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)


def _draw_roofs(axes: Axes, roofs: Roofs, x: np.ndarray) -> None:
    peak = roofs.flops / 1e9
    # One load of four bytes for each multiply-add of a lane.
    loads = roofs.read["L1"] / 4 * 2 / 1e9
    flat = {"FMA": (f"FMA {peak:.0f} GF/s", peak), "L1": (f"L1, one load each: {loads:.0f} GF/s", min(loads, peak))}
    for level, (label, height) in flat.items():
        axes.plot(x, [height, height], color=COLOURS[level], linewidth=1.2)
        _write(axes, label, (x[0], height), COLOURS[level], (4, 3))
    for level in ("L2", "L3", "DRAM"):
        rate = roofs.read[level] / 1e9
        end = min(x[1], peak / rate)
        if end > x[0]:
            axes.plot([x[0], end], [rate * x[0], rate * end], color=COLOURS[level], linewidth=1.2)
            _write(axes, f"{level} {rate:.0f} GB/s", (x[0], rate * x[0]), COLOURS[level], (4, 10))


def _write(
    axes: Axes, text: str, at: tuple[float, float], colour: str, offset: tuple[int, int], size: int = 8
) -> None:
    axes.annotate(text, at, xytext=offset, textcoords="offset points", fontsize=size, color=colour)
