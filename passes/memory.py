"""The memory plan: where each temporary lives in the arena, from the first call that writes it to the last that
reads it.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from passes.program import Buffer, Call, Program

ALIGNMENT = 64


@dataclass(frozen=True)
class MemoryPlan:
    """Arena offsets by buffer id, in bytes; the arena's size; and the largest sum of sizes that live at one time."""

    offsets: Mapping[int, int]
    size: int
    largest_live: int


def lifetimes(calls: Sequence[Call]) -> dict[Buffer, tuple[int, int]]:
    """First and last call that touches each temporary."""
    found: dict[Buffer, tuple[int, int]] = {}
    for i, call in enumerate(calls):
        for buffer in (*call.reads, *call.writes):
            if buffer.kind in ("temp", "partial"):
                first, _ = found.get(buffer, (i, i))
                found[buffer] = (first, i)
    return found


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


def plan_memory(program: Program, sizes: Mapping[int, int]) -> MemoryPlan:
    """Offsets for all temporaries; ``sizes`` are bytes by buffer id. Best fit over the schedule, in near-linear
    time.
    """
    spans = lifetimes(program.calls)
    starting: dict[int, list[Buffer]] = {}
    ending: dict[int, list[Buffer]] = {}
    for buffer, (first, last) in spans.items():
        starting.setdefault(first, []).append(buffer)
        ending.setdefault(last, []).append(buffer)
    free = _FreeList()
    offsets: dict[int, int] = {}
    live = largest = 0
    for i in range(len(program.calls)):
        for buffer in sorted(starting.get(i, ()), key=lambda b: (-sizes[b.id], b.id)):
            size = rounded(sizes[buffer.id])
            offsets[buffer.id] = free.take(size)
            live += size
        largest = max(largest, live)
        for buffer in ending.get(i, ()):
            size = rounded(sizes[buffer.id])
            free.give(offsets[buffer.id], size)
            live -= size
    return MemoryPlan(offsets, free.size, largest)


def rounded(size: int) -> int:
    """``size`` up to a multiple of the alignment; at least one unit, so that every buffer has an address of its own."""
    return max(ALIGNMENT, -(-size // ALIGNMENT) * ALIGNMENT)
