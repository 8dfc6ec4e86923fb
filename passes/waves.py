"""Waves: small calls that nobody in the run waits for, put off until there are enough of them to share among threads.

Waking another thread costs as much as many a call takes, so a call of little work runs on one. But the updates of a
deep network's many small parameters are all independent of each other: each wave of them runs side by side, every call
on one thread, in one launch. Results are the same bits: what a call computes does not depend on where it runs.
"""

from __future__ import annotations

from collections.abc import Sequence

from passes.program import Buffer, Call, loops_of

Steps = tuple[tuple[int, ...], ...]  # numbers of calls, in the order in which they run; those of one step side by side


def arrange(calls: Sequence[Call], work: Sequence[float], small: float, enough: float) -> Steps:
    """The calls as steps. Those of less than ``small`` work whose results no later one needs are put off until
    ``enough`` work is together, or one comes that writes what they read. Less than ``small`` together stay where they
    are.
    """
    touched = {buffer: i for i, call in enumerate(calls) for buffer in (*call.reads, *call.writes)}
    waves: list[list[int]] = []
    wave: list[int] = []
    read: set[Buffer] = set()
    total = 0.0
    for i, call in enumerate(calls):
        if total >= enough or not read.isdisjoint(call.writes):
            waves += [wave] if total >= small else []
            wave, read, total = [], set(), 0.0
        if work[i] < small and all(touched[b] == i for b in call.writes) and not _may_fail(call):
            wave.append(i)
            read.update(call.reads)
            total += work[i]
    waves += [wave] if total >= small else []
    put_off = {i for wave in waves for i in wave}
    ends = {wave[-1]: tuple(wave) for wave in waves}
    return tuple(ends.get(i, (i,)) for i in range(len(calls)) if i in ends or i not in put_off)


def _may_fail(call: Call) -> bool:
    return any(loop.kernel.guards for loop in loops_of(call))


def one_by_one(calls: Sequence[Call]) -> Steps:
    """Every call a step of its own, in order."""
    return tuple((i,) for i in range(len(calls)))
