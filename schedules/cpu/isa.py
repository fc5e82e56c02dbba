"""What the kernels need to know of a CPU: vector width, registers, and the features that the code assumes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import tvm


@dataclass(frozen=True)
class Isa:
    """Vector instruction set of a target.

    Parameters
    ----------
    name : str
        ``"avx512"``, ``"avx2"``, ``"neon"`` or ``"generic"``.
    arch : str
        Machine as ``platform.machine()`` names it: ``"x86_64"`` or ``"aarch64"``.
    lanes : int
        float32 elements of a vector register.
    registers : int
        Vector registers.
    features : tuple of str
        CPU features, as ``/proc/cpuinfo`` names them, that compiled code may use.
    l1_bytes, l2_bytes : int
        First-level data cache and second-level cache of one core.
    tasks : int
        Cores that layers are split for, at most four: with more, those that need it have enough tasks anyway.
    """

    name: str
    arch: str
    lanes: int
    registers: int
    features: tuple[str, ...]
    l1_bytes: int = 32 * 1024
    l2_bytes: int = 512 * 1024
    tasks: int = 4

    @staticmethod
    def from_target(target: tvm.target.Target) -> Isa:
        """Read the vector instruction set from an LLVM target's CPU and attributes.

        Parameters
        ----------
        target : tvm.target.Target
            Target of kind ``llvm``.

        Returns
        -------
        Isa
            The widest instruction set that the target's features allow.
        """
        triple = str(target.attrs.get("mtriple", ""))
        caches = _CACHES.get(str(target.attrs.get("mcpu", "")))
        if "aarch64" in triple or "arm64" in triple:
            isa = NEON
        else:
            isa = _by_features(target)
            isa = replace(isa, features=tuple(sorted({*isa.features, *code_features(target).values()})))
        isa = replace(isa, tasks=max(1, min(4, int(target.attrs.get("num-cores", 4)))))
        return isa if caches is None else replace(isa, l1_bytes=caches[0] * 1024, l2_bytes=caches[1] * 1024)


def code_features(target: tvm.target.Target) -> dict[str, str]:
    """Features of an x86 target that LLVM may use in numeric code.

    Parameters
    ----------
    target : tvm.target.Target
        Target of kind ``llvm``.

    Returns
    -------
    dict of str to str
        The name that ``/proc/cpuinfo`` gives each, by LLVM's name.
    """
    names = {str(name) for name in tvm.get_global_func("target.llvm_get_cpu_features")(target)}
    return {name: kernel_name for name, kernel_name in _CPUINFO_NAMES.items() if name in names}


def _by_features(target: tvm.target.Target) -> Isa:
    features = {str(name) for name in tvm.get_global_func("target.llvm_get_cpu_features")(target)}
    if {"avx512f", "avx512vl", "avx512dq", "avx512bw"} <= features:
        return AVX512
    if {"avx2", "fma"} <= features:
        return AVX2
    return NEON if "neon" in features else GENERIC


AVX512 = Isa("avx512", "x86_64", 16, 32, ("avx2", "fma", "avx512f", "avx512vl", "avx512dq", "avx512bw"))
AVX2 = Isa("avx2", "x86_64", 8, 16, ("avx2", "fma"))
NEON = Isa("neon", "aarch64", 4, 32, ("asimd",))
GENERIC = Isa("generic", "x86_64", 4, 16, ())

# KiB of first-level data and second-level cache of a core, by LLVM's name of the CPU.
_CACHES = {
    **dict.fromkeys(("haswell", "broadwell", "skylake"), (32, 256)),
    **dict.fromkeys(("skylake-avx512", "cascadelake", "cooperlake"), (32, 1024)),
    **dict.fromkeys(("icelake-client", "tigerlake", "rocketlake"), (48, 512)),
    "icelake-server": (48, 1280),
    **dict.fromkeys(("alderlake", "raptorlake", "meteorlake"), (48, 1280)),
    **dict.fromkeys(("sapphirerapids", "emeraldrapids", "graniterapids", "graniterapids-d"), (48, 2048)),
    **dict.fromkeys(("znver1", "znver2", "znver3"), (32, 512)),
    "znver4": (32, 1024),
    "znver5": (48, 1024),
    **dict.fromkeys(("neoverse-n1", "neoverse-v1", "neoverse-n2", "neoverse-v2"), (64, 1024)),
    "cortex-a72": (32, 1024),
    "cortex-a76": (64, 512),
}

# Features that code may use, by LLVM's name; without those that hypervisors like to hide and no kernel needs (vaes).
_CPUINFO_NAMES = {
    **{n: n for n in ("avx", "avx2", "fma", "f16c", "bmi2", "movbe", "gfni")},
    **{n: n for n in ("avx512f", "avx512vl", "avx512dq", "avx512bw", "avx512cd", "avx512ifma", "avx512vbmi")},
    "avx512vbmi2": "avx512_vbmi2",
    "avx512vnni": "avx512_vnni",
    "avx512bitalg": "avx512_bitalg",
    "avx512vpopcntdq": "avx512_vpopcntdq",
    "avx512bf16": "avx512_bf16",
    "avx512fp16": "avx512_fp16",
    "avxvnni": "avx_vnni",
    "bmi": "bmi1",
    "lzcnt": "abm",
}
