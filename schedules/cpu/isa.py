"""What the kernels need to know of a CPU: vector width, registers, and the features that the code assumes."""

from __future__ import annotations

from dataclasses import dataclass

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
    """

    name: str
    arch: str
    lanes: int
    registers: int
    features: tuple[str, ...]

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
        if "aarch64" in triple or "arm64" in triple:
            return NEON
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
