"""The memory plan: where each temporary lives in the arena, from the first step that writes it to the last that
reads it.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from passes.program import Buffer, Call, Program
from passes.waves import Steps

ALIGNMENT = 64
Spans = Mapping[Buffer, tuple[int, int]]
FEW = 128  # buffers: planned by size within a millisecond or two


@dataclass(frozen=True)
class MemoryPlan:
    """Arena offsets by buffer id, in bytes; the arena's size; and the largest sum of sizes that live at one time."""

    offsets: Mapping[int, int]
    size: int
    largest_live: int


def lifetimes(calls: Sequence[Call], steps: Steps) -> dict[Buffer, tuple[int, int]]:
    """First and last step that touches each temporary: all calls of one step may run at the same time."""
    found: dict[Buffer, tuple[int, int]] = {}
    for i, step in enumerate(steps):
        for call in (calls[number] for number in step):
            for buffer in temporaries(call):
                first, _ = found.get(buffer, (i, i))
                found[buffer] = (first, i)
    return found


def temporaries(call: Call) -> tuple[Buffer, ...]:
    """The buffers in the arena that ``call`` reads or writes."""
    return tuple(dict.fromkeys(b for b in (*call.reads, *call.writes) if b.kind in ("temp", "partial")))


class _FreeList:
    """Free pieces of the arena, sorted by offset; the best fit is taken, the arena grows at its end."""

    def __init__(self) -> None:
        self._free: list[tuple[int, int]] = []
        self.size = 0

    def take(self, size: int) -> int:
        fits = [(length, offset) for offset, length in self._free if length >= size]
        if fits:
            length, offset = min(fits)
            self._free.remove((offset, length))
            if length > size:
                bisect.insort(self._free, (offset + size, length - size))
            return offset
        if self._free and sum(self._free[-1]) == self.size:
            offset, _ = self._free.pop()
        else:
            offset = self.size
        self.size = offset + size
        return offset

    def give(self, offset: int, size: int) -> None:
        place = bisect.bisect(self._free, (offset, 0))
        if place < len(self._free) and self._free[place][0] == offset + size:
            size += self._free.pop(place)[1]
        if place and sum(self._free[place - 1]) == offset:
            place -= 1
            offset, before = self._free.pop(place)
            size += before
        self._free.insert(place, (offset, size))


def plan_memory(program: Program, sizes: Mapping[int, int], steps: Steps, few: int = FEW) -> MemoryPlan:
    """Offsets for all temporaries; ``sizes`` are bytes by buffer id, ``steps`` the calls in the order of a run.

    Programs of few buffers are planned largest first, each at the lowest place that is free for its whole life
    (Y. Pisarchyk and J. Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020, greedy by
    size), which comes close to the bound but takes quadratic time; longer ones by best fit along the schedule, in
    near-linear time.
    """
    return place_all(lifetimes(program.calls, steps), sizes, len(steps), few)


def place_all(spans: Spans, sizes: Mapping[int, int], steps: int, few: int = FEW) -> MemoryPlan:
    """The plan for temporaries with these lifetimes in so many steps."""
    rounded_sizes = {buffer: rounded(sizes[buffer.id]) for buffer in spans}
    largest = largest_live(spans, rounded_sizes)
    if len(spans) <= few:
        offsets, size = _by_size(spans, rounded_sizes)
    else:
        offsets, size = _along_schedule(spans, rounded_sizes, steps)
    return MemoryPlan(offsets, size, largest)


def largest_live(spans: Spans, sizes: Mapping[Buffer, int]) -> int:
    """The largest sum of sizes alive during one step: no plan can be smaller."""
    change: dict[int, int] = {}
    for buffer, (first, last) in spans.items():
        change[first] = change.get(first, 0) + sizes[buffer]
        change[last + 1] = change.get(last + 1, 0) - sizes[buffer]
    return max(accumulate((change[i] for i in sorted(change)), initial=0))


def _by_size(spans: Spans, sizes: Mapping[Buffer, int]) -> tuple[dict[int, int], int]:
    placed: list[tuple[int, int, int, int]] = []  # offset, end, first, last; sorted by offset
    offsets: dict[int, int] = {}
    for buffer in sorted(spans, key=lambda b: (-sizes[b], spans[b], b.id)):
        first, last = spans[buffer]
        offset = 0
        for start, end, other_first, other_last in placed:
            if other_first > last or other_last < first:
                continue
            if start - offset >= sizes[buffer]:
                break
            offset = max(offset, end)
        offsets[buffer.id] = offset
        bisect.insort(placed, (offset, offset + sizes[buffer], first, last))
    return offsets, max((end for _, end, _, _ in placed), default=0)


def _along_schedule(spans: Spans, sizes: Mapping[Buffer, int], calls: int) -> tuple[dict[int, int], int]:
    starting: dict[int, list[Buffer]] = {}
    ending: dict[int, list[Buffer]] = {}
    for buffer, (first, last) in spans.items():
        starting.setdefault(first, []).append(buffer)
        ending.setdefault(last, []).append(buffer)
    free = _FreeList()
    offsets: dict[int, int] = {}
    for i in range(calls):
        for buffer in sorted(starting.get(i, ()), key=lambda b: (-sizes[b], b.id)):
            offsets[buffer.id] = free.take(sizes[buffer])
        for buffer in ending.get(i, ()):
            free.give(offsets[buffer.id], sizes[buffer])
    return offsets, free.size


def rounded(size: int) -> int:
    """``size`` up to a multiple of the alignment; at least one unit, so that every buffer has an address of its own."""
    return max(ALIGNMENT, -(-size // ALIGNMENT) * ALIGNMENT)
