"""What Numba may use of the processor that it compiles for."""

from __future__ import annotations

import functools

import llvmlite.binding as llvm
import numba


@functools.cache
def features() -> frozenset[str]:
    """Instruction sets, by LLVM's names; none where Numba is told to compile for another processor, or to do without
    AVX, and where LLVM cannot say.
    """
    if numba.config.CPU_NAME or numba.config.CPU_FEATURES is not None or not numba.config.ENABLE_AVX:
        return frozenset()
    try:
        return frozenset(name for name, there in llvm.get_host_cpu_features().items() if there)
    except RuntimeError:
        return frozenset()
