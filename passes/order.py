"""An order of units that stays topological while edges are added (after M. Bender, J. Fineman, S. Gilbert and R. Tarjan,
"A New Approach to Incremental Cycle Detection and Related Problems", ACM Trans. Algorithms 12, 2016).

An edge against the order is searched from both of its ends at once, and what the shorter search found moves past the
other end. A question whose answer would need a long search is answered no: the caller then goes without the edge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

LIMIT = 128  # units visited before a search is given up
GAP = 1 << 32  # between the places of neighbours, at first


class TopologicalOrder:
    """Units numbered from 0; ``place`` grows from producers to readers."""

    def __init__(self) -> None:
        self._place: list[int] = []
        self._neighbours: tuple[list[int], list[int]] = ([], [])  # the unit before each one, and the one after; -1: none
        self._after: list[set[int]] = []
        self._before: list[set[int]] = []
        self._first = -1

    def add(self, readers: Iterable[int]) -> int:
        """A new unit that is read by ``readers`` and reads nothing yet: it goes first."""
        unit, second = len(self._place), self._first
        self._place.append(0 if second < 0 else self._place[second] - GAP)
        for neighbours in self._neighbours:
            neighbours.append(-1)
        self._after.append(set())
        self._before.append(set())
        self._join(unit, second)
        self._first = unit
        self._link(unit, readers)
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
        """Move ``unit`` and what leads to it before ``reader``, or ``reader`` and what follows it behind ``unit``,
        whichever is less; False if ``unit`` follows ``reader``.
        """
        place, low, high = self._place, self._place[reader], self._place[unit]
        leading = _Search(unit, self._before, lambda u: place[u] >= low)
        following = _Search(reader, self._after, lambda u: place[u] <= high)
        for _ in range(LIMIT):
            if leading.step():
                self._move(leading.seen, self._neighbours[0][reader], reader)
                return True
            if following.step():
                self._move(following.seen, unit, self._neighbours[1][unit])
                return True
            if reader in leading.seen or unit in following.seen:
                return False
        return False

    def _move(self, units: Iterable[int], left: int, right: int) -> None:
        """Put ``units``, in their order, between two neighbours, of which one may be none, or among the units."""
        moved = self.by_place(units)
        among = set(moved)
        before, after = self._neighbours
        for unit in moved:
            if unit == self._first:
                self._first = after[unit]
            self._join(before[unit], after[unit])
        while left in among:  # cannot be: what moves comes from beyond the two
            left = before[left]
        for unit in moved:
            self._join(left, unit)
            left = unit
        self._join(left, right)
        if before[moved[0]] < 0:
            self._first = moved[0]
        self._number(moved)

    def _join(self, left: int, right: int) -> None:
        before, after = self._neighbours
        if left >= 0:
            after[left] = right
        if right >= 0:
            before[right] = left
