"""Numba's thread layer, and the thread count of the BLAS library.

One thread pool does all the work: Numba's. BLAS, where products call it, is called on single blocks from its threads,
so BLAS itself is told to use one thread while a session that uses it is open, and gets its own number back after the
last one closes.
"""

from __future__ import annotations

import contextlib
import ctypes
import glob
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from graphc.errors import SessionError
from runtime.cpu import blas

_lock = threading.Lock()
_serial = threading.RLock()  # for the workqueue layer, which aborts the process when two threads launch at once
_layer: str | None = None
_pid = 0


def available_threads() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def preload_tbb() -> None:
    """Make pip's TBB known to the loader: Numba finds the library only when it is loaded already."""
    pattern = os.path.join("lib", "libtbb.so.12")
    for folder in {sys.prefix, sys.base_prefix, os.path.dirname(os.path.dirname(os.path.dirname(os.__file__)))}:
        for file in glob.glob(os.path.join(folder, pattern)):
            with contextlib.suppress(OSError):
                ctypes.CDLL(file, mode=ctypes.RTLD_GLOBAL)
                return


def started(layer: str) -> None:
    """Note that the thread layer is running in this process."""
    global _layer, _pid
    with _lock:
        _layer, _pid = layer, os.getpid()


def current_layer() -> str | None:
    """Name of the thread layer that runs ("tbb", "omp", "workqueue"), or None before the first launch."""
    return _layer


def guarded(run: Callable[..., int]) -> Callable[..., int]:
    """The program runner, for the layer that has started: refuses a launch that would hang or kill a forked child, and
    serialises where it must.
    """
    if _layer == "tbb":
        return run

    def launch(*args: Any) -> int:
        if os.getpid() != _pid:
            raise SessionError(
                f"this process was forked after graphc had started its {_layer} threads, which do not survive a fork; "
                f"use the 'spawn' start method (multiprocessing.set_start_method('spawn')), or open the first session "
                f"in the child"
            )
        with _serial if _layer == "workqueue" else contextlib.nullcontext():
            return run(*args)

    return launch


class _BlasThreads:
    """Counts the users of single-threaded BLAS; the first sets it, the last restores what was set before."""

    def __init__(self) -> None:
        self._users = 0
        self._lock = threading.RLock()  # a dropped session may be collected, and released, inside acquire
        self._limit: Any = None

    def acquire(self) -> None:
        with self._lock:
            self._users += 1
            if self._users == 1:
                import scipy.linalg.cython_blas  # noqa: F401  # the library must be loaded to be found
                from threadpoolctl import ThreadpoolController

                controller = ThreadpoolController()
                mine = [info["filepath"] for info in blas.scipy_blas(controller.info())]
                if mine:
                    self._limit = controller.select(filepath=mine).limit(limits=1)
                    self._limit.__enter__()

    def release(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0 and self._limit is not None:
                self._limit.__exit__(None, None, None)
                self._limit = None


blas_threads = _BlasThreads()
