"""Ordering: the cells of each row from left to right, with few crossings.

K. Sugiyama, S. Tagawa and M. Toda, "Methods for visual understanding of hierarchical system structures", IEEE Trans.
Syst. Man Cybern. 11, 1981: long arrows become chains of dummies, one a row; each row is sorted by the mean place of
its neighbours in the row before, sweeping down and up; then neighbours that cross less the other way round change
places.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from passes.export.cells import Arrow, Cell

SWEEPS = 12
_EXCHANGE_LIMIT = 6000  # slots; above that, exchanging neighbours takes longer than it is worth


@dataclass(slots=True)
class Slots:
    """One band as a proper layered graph: every segment joins neighbouring rows.

    A slot is a cell or a dummy (``cell`` is -1). ``paths`` gives the slots of each arrow, source to target. ``lean``
    is by how much the lower slot of a segment is to the right of the upper one when the segment is vertical, if not 0.
    """

    cell: list[int] = field(default_factory=list)
    row: list[int] = field(default_factory=list)
    upper: list[list[int]] = field(default_factory=list)
    lower: list[list[int]] = field(default_factory=list)
    paths: dict[int, list[int]] = field(default_factory=dict)
    rows: list[list[int]] = field(default_factory=list)
    lean: dict[tuple[int, int], float] = field(default_factory=dict)

    def add(self, cell: int, row: int) -> int:
        self.cell.append(cell)
        self.row.append(row)
        self.upper.append([])
        self.lower.append([])
        return len(self.cell) - 1

    def join(self, a: int, b: int, at_a: float = 0.0, at_b: float = 0.0) -> None:
        """A segment between slots of neighbouring rows, once; it meets them that far to the right of their centres."""
        high, low, lean = (a, b, at_a - at_b) if self.row[a] < self.row[b] else (b, a, at_b - at_a)
        if low not in self.lower[high]:
            self.lower[high].append(low)
            self.upper[low].append(high)
            if lean:
                self.lean[high, low] = lean


def build(
    band: int, cells: Sequence[Cell], arrows: Sequence[Arrow], rows: Sequence[int], loose: Sequence[bool]
) -> Slots:
    """The slots of ``band``. Arrows of one key share their dummies, so that a value read far away is one long line."""
    slots = Slots()
    slot_of = {c: slots.add(c, rows[c]) for c, cell in enumerate(cells) if cell.band == band}
    step = 1 if band == 0 else -1
    chains: dict[tuple[int, Hashable], list[int]] = {}
    for i, arrow in enumerate(arrows):
        if loose[i] or cells[arrow.source].band != band:
            continue
        chain = chains.setdefault((arrow.source, arrow.key), [slot_of[arrow.source]])
        length = abs(rows[arrow.target] - rows[arrow.source])
        out = _offset(cells[arrow.source], cells[arrow.source].leave.get(arrow.key))
        into = _offset(cells[arrow.target], cells[arrow.target].enter.get(arrow.key))
        while len(chain) < length:
            chain.append(slots.add(-1, rows[arrow.source] + step * len(chain)))
            slots.join(chain[-2], chain[-1], out if len(chain) == 2 else 0.0)
        slots.join(chain[length - 1], slot_of[arrow.target], out if length == 1 else 0.0, into)
        slots.paths[i] = [*chain[:length], slot_of[arrow.target]]
    return slots


def _offset(cell: Cell, port: float | None) -> float:
    return 0.0 if port is None else port - cell.width / 2


def order(slots: Slots, count: int) -> None:
    """Fill ``slots.rows``: for each of ``count`` rows its slots from left to right. Deterministic."""
    best: list[list[int]] = []
    fewest = -1
    for from_bottom in (False, True):
        rows = _first_order(slots, count, from_bottom)
        crossings = count_crossings(slots, rows)
        if fewest < 0 or crossings < fewest:
            best, fewest = rows, crossings
        for sweep in range(SWEEPS):
            if not fewest:
                break
            rows = _sweep(slots, rows, downward=sweep % 2 == 0)
            if len(slots.cell) <= _EXCHANGE_LIMIT:
                _exchange(slots, rows)
            crossings = count_crossings(slots, rows)
            if crossings < fewest:
                best, fewest = [list(row) for row in rows], crossings
    slots.rows = best


def _first_order(slots: Slots, count: int, from_bottom: bool) -> list[list[int]]:
    """Slots in the order in which a depth-first search meets them: without crossings for a rooted tree."""
    rows: list[list[int]] = [[] for _ in range(count)]
    seen = [False] * len(slots.cell)
    ahead, behind = (slots.upper, slots.lower) if from_bottom else (slots.lower, slots.upper)
    roots = sorted(
        range(len(slots.cell)), key=lambda s: (bool(behind[s]), -slots.row[s] if from_bottom else slots.row[s], s)
    )
    for root in roots:
        stack = [root]
        while stack:
            slot = stack.pop()
            if seen[slot]:
                continue
            seen[slot] = True
            rows[slots.row[slot]].append(slot)
            stack += [s for s in reversed(behind[slot]) if not seen[s]]
            stack += [s for s in reversed(ahead[slot]) if not seen[s]]
    return rows


def _sweep(slots: Slots, rows: list[list[int]], downward: bool) -> list[list[int]]:
    """Sort each row by the mean place of its neighbours in the row swept before."""
    result: list[list[int]] = [[] for _ in rows]
    neighbours = slots.upper if downward else slots.lower
    place = [0.0] * len(slots.cell)
    for r in range(len(rows)) if downward else reversed(range(len(rows))):
        row = rows[r]
        keys = {}
        for position, slot in enumerate(row):
            near = neighbours[slot]
            keys[slot] = sum(place[n] for n in near) / len(near) if near else (position + 0.5) / len(row)
        result[r] = sorted(row, key=keys.__getitem__)
        for position, slot in enumerate(result[r]):
            place[slot] = (position + 0.5) / len(row)
    return result


def _exchange(slots: Slots, rows: list[list[int]], passes: int = 4) -> None:
    """Exchange neighbours in a row while that removes crossings."""
    place = [0] * len(slots.cell)
    for row in rows:
        for position, slot in enumerate(row):
            place[slot] = position
    for _ in range(passes):
        changed = False
        for row in rows:
            for i in range(len(row) - 1):
                a, b = row[i], row[i + 1]
                gain = 0
                for side in (slots.upper, slots.lower):
                    if side[a] and side[b]:
                        left, right = sorted(place[s] for s in side[a]), sorted(place[s] for s in side[b])
                        gain += _crossings(left, right) - _crossings(right, left)
                if gain > 0:
                    row[i], row[i + 1] = b, a
                    place[a], place[b] = i + 1, i
                    changed = True
        if not changed:
            return


def _crossings(left: Sequence[int], right: Sequence[int]) -> int:
    """Crossings between the segments of two neighbours, given the sorted places of their ends."""
    return sum(len(left) - bisect_right(left, end) for end in right)


def count_crossings(slots: Slots, rows: Sequence[Sequence[int]]) -> int:
    """Number of pairs of segments that cross."""
    place = [0] * len(slots.cell)
    for row in rows:
        for position, slot in enumerate(row):
            place[slot] = position
    total = 0
    for row in rows:
        ends: list[int] = []
        for slot in row:
            targets = sorted(place[s] for s in slots.lower[slot])
            total += sum(len(ends) - bisect_right(ends, t) for t in targets)
            for target in targets:
                insort(ends, target)
    return total
