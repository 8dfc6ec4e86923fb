"""Work that is shared among threads, and taken in chains, however small it is: random programs are small, and what goes
wrong only in large ones would not be found.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from math import inf

from runtime.cpu import grid

LIMITS = {"PARALLEL_WORK": 1.0, "CHAIN_WORK": -inf}
SHARED = f"{', '.join(f'grid.{name}' for name in LIMITS)} = {', '.join(map(str, LIMITS.values()))}  # share all work"


@contextlib.contextmanager
def shared() -> Iterator[None]:
    """Within it, programs are cut for threads as if all work were worth it."""
    usual = {name: getattr(grid, name) for name in LIMITS}
    try:
        for name, limit in LIMITS.items():
            setattr(grid, name, limit)
        yield
    finally:
        for name, limit in usual.items():
            setattr(grid, name, limit)
