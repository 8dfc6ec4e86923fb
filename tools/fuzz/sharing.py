"""Work that is shared among threads, in waves, in chains, and along the sums of products, however small it is: random
programs are small, and what goes wrong only in large ones would not be found.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from math import inf

from runtime.cpu import grid, products

IMPORTS = "from runtime.cpu import grid, products"
LIMITS = (
    (grid, "PARALLEL_WORK", 1.0), (grid, "CHAIN_WORK", -inf), (grid, "WAVE_WORK", 2000.0), (products, "DEEP_WORK", 1.0)
)  # fmt: skip
SHARED = "; ".join(f"{module.__name__.rpartition('.')[2]}.{name} = {limit}" for module, name, limit in LIMITS)


@contextlib.contextmanager
def shared() -> Iterator[None]:
    """Within it, programs are cut for threads as if all work were worth it."""
    usual = [(module, name, getattr(module, name)) for module, name, _ in LIMITS]
    try:
        for module, name, limit in LIMITS:
            setattr(module, name, limit)
        yield
    finally:
        for module, name, value in usual:
            setattr(module, name, value)
