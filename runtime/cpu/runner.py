"""Loads the program runner, through the kernel cache, once per process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from runtime.cpu import cache, threads

CALL = 0
COLUMNS = 8
_lock = threading.Lock()
_run: Callable[..., int] | None = None


def program_runner() -> Callable[..., int]:
    """``run(table, count, words, patches, patch_count, bases, status, scratch)``; starts the thread layer on first
    use.
    """
    global _run
    with _lock:
        if _run is None:
            threads.preload_tbb()
            module = _load()
            _run = module.run
            _start_threads(_run)
        return _run


def _load() -> ModuleType:
    source = (Path(__file__).parent / "runner_source.py").read_text(encoding="utf-8")
    name = cache.kernel_name("runner", source)
    return cache.load_module(name, source)


def _start_threads(run: Callable[..., int]) -> None:
    """One launch of nothing, so that the thread layer exists and has a name."""
    import numba

    table = np.zeros((1, COLUMNS), np.int64)
    words = np.zeros(1, np.int64)
    empty = cache.kernel_cache.get(*_nothing(), cache.Counters())
    table[0] = [CALL, empty.address, 0, 2, 2, 0, 0, 0]
    run(_address(table), 1, _address(words), 0, 0, 0, _address(words), 0)
    threads.started(str(numba.threading_layer()))


def _nothing() -> tuple[str, str]:
    text = "def {name}(args, scratch, lo, hi):\n    pass\n"
    name = cache.kernel_name("nothing", text)
    return name, text.format(name=name)


def _address(array: np.ndarray[Any, Any]) -> int:
    return int(array.ctypes.data)
