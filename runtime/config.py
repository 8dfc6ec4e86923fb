"""What this installation of graphc runs on."""

from __future__ import annotations

import platform
import sys

from graphc._version import __version__


def devices() -> tuple[str, ...]:
    """The devices that a session can run on here, the fastest first."""
    return ("cpu", "reference")


def describe() -> dict[str, str]:
    """Versions, processor, threads, thread layer, BLAS and kernel cache, by name."""
    import llvmlite
    import llvmlite.binding
    import numba
    import numpy
    import scipy

    from runtime.cpu import blas, kernel_files, runner, threads

    runner.program_runner()
    folder = kernel_files.cache_folder()
    kernels = len(kernel_files.kernels(folder))
    return {
        "graphc": __version__,
        "python": sys.version.split()[0],
        "numpy": numpy.__version__,
        "scipy": scipy.__version__,
        "numba": f"{numba.__version__} (llvmlite {llvmlite.__version__})",
        "platform": platform.platform(),
        "processor": llvmlite.binding.get_host_cpu_name(),
        "devices": ", ".join(devices()),
        "threads": str(threads.available_threads()),
        "thread layer": str(threads.current_layer()),
        **blas.describe(),
        "kernel cache": f"{folder} ({kernels} kernels)",
    }


def show_config() -> None:
    """Print what graphc runs on: paste it into a report."""
    for name, value in describe().items():
        print(f"{name + ':':<14} {value}")
