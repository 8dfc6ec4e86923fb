"""The memory in which a program runs: the arena of temporaries, and the words by which Python and the runner talk."""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.cpu.binding import ARENA, SCALARS, STATUS, Bound
from runtime.cpu.runner_source import ADVANCE, CANCEL, CLOCK, CONTROL_WORDS, COUNTER, FAILED, TIMES
from runtime.store import aligned_empty

Array = np.ndarray[Any, Any]


def address_of(array: Array) -> int:
    """Where an array's data begin."""
    found: int = array.__array_interface__["data"][0]
    return found


class Arena:
    """Memory for temporaries, shared by the programs of one session, whose runs take turns. It only grows: to what
    the largest run so far needed.
    """

    def __init__(self) -> None:
        self._memory = aligned_empty((0,), np.dtype(np.uint8))
        self.address = 0

    def reserve(self, size: int) -> int:
        """Address of at least ``size`` bytes."""
        if size > self._memory.size or not self.address:
            self._memory = aligned_empty((max(size, 64),), np.dtype(np.uint8))
            self.address = int(self._memory.ctypes.data)
        return self.address


class Frame:
    """The addresses of a program's buffers (``bases``), and the control block of its runs
    (``words``).

    ``counter`` is the run counter, to which a step adds ``advance``; ``cancel`` the word that ends repeated steps.
    """

    def __init__(self, bases: Array, counter: Array, cancel: Array, advance: int) -> None:
        self.bases = bases
        self._control = np.zeros(CONTROL_WORDS, np.int64)
        self._kept = (counter, cancel)  # the control block holds their addresses alone
        self.words = self._control.data
        self.words[COUNTER], self.words[CANCEL] = address_of(counter), address_of(cancel)
        self.words[ADVANCE] = advance
        bases[STATUS] = address_of(self._control) + 8 * FAILED
        self.args = (address_of(bases), address_of(self._control))

    def place(self, bound: Bound, arena: Arena) -> None:
        """Get ready for runs of ``bound``."""
        self.bases[ARENA] = arena.reserve(bound.arena_size)
        self.bases[SCALARS] = bound.scalars_address
        self.words[FAILED] = 0

    def clock(self, clock: int, times: Array) -> None:
        """Have the runner read the clock at that address, and write to ``times`` from now on."""
        self.words[CLOCK], self.words[TIMES] = clock, address_of(times)
