"""Memory full of what no result is, so that a value that nobody wrote cannot look right by chance."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from typing import Any

import numpy as np

from runtime.cpu import frame
from runtime.cpu.frame import Request

BYTE = 0x7F  # of floats, a huge number; of integers, a large one; of bools, true


def _fill(array: np.ndarray[Any, Any]) -> None:
    if array.nbytes and not array.dtype.hasobject:
        ctypes.memset(array.ctypes.data, BYTE, array.nbytes)


@contextlib.contextmanager
def poisoned() -> Iterator[None]:
    """Within it, new arrays and the arena of every run start out full of garbage."""
    empty, call = np.empty, Request.run

    def filled(*args: Any, **options: Any) -> np.ndarray[Any, Any]:
        array = empty(*args, **options)
        _fill(array)
        return array

    def run(request: Request, *args: Any) -> Any:
        _fill(request.arena.memory)
        return call(request, *args)

    np.empty = frame._empty = filled  # type: ignore[assignment]
    Request.run = run  # type: ignore[method-assign]
    try:
        yield
    finally:
        np.empty = frame._empty = empty
        Request.run = call  # type: ignore[method-assign]
