"""Memory full of what no result is, so that a value that nobody wrote cannot look right by chance."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from typing import Any

import numpy as np

from runtime.cpu.frame import Arena

BYTE = 0x7F  # of floats, a huge number; of integers, a large one; of bools, true


def _fill(array: np.ndarray[Any, Any]) -> None:
    if array.nbytes and not array.dtype.hasobject:
        ctypes.memset(array.ctypes.data, BYTE, array.nbytes)


@contextlib.contextmanager
def poisoned() -> Iterator[None]:
    """Within it, new arrays and the arena of every run start out full of garbage."""
    empty, reserve = np.empty, Arena.reserve

    def filled(*args: Any, **options: Any) -> np.ndarray[Any, Any]:
        array = empty(*args, **options)
        _fill(array)
        return array

    def refilled(arena: Arena, size: int) -> int:
        address = reserve(arena, size)
        _fill(arena._memory)
        return address

    np.empty, Arena.reserve = filled, refilled  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        np.empty, Arena.reserve = empty, reserve  # type: ignore[method-assign]
