"""An order of units that stays topological while edges are added (D. Pearce and P. Kelly, "A dynamic topological sort
algorithm for directed acyclic graphs", J. Exp. Algorithmics 11, 2006).

A question whose answer would need a long search is answered no: the caller then goes without the edge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

LIMIT = 64  # units visited before a search is given up


class TopologicalOrder:
    """Units numbered from 0; ``place`` grows from producers to readers."""

    def __init__(self) -> None:
        self._place: list[int] = []
        self._after: list[set[int]] = []
        self._before: list[set[int]] = []
        self._front = 0

    def add(self, readers: Iterable[int]) -> int:
        """A new unit that is read by ``readers`` and reads nothing yet: it goes first."""
        unit = len(self._place)
        self._front -= 1
        self._place.append(self._front)
        self._after.append(set())
        self._before.append(set())
        self._link(unit, readers)
        return unit

    def _link(self, unit: int, readers: Iterable[int]) -> None:
        for reader in readers:
            self._after[unit].add(reader)
            self._before[reader].add(unit)

    def by_place(self, units: Iterable[int]) -> list[int]:
        """``units``, first ones first."""
        return sorted(units, key=self._place.__getitem__)

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
        False where a third unit stands between them (or it would take too long to tell).
        """
        if not self.connect(first, [second]):
            return False
        if keep_both:
            self._link(first, self._after[second])
            return all(self.connect(unit, [first]) for unit in list(self._before[second] - {first}))
        if not self.connect(second, self._after[first] - {second}):
            return False
        for unit in self._after[first]:
            self._before[unit].discard(first)
        self._after[first] = set()
        for unit in self._before[first]:
            self._after[unit].discard(first)
            if unit != second:
                self._link(unit, [second])
        self._before[first] = set()
        return True

    def replace_readers(self, unit: int, readers: Iterable[int]) -> None:
        """Let only ``readers``, which all come after ``unit``, read from it."""
        for reader in self._after[unit]:
            self._before[reader].discard(unit)
        self._after[unit] = set()
        self._link(unit, readers)

    def _reorder(self, unit: int, reader: int) -> bool:
        """Move what follows ``reader`` behind what leads to ``unit``; False if ``unit`` follows ``reader``."""
        low, high = self._place[reader], self._place[unit]
        following = self._reach(reader, self._after, lambda u: self._place[u] <= high)
        if following is None or unit in following:
            return False
        leading = self._reach(unit, self._before, lambda u: self._place[u] >= low)
        if leading is None:
            return False
        units = [*self.by_place(leading), *self.by_place(following)]
        for target, place in zip(units, sorted(self._place[u] for u in units), strict=True):
            self._place[target] = place
        return True

    @staticmethod
    def _reach(start: int, edges: list[set[int]], inside: Callable[[int], bool]) -> set[int] | None:
        seen = {start}
        pending = [start]
        while pending:
            for neighbour in edges[pending.pop()]:
                if neighbour not in seen and inside(neighbour):
                    seen.add(neighbour)
                    pending.append(neighbour)
            if len(seen) > LIMIT:
                return None
        return seen
