"""Loads the program runner, through the kernel cache, once per process."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numba
import numpy as np
from numba import njit, types

from graphc.errors import DeviceError
from runtime.cpu import cache, runner_source, threads
from runtime.cpu.runner_source import CANCEL, COLUMNS, CONTROL_WORDS, COUNTER

_lock = threading.Lock()
_run: Callable[..., int] | None = None


def program_runner() -> Callable[..., int]:
    """``run(table, count, words, patches, patch_count, bases, control, steps)``; starts the thread layer on first
    use.
    """
    global _run
    with _lock:
        if _run is None:
            threads.preload_tbb()
            _run = cache.load_function("runner", str(runner_source.__file__), _compile)
            _start_threads(_run)
        return _run


def _compile(module: ModuleType, cached: bool) -> Any:
    signature = types.int64(*[types.int64] * 8)
    return njit(signature, parallel=True, nogil=True, cache=cached, error_model="numpy")(module.run)


def clock_address() -> int:
    """Address of the C library's ``clock_gettime``. ``DeviceError`` on a platform without it."""
    try:
        function = ctypes.CDLL(None).clock_gettime
    except (AttributeError, OSError, TypeError) as error:
        raise DeviceError("profile needs a C library with clock_gettime, and this platform has none") from error
    return int(ctypes.cast(function, ctypes.c_void_p).value or 0)


def _start_threads(run: Callable[..., int]) -> None:
    """One launch of nothing, so that the thread layer exists and has a name."""
    table, words = np.zeros((1, COLUMNS), np.int64), np.zeros(1, np.int64)
    control = np.zeros(CONTROL_WORDS, np.int64)
    control[[CANCEL, COUNTER]] = words.ctypes.data
    text = "def {name}(args, scratch, lo, hi):\n    pass\n"
    name = cache.kernel_name("nothing", text)
    empty = cache.kernel_cache.get(name, lambda: text.format(name=name), cache.Counters())
    table[0] = [empty.address, 0, 2, 2, 0]
    run(table.ctypes.data, 1, words.ctypes.data, 0, 0, 0, control.ctypes.data, 1)
    threads.started(str(numba.threading_layer()))
