"""What computes matrix products: graphc's own kernel (fixed_kernels.py), or a BLAS library: SciPy's, which is always
there, or MKL where it is installed.

``GRAPHC_BLAS`` says which: ``scipy``, ``mkl``, or ``graphc``, with a library for small products that are too narrow
for the own kernel's tiles. ``auto`` is MKL if it is found and works, except on AMD's processors; else ``graphc``, where
the processor multiplies and adds in one operation. ``autotune`` chooses among all of them.

MKL is the wheel of the extra ``mkl``, or conda's, found in the environment's own folder. How many threads it uses is
said in the thread that calls, for as long as the call takes: what else uses MKL in this process keeps its settings. (A
sequential MKL would have to be chosen for the whole process, and for good.) SciPy's library has but one setting for
the whole process, which threads.py sees to.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import site
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
from numba.extending import get_cython_function_address

from graphc._version import __version__
from graphc.dtypes import DType
from graphc.errors import DeviceError, SessionError
from runtime.cpu import microkernel, mkl_probe

log = logging.getLogger("graphc.blas")
CHOICES = ("auto", "graphc", "scipy", "mkl")
OWN = "graphc"
PATIENCE = 60.0  # seconds for a process of its own to try MKL out
_DIRECT = ("SkylakeX", "Cooperlake", "SapphireRapids")  # OpenBLAS's names of its code for AVX-512
_NAMES = ("lib/libmkl_rt.so*", "lib/libmkl_rt*.dylib", "Library/bin/mkl_rt*.dll")


@dataclass(frozen=True)
class Library:
    """A BLAS library in this process, or graphc's own kernel under the name ``OWN``. ``set_threads`` is the address of
    the function by which a thread says how many threads its own calls may use, and gets what held before; 0 where there
    is none. ``direct`` says that it computes small products without rearranging their operands, in much less time.
    """

    name: str
    sgemm: int
    dgemm: int
    set_threads: int = 0
    path: str = ""
    direct: bool = False

    def gemm(self, dtype: DType) -> int:
        """The address of its product of matrices of float32 or float64."""
        return self.sgemm if dtype.itemsize == 4 else self.dgemm

    @property
    def own(self) -> bool:
        """Whether it is no library at all: graphc's own kernel computes the products."""
        return self.name == OWN


def libraries(*, all_usable: bool = False) -> tuple[Library, ...]:
    """What products call, as ``GRAPHC_BLAS`` has it: the first that suits one. With ``all_usable`` also the others that
    they may call.

    ``SessionError`` for another value of ``GRAPHC_BLAS``, ``DeviceError`` where MKL was asked for and does not work.
    """
    asked = os.environ.get("GRAPHC_BLAS", "") or "auto"
    if asked not in CHOICES:
        raise SessionError(f"GRAPHC_BLAS={asked} is not known; use one of {', '.join(CHOICES)}, or leave it unset")
    real = _blas(asked)
    if asked in ("scipy", "mkl"):
        return real
    own = (Library(OWN, 0, 0),) if asked == OWN or microkernel.fuses() else ()
    preferred = asked == "auto" and real[0].name == "mkl"
    found = (real[0], *own, *real[1:]) if preferred else (*own, *real)
    return found if all_usable else found[: 1 if preferred else 1 + len(own)]


def _blas(asked: str) -> tuple[Library, ...]:
    """BLAS libraries, the fastest first."""
    path = None if asked == "scipy" else _mkl_path()
    mkl = _mkl(path) if path is not None else f"there is none in {' or '.join(_folders())}"
    if isinstance(mkl, Library):
        if asked == "mkl":
            return (mkl,)
        return (_scipy(), mkl) if _is_amd() else (mkl, _scipy())
    if asked == "mkl":
        what = path or "MKL"
        raise DeviceError(
            f"GRAPHC_BLAS=mkl, but {what} cannot be used: {mkl}\n  install it (pip install 'graphc[mkl]'), or leave "
            f"GRAPHC_BLAS unset to do without it"
        )
    if path is not None:
        _warn_once(path, mkl)
    return (_scipy(),)


def describe() -> dict[str, str]:
    """What the products of a session call, with its version; and how many threads that uses."""
    try:
        used, found = libraries(), libraries(all_usable=True)
    except (DeviceError, SessionError) as error:
        return {"blas": f"none: {error}", "blas threads": "none"}
    more = [version(library) for library in found if library not in used]
    text = ", and for small narrow products ".join(version(library) for library in used)
    text += f"; with autotune also {', '.join(more)}" if more else ""
    others = [f"{_threads(library)} where others call {library.name}" for library in found if not library.own]
    return {"blas": text, "blas threads": ", ".join(["1 in each call of graphc's", *others])}


