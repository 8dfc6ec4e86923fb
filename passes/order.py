"""An order of units that stays topological while edges are added (after M. Bender, J. Fineman, S. Gilbert and
R. Tarjan, "A New Approach to Incremental Cycle Detection and Related Problems", ACM Trans. Algorithms 12, 2016).

Where an edge goes against the order, its ends are searched from in turns, and what the search that ends first has found
moves past the other end: a sink goes before its reader at no cost, however much follows that. A question whose answer
would need two long searches is answered no: the caller then goes without the edge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

LIMIT = 64  # units visited from one end before a search is given up
GAP = 1 << 128  # between the places of neighbours: some hundred moves to one place before all are numbered anew


class TopologicalOrder:
    """Units numbered from 0; their places grow from producers to readers."""

    def __init__(self) -> None:
        self._place: list[int] = []
        self._next: dict[int | None, int | None] = {None: None}  # a circle through None: the first is next to it
        self._previous: dict[int | None, int | None] = {None: None}
        self._after: list[set[int]] = []
        self._before: list[set[int]] = []

    def add(self, readers: Iterable[int], behind: int | None = None) -> int:
        """A new unit that is read by ``readers``. It goes first, or right behind a unit that all of them follow, which
        is all that it reads.
        """
        unit = len(self._place)
        self._place.append(0)
        self._after.append(set())
        self._before.append(set())
        self._insert([unit], behind)
        self._link(unit, readers)
        if behind is not None:
            self._link(behind, [unit])
        return unit

    def by_place(self, units: Iterable[int]) -> list[int]:
        """``units``, first ones first."""
        return sorted(units, key=self._place.__getitem__)

    # Edges.

    def connect(self, unit: int, readers: Iterable[int]) -> bool:
        """Let ``readers`` read from ``unit``, unless that closes a cycle (or it would take too long to tell)."""
        readers = list(readers)
        for reader in self.by_place(readers):
            if self._place[reader] < self._place[unit] and not self._reorder(unit, reader):
                return False
        self._link(unit, readers)
        return True

    def contract(self, first: int, second: int, *, keep_both: bool = False) -> bool:
        """Let ``second`` absorb ``first``; or, with ``keep_both``, let ``first`` wait for all that ``second`` does.
        False where a third unit stands between them (or it would take too long to tell): no edge is added then.
        """
        ahead = self._before[second] - {first}
        fresh = [] if second in self._after[first] else [(first, second)]
        if not self.connect(first, [second]):
            return False
        if keep_both:
            fresh += [(unit, first) for unit in ahead if first not in self._after[unit]]
            agreed = all(self.connect(unit, [first]) for unit in ahead)
        else:
            agreed = self.connect(second, self._after[first] - {second})
        if not agreed:
            for unit, reader in fresh:
                self._unlink(unit, [reader])
        elif keep_both:
            self._link(first, self._after[second])
        else:
            for unit in list(self._before[first]):
                self._unlink(unit, [first])
                self._link(unit, [second])
            self._unlink(first, list(self._after[first]))
        return agreed

    def replace_readers(self, unit: int, readers: Iterable[int]) -> None:
        """Let only ``readers``, which all come after ``unit``, read from it."""
        self._unlink(unit, list(self._after[unit]))
        self._link(unit, readers)

    def _link(self, unit: int, readers: Iterable[int]) -> None:
        for reader in readers:
            self._after[unit].add(reader)
            self._before[reader].add(unit)

    def _unlink(self, unit: int, readers: Iterable[int]) -> None:
        for reader in readers:
            self._after[unit].discard(reader)
            self._before[reader].discard(unit)

    # Places.

    def _reorder(self, unit: int, reader: int) -> bool:
        """Move what leads to ``unit`` before ``reader``, or what follows ``reader`` behind ``unit``; False if ``unit``
        follows ``reader``.
        """
        place = self._place
        low, high = place[reader], place[unit]
        leading = _Search(unit, self._before, lambda u: place[u] >= low)
        following = _Search(reader, self._after, lambda u: place[u] <= high)
        for _ in range(LIMIT):
            if leading.ends():
                if reader in leading.seen:
                    return False
                self._move(leading.seen, self._previous[reader])
                return True
            if following.ends():
                if unit in following.seen:
                    return False
                self._move(following.seen, unit)
                return True
        return False

    def _move(self, units: Iterable[int], left: int | None) -> None:
        """Put ``units``, in their order, behind ``left``, which is none of them."""
        moved = self.by_place(units)
        for unit in moved:
            self._join(self._previous[unit], self._next[unit])
        self._insert(moved, left)

    def _insert(self, units: Sequence[int], left: int | None) -> None:
        """Put ``units``, which are in no place, behind ``left``; None: first."""
        right, count = self._next[left], len(units) + 1
        low = self._place[left] if left is not None else None
        high = self._place[right] if right is not None else (low or 0) + count * GAP
        low = high - count * GAP if low is None else low
        for k, unit in enumerate(units, 1):
            self._place[unit] = low + (high - low) * k // count
            self._join(left, unit)
            left = unit
        self._join(left, right)
        if high - low < count:
            self._number()

    def _join(self, left: int | None, right: int | None) -> None:
        self._next[left], self._previous[right] = right, left

    def _number(self) -> None:
        """New places for all units, in the order that they are in."""
        unit, place = self._next[None], 0
        while unit is not None:
            self._place[unit] = place
            unit, place = self._next[unit], place + GAP


class _Search:
    """A search along ``edges``, a unit at a time."""

    def __init__(self, start: int, edges: Sequence[set[int]], inside: Callable[[int], bool]) -> None:
        self.seen = {start}
        self._pending = [start]
        self._edges = edges
        self._inside = inside

    def ends(self) -> bool:
        """Visit a unit; whether it was the last."""
        fresh = [u for u in self._edges[self._pending.pop()] if u not in self.seen and self._inside(u)]
        self.seen.update(fresh)
        self._pending += fresh
        return not self._pending
