"""Coordinates: the horizontal place of each slot, keeping the order of the rows and the distances between neighbours.

U. Brandes and B. Koepf, "Fast and simple horizontal coordinate assignment", Graph Drawing 2001: slots are aligned
with their median neighbours into vertical blocks, once for each of four directions; each time the blocks are pushed
together; the place is the mean of the two middle ones of the four. Pushing together is a longest path over the
blocks, which avoids the mistake in the paper's own compaction (U. Brandes, J. Walter and J. Zink, erratum,
arXiv:2008.01252).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from passes.export.ordering import Slots

BOX_GAP, LINE_GAP = 26.0, 14.0


def assign(slots: Slots, widths: Sequence[float], weights: Sequence[float]) -> list[float]:
    """Centre of each slot; the leftmost border is at 0."""
    conflicts = _conflicts(slots)
    upper, lower = heaviest(slots, weights)
    candidates = []
    for downward in (True, False):
        for rightward in (True, False):
            near = upper if downward else lower
            candidates.append(_candidate(slots, widths, conflicts, near, downward, rightward))
    centres = _balanced(candidates, widths)
    left = min((x - w / 2 for x, w in zip(centres, widths, strict=True)), default=0.0)
    return [x - left for x in centres]


def separation(slots: Slots, widths: Sequence[float], a: int, b: int) -> float:
    """Least distance of the centres of two neighbours."""
    lines = (slots.cell[a] < 0) + (slots.cell[b] < 0)
    gap = LINE_GAP if lines else BOX_GAP
    return (widths[a] + widths[b]) / 2 + gap


def _conflicts(slots: Slots) -> set[tuple[int, int]]:
    """Segments that cross an inner one (between two dummies): inner ones are the long lines, and stay straight."""
    found: set[tuple[int, int]] = set()
    place = {s: i for row in slots.rows for i, s in enumerate(row)}
    for row in slots.rows[1:]:
        inner = [
            (place[u], i) for i, s in enumerate(row) for u in slots.upper[s] if slots.cell[s] < 0 and slots.cell[u] < 0
        ]
        if not inner:
            continue
        k, low = 0, -1
        for i, slot in enumerate(row):
            while k < len(inner) and inner[k][1] < i:
                low = max(low, inner[k][0])
                k += 1
            high = min((u for u, at in inner[k:] if at > i), default=1 << 60)
            for u in slots.upper[slot]:
                own = slots.cell[slot] < 0 and slots.cell[u] < 0
                if not own and (place[u] < low or place[u] > high):
                    found.add((u, slot))
    return found


def _candidate(
    slots: Slots, widths: Sequence[float], conflicts: set[tuple[int, int]], neighbours: Sequence[Sequence[int]],
    downward: bool, rightward: bool,
) -> list[float]:  # fmt: skip
    """Centres for one of the four directions."""
    rows = slots.rows if downward else slots.rows[::-1]
    rows = rows if rightward else [row[::-1] for row in rows]
    block, shift = _blocks(slots, rows, conflicts, neighbours, downward)
    shift = shift if rightward else [-s for s in shift]  # the mirror image is compacted, and turned back below
    centres = _compacted(slots, widths, rows, block, shift)
    return centres if rightward else [-x for x in centres]


def heaviest(slots: Slots, weights: Sequence[float]) -> tuple[list[list[int]], list[list[int]]]:
    """Of each slot's upper and lower neighbours, those on the heaviest path through the slot.

    A chain of ops thus runs straight down, with what feeds it from the side at its side.
    """
    above, below = list(weights), list(weights)
    for row in slots.rows:
        for slot in row:
            above[slot] += max((above[u] for u in slots.upper[slot]), default=0.0)
    for row in reversed(slots.rows):
        for slot in row:
            below[slot] += max((below[u] for u in slots.lower[slot]), default=0.0)
    upper = [[u for u in near if above[u] == max(above[v] for v in near)] for near in slots.upper]
    lower = [[u for u in near if below[u] == max(below[v] for v in near)] for near in slots.lower]
    return _agreed(upper, lower), _agreed(lower, upper)


def _agreed(near: Sequence[Sequence[int]], back: Sequence[Sequence[int]]) -> list[list[int]]:
    """``near`` without neighbours that would rather stand in line with another, who wants them too."""
    return [[n for n in near[s] if s in back[n] or not any(n in near[b] for b in back[n])] for s in range(len(near))]


def _blocks(
    slots: Slots,
    rows: Sequence[Sequence[int]],
    conflicts: set[tuple[int, int]],
    neighbours: Sequence[Sequence[int]],
    downward: bool,
) -> tuple[list[int], list[float]]:
    """The block of each slot, named by its first, and how far to the right of that one the slot is.

    A slot is aligned with the median neighbour where nothing crosses that.
    """
    place = {s: i for row in rows for i, s in enumerate(row)}
    block = list(range(len(neighbours)))
    shift = [0.0] * len(neighbours)
    for row in rows:
        last = -1
        for slot in row:
            near = sorted(neighbours[slot], key=place.__getitem__)
            middle = (len(near) - 1) / 2
            for m in dict.fromkeys((int(middle), int(middle + 0.5))):
                if not near or block[slot] != slot:
                    break
                other = near[m]
                segment = (other, slot) if downward else (slot, other)
                if last < place[other] and segment not in conflicts:
                    lean = slots.lean.get(segment, 0.0)
                    block[slot] = block[other]
                    shift[slot] = shift[other] + (lean if downward else -lean)
                    last = place[other]
    return block, shift


def _compacted(
    slots: Slots, widths: Sequence[float], rows: Sequence[Sequence[int]], block: Sequence[int], shift: Sequence[float]
) -> list[float]:
    """Blocks as far left as they go, then each as far right as its right neighbours allow without moving them."""
    right: dict[int, dict[int, float]] = {b: {} for b in dict.fromkeys(block)}
    left: dict[int, dict[int, float]] = {b: {} for b in right}
    for row in rows:
        for a, b in itertools.pairwise(row):
            apart = separation(slots, widths, a, b) + shift[a] - shift[b]
            u, v = block[a], block[b]
            right[u][v] = left[v][u] = max(right[u].get(v, apart), apart)
    waiting = {b: len(left[b]) for b in right}
    ready = [b for b in right if not waiting[b]]
    x: dict[int, float] = {}
    for b in ready:
        x[b] = max((x[u] + d for u, d in left[b].items()), default=0.0)
        for v in right[b]:
            waiting[v] -= 1
            if not waiting[v]:
                ready.append(v)
    for b in reversed(ready):
        if right[b]:
            x[b] = max(x[b], min(x[v] - d for v, d in right[b].items()))
    return [x[block[s]] + shift[s] for s in range(len(slots.cell))]


def _balanced(candidates: Sequence[list[float]], widths: Sequence[float]) -> list[float]:
    """The mean of the two middle candidates, each first shifted to the border of the narrowest."""
    if not widths:
        return []
    spans = []
    for centres in candidates:
        low = min(x - w / 2 for x, w in zip(centres, widths, strict=True))
        high = max(x + w / 2 for x, w in zip(centres, widths, strict=True))
        spans.append((high - low, low, high))
    _, low, high = min(spans)
    shifted = []
    for i, centres in enumerate(candidates):
        # Candidates alternate between pushed to the left and pushed to the right.
        move = low - spans[i][1] if i % 2 == 0 else high - spans[i][2]
        shifted.append([x + move for x in centres])
    middle = [sorted(values)[1:3] for values in zip(*shifted, strict=True)]
    return [(a + b) / 2 for a, b in middle]
