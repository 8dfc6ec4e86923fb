"""Loads the program runner, through the kernel cache, once per process."""

from __future__ import annotations

import ctypes
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import numpy as np
from numba import njit, types

from graphc.errors import DeviceError
from runtime.cpu import cache, kernel_files, machine_code, runner_source, threads
from runtime.cpu.binding import Bound
from runtime.cpu.frame import Arena, Frame, Request, Run, address_of
from runtime.cpu.objects import object_type
from runtime.cpu.runner_source import COLUMNS, FIRST

COST = 4  # kernels take about as long to compile
_lock = threading.Lock()
_run: Run | None = None


def program_runner() -> Run:
    """``run(request, feeds, outputs)``; starts the thread layer on first use."""
    global _run
    with _lock:
        if _run is None:
            threads.preload_tbb()
            numba.get_num_threads()  # has older Numbas start the thread layer, which code from disk takes for granted
            (compiled,) = cache.load_function("runner", str(runner_source.__file__), _compile).overloads.values()
            _start_threads(compiled.entry_point)
            _run = threads.guarded(compiled.entry_point)
        return _run


def runner_is_compiled() -> bool:
    """Whether the runner is in this process, or on disk."""
    if _run is not None:
        return True
    source = Path(str(runner_source.__file__)).read_text(encoding="utf-8")
    return bool(kernel_files.machine_code(kernel_files.path_of(cache.kernel_name("runner", source))))


def _compile(module: ModuleType, cached: bool) -> Any:
    flags = {**machine_code.FLAGS, "no_cfunc_wrapper": True}
    inner = {**flags, "no_cpython_wrapper": True}  # of what compiled functions alone call
    compiled = {name: njit(**inner)(getattr(module, name)) for name in ("prepare", "share")}
    compiled["launch"] = njit(parallel=True, **inner)(module.launch)  # alone, as it takes long to compile
    module.__dict__.update(compiled)
    signature = types.int64(types.int64, object_type, object_type)
    return njit(signature, nogil=True, cache=cached, **flags)(module.run)


def clock_address() -> int:
    """Address of the C library's ``clock_gettime``. ``DeviceError`` on a platform without it."""
    try:
        function = ctypes.CDLL(None).clock_gettime
    except (AttributeError, OSError, TypeError) as error:
        raise DeviceError("profile needs a C library with clock_gettime, and this platform has none") from error
    return int(ctypes.cast(function, ctypes.c_void_p).value or 0)


def _start_threads(run: Run) -> None:
    """One wave of no calls, so that the thread layer exists and has a name; and a check that NumPy's arrays look as
    the runner reads them. ``DeviceError`` if they do not.
    """
    table, word = np.array([[0, 0, 0, 2, 0]], np.int64).reshape(-1, COLUMNS), np.zeros(3, np.int64)
    bases, fed = np.zeros(FIRST + 1, np.int64), np.zeros((2, 3), np.float32)
    bound = Bound(table, word, np.zeros((0, 3), np.int64), word, 0, (), 0)
    request = Request(run, bound, Frame(bases, word, word, 0), Arena(), [(FIRST, fed.dtype, fed.shape)], [])
    wrong = (fed.astype(np.float64), fed[:, ::2], fed.reshape(3, 2), fed[0], fed.T, fed.view(np.recarray), None, 1.0)
    fits = request.run((fed,)) is not None and bases[FIRST] == address_of(fed)
    if not fits or any(request.run((array,)) is not None for array in wrong):
        raise DeviceError(f"graphc does not know how NumPy {np.__version__} lays its arrays out here; please report it")
    threads.started(str(numba.threading_layer()))