def version(library: Library) -> str:
    """What the library is, with its version."""
    if library.own:
        return f"graphc's own kernel {__version__}"
    if library.path:
        return f"mkl {mkl_probe.version(library.path)}"
    names = [f"{info['internal_api']} {info['version']}" for info in scipy_blas(_loaded())]
    return f"{', '.join(names) or 'BLAS'} (through SciPy)"


def scipy_blas(loaded: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """SciPy's among the libraries that threadpoolctl found: its own copy where wheels bundle one; otherwise the BLAS
    that the process shares, which is neither NumPy's own nor, if there is another, an MKL loaded beside it.
    """
    found = [info for info in loaded if info["user_api"] == "blas"]
    shared = [info for info in found if _owner(info) != "numpy"]
    beside = [info for info in shared if info["internal_api"] != "mkl"]
    return [info for info in found if _owner(info) == "scipy"] or beside or shared


def _owner(info: Mapping[str, Any]) -> str:
    """The package that bundles a library, or ""."""
    folder = os.path.basename(os.path.dirname(info["filepath"])).lower()
    return next((name for name in ("scipy", "numpy") if name in folder), "")


def _loaded() -> list[dict[str, Any]]:
    """The BLAS libraries and OpenMP runtimes in this process."""
    from threadpoolctl import threadpool_info

    found: list[dict[str, Any]] = threadpool_info()
    return found


def _threads(library: Library) -> int:
    """How many threads a call of the library uses where nothing else is said."""
    if library.path:
        return int(ctypes.CDLL(library.path).MKL_Get_Max_Threads())
    return max((int(info["num_threads"]) for info in scipy_blas(_loaded())), default=1)


@functools.cache
def _scipy() -> Library:
    module = "scipy.linalg.cython_blas"
    sgemm, dgemm = (int(get_cython_function_address(module, name)) for name in ("sgemm", "dgemm"))
    direct = any(info.get("architecture") in _DIRECT for info in scipy_blas(_loaded()))
    return Library("scipy", sgemm, dgemm, direct=direct)


def _is_amd() -> bool:
    name: str = llvm.get_host_cpu_name()
    return name.startswith(("znver", "bdver", "btver", "amdfam"))


# MKL.


def _folders() -> list[str]:
    """Where wheels and conda put libraries in this environment, and in the user's own."""
    schemes = [sysconfig.get_path("data")]
    if site.ENABLE_USER_SITE:
        schemes.append(sysconfig.get_path("data", sysconfig.get_preferred_scheme("user")))
    return list(dict.fromkeys(schemes))


def _mkl_path() -> str | None:
    """The newest MKL of this environment, or None."""
    found = [str(path) for folder in _folders() for pattern in _NAMES for path in Path(folder).glob(pattern)]
    return max(found, key=lambda path: (len(path), path), default=None)


@functools.cache
def _mkl(path: str) -> Library | str:
    """MKL, or why it cannot be used."""
    try:
        why = _other_openmp(path) or _tried_out(path) or mkl_probe.fault(path)
        if why:
            return why
        library = ctypes.CDLL(path)
        functions = (library.sgemm_, library.dgemm_, library.MKL_Set_Num_Threads_Local)
    except (OSError, AttributeError, subprocess.SubprocessError) as error:
        return f"{type(error).__name__}: {error}"
    sgemm, dgemm, set_threads = (int(ctypes.cast(f, ctypes.c_void_p).value or 0) for f in functions)
    log.info("MKL %s is %s", mkl_probe.version(path), path)
    return Library("mkl", sgemm, dgemm, set_threads, path)


def _tried_out(path: str) -> str:
    """What a process of its own finds wrong with MKL, or ""."""
    command = [sys.executable, "-I", "-S", str(mkl_probe.__file__), path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    said = " ".join((done.stderr + done.stdout).split())
    return "" if done.returncode == 0 else f"tried out, it ended with {done.returncode}: {said[-400:]}"


def _other_openmp(path: str) -> str:
    """Another copy of the OpenMP runtime that MKL brings, which ends a process that has two of them; or ""."""
    own = os.path.realpath(os.path.dirname(path))
    for info in _loaded():
        if info["user_api"] == "openmp" and info["prefix"] in ("libiomp", "libomp"):
            folder = os.path.realpath(os.path.dirname(info["filepath"]))
            if folder != own:
                return f"this process has loaded {info['filepath']}, and would be ended by a second OpenMP of that kind"
    return ""


@functools.cache
def _warn_once(path: str, why: str) -> None:
    log.warning("%s cannot be used, and products call SciPy's BLAS instead: %s", path, why)
