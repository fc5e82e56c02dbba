"""What this machine offers, compared with what a package needs."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import platform
from collections.abc import Iterable
from pathlib import Path

from tvm_sparse.errors import PackageError

_MACHINE_ALIASES = {"amd64": "x86_64", "arm64": "aarch64"}


def machine() -> str:
    """Name of this machine's architecture as package metadata spells it: ``"x86_64"`` or ``"aarch64"``."""
    name = platform.machine().lower()
    return _MACHINE_ALIASES.get(name, name)


@functools.lru_cache(maxsize=1)
def cpu_features() -> frozenset[str] | None:
    """CPU features as ``/proc/cpuinfo`` names them; None where the system doesn't tell."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return None
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return None


# Where the system doesn't tell.
_USUAL_CACHES = {"L1": 32 << 10, "L2": 512 << 10, "L3": 16 << 20}


@functools.lru_cache
def cache_bytes(level: str) -> int:
    """Size of the cache ``"L1"`` (data), ``"L2"`` or ``"L3"`` of the first CPU; a usual one where it isn't known."""
    for entry in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        with contextlib.suppress(OSError, ValueError):
            kind = (entry / "type").read_text().strip()
            if kind != "Instruction" and f"L{(entry / 'level').read_text().strip()}" == level:
                size = (entry / "size").read_text().strip()
                return int(size.rstrip("KMG")) << {"K": 10, "M": 20, "G": 30}.get(size[-1], 0)
    return _USUAL_CACHES[level]


@functools.lru_cache(maxsize=1)
def default_num_threads() -> int:
    """Physical cores that this process may use (hyper-threads count once), within a container's limit."""
    if not hasattr(os, "sched_getaffinity"):
        return max(1, os.cpu_count() or 1)
    count = _physical_cores(os.sched_getaffinity(0))
    quota = _cpu_quota()
    return max(1, count if quota is None else min(count, math.ceil(quota)))


def _physical_cores(cpus: set[int]) -> int:
    cores = set()
    for cpu in cpus:
        try:
            cores.add(Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text())
        except OSError:
            return len(cpus)
    return len(cores)


def _cpu_quota(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """CPUs' worth of time that the control group allows (version 2 or 1); None if unlimited or unknown."""
    try:
        if (root / "cpu.max").exists():
            quota, period = (root / "cpu.max").read_text().split()
        else:
            quota = (root / "cpu" / "cpu.cfs_quota_us").read_text()
            period = (root / "cpu" / "cpu.cfs_period_us").read_text()
        return float(quota) / float(period) if float(quota) > 0 else None
    except (OSError, ValueError):
        # "max" stands for no limit.
        return None


def check_host(arch: str, features: Iterable[str], where: str) -> None:
    """Refuse a package that was compiled for another CPU.

    Parameters
    ----------
    arch : str
        Architecture of the package's code.
    features : iterable of str
        CPU features that the code uses, as ``/proc/cpuinfo`` names them.
    where : str
        Name of the package for the message.

    Raises
    ------
    PackageError
        Names the other architecture or the missing features.
    """
    if arch != machine():
        raise PackageError(
            f"'{where}' was compiled for {arch}, this machine is {machine()}. "
            f"Compile the model again with a --target for this machine."
        )
    present = cpu_features()
    if present is None:
        return
    missing = sorted(set(features) - present)
    if missing:
        raise PackageError(
            f"'{where}' needs CPU features that this machine lacks: {', '.join(missing)}. "
            f"Compile the model again on this machine or with its --target."
        )
