"""The memory in which a program runs: the arena of temporaries, and the words by which Python and the runner talk."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.dtypes import DType
from runtime.cpu import runner_source as words
from runtime.cpu.binding import Bound
from runtime.cpu.fixed_kernels import PANEL_BYTES, SCRATCH_BYTES, SHARED_BYTES
from runtime.store import aligned_empty

Array = np.ndarray[Any, Any]
HEADER = object.__basicsize__  # of every Python object; NumPy's members follow
ITEMS = tuple.__basicsize__  # of what comes before the addresses of a tuple's items
Run = Callable[[int, tuple[Any, ...], tuple[Any, ...]], int]
PAUSE = 0.05  # seconds of repeated steps between two looks at Python's signals


def address_of(array: Array) -> int:
    """Where an array's data begin."""
    found: int = array.__array_interface__["data"][0]
    return found


class Arena:
    """Memory for temporaries, shared by the programs of one session, whose runs take turns. It only grows: to what
    the largest run so far needed. Beside it, scratch memory for each of so many ``threads``, once a kernel needs it.
    """

    def __init__(self, threads: int = 1) -> None:
        self._threads = threads
        self.scratch_size = threads * SCRATCH_BYTES + SHARED_BYTES
        self._scratch = aligned_empty((0,), np.dtype(np.uint8))
        self.address = np.zeros(1, np.int64)  # read by the runner
        self.memory = aligned_empty((0,), np.dtype(np.uint8))
        self.reserve(64)

    def reserve(self, size: int) -> None:
        """Have at least ``size`` bytes."""
        if size > self.memory.size:
            self.memory = aligned_empty((size,), np.dtype(np.uint8))
            self.address[0] = self.memory.ctypes.data

    def scratch(self) -> int:
        """Where the threads' scratch memory begins: ``SCRATCH_BYTES`` each, and then what they share."""
        if not self._scratch.size:
            self._scratch = aligned_empty((self.scratch_size,), np.dtype(np.uint8))
            shared = self._threads * SCRATCH_BYTES
            self._scratch[shared:].view(np.int64)[0] = 0  # blocks done
            for thread in range(self._threads):
                place = thread * SCRATCH_BYTES + PANEL_BYTES
                self._scratch[place:].view(np.int64)[0] = address_of(self._scratch) + shared
        return address_of(self._scratch)


class Frame:
    """The addresses of a program's buffers (``bases``), and the control block of its runs
    (``words``).

    ``counter`` is the run counter, to which a step adds ``advance``; ``cancel`` the word that ends repeated steps.
    """

    def __init__(self, bases: Array, counter: Array, cancel: Array, advance: int) -> None:
        self.bases = bases
        self._control = np.zeros(words.CONTROL_WORDS, np.int64)
        self._kept = (counter, cancel)  # the control block holds their addresses alone
        self.cancel = cancel
        self.words = self._control.data
        self.words[words.COUNTER], self.words[words.CANCEL] = address_of(counter), address_of(cancel)
        self.words[words.ADVANCE] = advance
        bases[words.STATUS] = address_of(self._control) + 8 * words.FAILED
        self.args = (address_of(bases), address_of(self._control))

    def clock(self, clock: int, times: Array) -> None:
        """Have the runner read the clock at that address, and write to ``times`` from now on."""
        self.words[words.CLOCK], self.words[words.TIMES] = clock, address_of(times)


class Request:
    """A program at known extents, to be run on arrays: the runner checks these and takes their addresses itself.

    ``feeds`` and ``outputs`` have for each array the base that gets its address (-1 for none), dtype and shape.

    ``native(address, feeds, outputs)`` is a run, ``FINISHED`` what it returns of one that fits, ``fed`` the number of
    arrays it takes. ``control[DONE]`` counts whole runs of the program. ``single`` has shape and dtype of the array
    fetched, if it is one; ``plain`` says that all have axes.
    """

    FINISHED = words.FINISHED
    DONE = words.DONE

    def __init__(
        self, run: Run, bound: Bound, frame: Frame, arena: Arena,
        feeds: Sequence[tuple[int, DType, tuple[int, ...]]], outputs: Sequence[tuple[int, DType, tuple[int, ...]]],
    ) -> None:  # fmt: skip
        arena.reserve(bound.arena_size)
        self.bound = bound
        self.native = run
        self._frame = frame
        self.control = frame.words
        self.fed = len(feeds)
        self._outputs = [(shape, dtype) for _, dtype, shape in outputs]
        self.plain = all(shape for shape, _ in self._outputs)
        self.single = self._outputs[0] if len(self._outputs) == 1 else None
        checked = [n for base, dtype, shape in feeds for n in (base, id(dtype), len(shape), *shape)]
        expected = np.array([*checked, *(base for base, _, _ in outputs)], np.int64)
        request = np.array([
            *bound.args, *frame.args, address_of(arena.address), bound.scalars_address, 1, len(feeds), len(outputs),
            address_of(expected), HEADER, ITEMS, id(np.ndarray), 0,
            arena.scratch() if bound.scratch else 0, SCRATCH_BYTES,
        ], np.int64)  # fmt: skip
        self.arena = arena
        self._kept = (expected, feeds)
        self.address = address_of(request)
        self._words = request.data

    def run(self, feeds: tuple[Any, ...], steps: int = 1) -> Sequence[Any] | None:
        """Outputs of the last of ``steps`` runs, each in an array of its own; None, and nothing has changed, if a feed
        is not an array of the expected dtype and shape, contiguous and aligned, or a kernel has failed.
        """
        if len(feeds) != self.fed:
            return None
        outputs = self.results()
        run = self.native if steps == 1 else self._repeated(steps)
        return self.fetched(outputs) if run(self.address, feeds, outputs) == words.FINISHED else None

    def run_each(self, feeds: tuple[tuple[Any, ...], ...]) -> list[Sequence[Any]]:
        """Outputs of a run with each of ``feeds``, in order; fewer where one does not fit, or a kernel has failed: from
        there on nothing has run.
        """
        outputs = tuple([self.results() for _ in feeds])
        before = self._frame.words[words.DONE]
        self._words[words.STEPS], self._words[words.EACH] = len(feeds), 1
        try:
            self.native(self.address, feeds, outputs)
        finally:
            self._words[words.STEPS], self._words[words.EACH] = 1, 0
        return [self.fetched(each) for each in outputs[: self._frame.words[words.DONE] - before]]

    def results(self) -> tuple[Array, ...]:
        """Arrays for what a run fetches."""
        return tuple([np.empty(shape, dtype) for shape, dtype in self._outputs])

    def fetched(self, outputs: tuple[Array, ...]) -> Sequence[Any]:
        """Outputs as they are fetched: numbers instead of arrays without axes."""
        return outputs if self.plain else [array[()] for array in outputs]

    def _repeated(self, steps: int) -> Run:
        """A runner that makes native calls of about ``PAUSE`` seconds, between which Python sees signals."""

        def run(*args: Any) -> int:
            left, calls, status = steps, 1, words.FINISHED
            try:
                while left and status == words.FINISHED and not self._frame.cancel:
                    calls, start = min(calls, left), time.perf_counter()
                    self._words[words.STEPS] = calls
                    status = self.native(*args)
                    left -= calls
                    spent = max(time.perf_counter() - start, 1e-9)
                    calls = max(1, min(10 * calls, int(calls * PAUSE / spent)))
            finally:
                self._words[words.STEPS] = 1
            return status

        return run
