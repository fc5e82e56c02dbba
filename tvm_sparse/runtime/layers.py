"""A profile by layer: which call is which layer of the plan, its speed, and the roof that binds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tvm_sparse.runtime.profile import CallTime, ProfileResult
from tvm_sparse.runtime.roofs import Roofs


@dataclass(frozen=True)
class LayerTime:
    """One layer of a run.

    Parameters
    ----------
    name, kind, shape, format, kernel : str
        As in the plan.
    ms, best_ms : float
        Median and least time in milliseconds, of all its calls together.
    work : mapping
        What these calls do, as the plan counts it; empty where it doesn't.
    limits : mapping of str to float
        Milliseconds that the work takes at least, by roof; empty where no roofs were measured.
    """

    name: str
    kind: str
    shape: str
    format: str
    kernel: str
    ms: float
    best_ms: float
    work: Mapping[str, Any] = field(default_factory=dict)
    limits: Mapping[str, float] = field(default_factory=dict)

    @property
    def gflops(self) -> float | None:
        """10^9 operations on nonzero weights a second, two for each multiply-add, of the fastest call."""
        return 2e-6 * self.work["macs"] / self.best_ms if self.work and self.best_ms else None

    @property
    def utilisation(self) -> float | None:
        """Share of the vectors' lanes whose result is used."""
        return self.work["utilisation"] if self.work else None

    @property
    def intensity(self) -> float | None:
        """Operations on nonzero weights for each byte of activations and weights, read or written once."""
        return 2 * self.work["macs"] / (self.work["read"] + self.work["written"]) if self.work else None

    @property
    def bound(self) -> str | None:
        """The roof that binds: at full speed its part of the work takes longest."""
        return max(self.limits, key=lambda roof: self.limits[roof]) if self.limits else None

    @property
    def share_of_roof(self) -> float | None:
        """Least time by the roof that binds, over the time of the fastest call."""
        return max(self.limits.values()) / self.best_ms if self.limits and self.best_ms else None

    def to_json(self) -> dict[str, Any]:
        """The layer as JSON values."""
        return {
            **{key: getattr(self, key) for key in ("name", "kind", "shape", "format", "kernel", "ms", "best_ms")},
            **{key: getattr(self, key) for key in ("gflops", "utilisation", "intensity", "bound", "share_of_roof")},
            "work": dict(self.work),
            "limits_ms": dict(self.limits),
        }


@dataclass(frozen=True)
class LayerProfile:
    """Where the time of a run goes.

    Parameters
    ----------
    layers : tuple of LayerTime
        Layers in order of execution.
    functions : tuple of CallTime
        Compiled functions that are no layers, the slowest first.
    machine_ms : float
        Time of the virtual machine's own calls.
    run_ms : float
        Time of a run whose calls are not measured.
    roofs : Roofs, optional
        What the machine reaches.
    memory : str, optional
        Level of memory that holds the model: ``"L3"`` or ``"DRAM"``.
    """

    layers: tuple[LayerTime, ...]
    functions: tuple[CallTime, ...]
    machine_ms: float
    run_ms: float
    roofs: Roofs | None = None
    memory: str | None = None

    @property
    def layers_ms(self) -> float:
        """Time in layers."""
        return sum(layer.ms for layer in self.layers)

    @property
    def functions_ms(self) -> float:
        """Time in other compiled functions."""
        return sum(call.ms for call in self.functions)

    @property
    def total_ms(self) -> float:
        """All measured time."""
        return self.layers_ms + self.functions_ms + self.machine_ms

    def to_json(self) -> dict[str, Any]:
        """The profile as JSON values."""
        functions = [
            {"name": call.name, "calls": call.calls, "ms": call.ms, "best_ms": call.best_ms} for call in self.functions
        ]
        return {
            "roofs": self.roofs.to_json() if self.roofs else None,
            "memory": self.memory,
            "layers": [layer.to_json() for layer in self.layers],
            "functions": functions,
            "layers_ms": self.layers_ms,
            "functions_ms": self.functions_ms,
            "machine_ms": self.machine_ms,
            "total_ms": self.total_ms,
            "run_ms": self.run_ms,
        }


def layer_profile(
    profile: ProfileResult, layers: Sequence[Mapping[str, Any]], roofs: Roofs | None = None
) -> LayerProfile:
    """Match the calls of a profile with the layers of the plan.

    Parameters
    ----------
    profile : ProfileResult
        Times of the calls.
    layers : sequence of mapping
        ``plan["layers"]`` of the package. A layer is the calls of its ``kernel`` with the numbers ``calls``; a layer
        without any is in no run.
    roofs : Roofs, optional
        What the machine reaches.
    """
    memory = roofs.memory_of(_touched_bytes(layers)) if roofs else None
    by_call = {(layer["kernel"], number): layer for layer in layers for number in _numbers(layer)}
    seen: dict[str, int] = {}
    found: dict[str, list[CallTime]] = {}
    others = []
    for call in profile.kernels:
        number = seen.get(call.name, 0)
        seen[call.name] = number + 1
        layer = by_call.get((call.name, number))
        if layer is None:
            others.append(call)
            continue
        found.setdefault(layer["name"], []).append(call)
    times = []
    by_name = {layer["name"]: layer for layer in layers}
    # In the order of their first calls.
    for name, calls in found.items():
        layer = by_name[name]
        work = _times(layer.get("work") or {}, len(calls) // layer.get("strips", 1))
        limits = roofs.limits(work, memory) if roofs and memory and work else {}
        times.append(
            LayerTime(
                name,
                layer["kind"],
                layer["shape"],
                layer["format"],
                layer["kernel"],
                sum(call.ms for call in calls),
                sum(call.best_ms for call in calls),
                work,
                {roof: seconds * 1e3 for roof, seconds in limits.items()},
            )
        )
    own = sum(call.ms for call in profile.calls) - sum(call.ms for call in profile.kernels)
    functions = ProfileResult(tuple(others)).by_name()
    return LayerProfile(tuple(times), functions, own, profile.run_ms, roofs, memory)


def _numbers(layer: Mapping[str, Any]) -> Sequence[int]:
    """Numbers of a layer's calls; packages of earlier versions have one at most."""
    if "calls" in layer:
        numbers: Sequence[int] = layer["calls"]
        return numbers
    return [] if layer.get("call") is None else [layer["call"]]


def _times(work: Mapping[str, Any], calls: int) -> dict[str, Any]:
    """The work of several equal calls: counts add up, shares stay."""
    return {key: value * calls if isinstance(value, int) else value for key, value in work.items()}


def _touched_bytes(layers: Sequence[Mapping[str, Any]]) -> int:
    """Bytes that a run touches, about: all weights, and activations that use the same memory in turn."""
    activations = max((layer["work"]["written"] for layer in layers if layer.get("work")), default=0)
    return sum(layer["bytes_packed"] for layer in layers) + 2 * activations
