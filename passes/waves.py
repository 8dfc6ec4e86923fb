"""Waves: small calls that nobody in the run waits for, put off so that threads can share them.

Waking another thread costs as much as many a call takes, so a call of little work runs on one. But the updates of a
deep network's many small parameters are all independent of each other: waves of them run side by side, every call on
one thread, a wave in one launch. Results are the same bits: what a call computes does not depend on where it runs.
"""

from __future__ import annotations

from collections.abc import Sequence

from passes.program import Buffer, Call, loops_of

Steps = tuple[tuple[int, ...], ...]  # numbers of calls, in the order in which they run; steps are waves or chains


def not_awaited(calls: Sequence[Call]) -> list[bool]:
    """Which calls can be put off: no later one needs their results, and they cannot fail."""
    touched = {buffer: i for i, call in enumerate(calls) for buffer in (*call.reads, *call.writes)}
    return [all(touched[b] == i for b in call.writes) and not may_fail(call) for i, call in enumerate(calls)]


def arrange(
    calls: Sequence[Call], work: Sequence[float], small: float, enough: float, free: Sequence[bool] | None = None
) -> Steps:
    """The calls as steps. Those of less than ``small`` work whose results no later one needs are put off to the end, or
    until one comes that writes what they read, and run there in waves of ``enough`` work, one after the other: a
    thread that has just worked need not be woken. Less than ``small`` together stay where they are. ``free`` are what
    ``not_awaited`` finds, where it is known.
    """
    free = not_awaited(calls) if free is None else free
    waves: dict[int, list[tuple[int, ...]]] = {}  # by the number of the call before which they run
    waiting: list[int] = []
    read: set[Buffer] = set()
    for i, call in enumerate(calls):
        if read and not read.isdisjoint(call.writes):
            waves[i] = _waves(waiting, work, small, enough)
            waiting, read = [], set()
        if free[i] and work[i] < small:
            waiting.append(i)
            read.update(call.reads)
    waves[len(calls)] = _waves(waiting, work, small, enough)
    put_off = {i for together in waves.values() for wave in together for i in wave}
    steps: list[tuple[int, ...]] = []
    for i in range(len(calls) + 1):
        steps += waves.get(i, [])
        steps += [(i,)] if i < len(calls) and i not in put_off else []
    return tuple(steps)


def _waves(waiting: Sequence[int], work: Sequence[float], small: float, enough: float) -> list[tuple[int, ...]]:
    """``waiting`` in waves of ``enough`` work; the last has at least ``small``."""
    found: list[tuple[int, ...]] = []
    start, total = 0, 0.0
    for end, number in enumerate(waiting, 1):
        total += work[number]
        if total >= enough or (end == len(waiting) and total >= small):
            found.append(tuple(waiting[start:end]))
            start, total = end, 0.0
    return found


def may_fail(call: Call) -> bool:
    """Whether a kernel of the call may report a failure."""
    return any(loop.kernel.guards for loop in loops_of(call))


def one_by_one(calls: Sequence[Call]) -> Steps:
    """Every call a step of its own, in order."""
    return tuple((i,) for i in range(len(calls)))
