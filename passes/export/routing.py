"""Routing: where arrows meet the cells, and their axis-parallel way between the rows.

All horizontal pieces lie in the gaps between rows and all vertical ones run in a gap or through a dummy, so that no
arrow runs through a cell. Pieces of one tensor share a trunk; trunks of different tensors in one gap get tracks of
their own, ordered so that they cross little and never lie on each other (as in C. Schulze, M. Sproemann and R. von
Hanxleden, "Drawing layered graphs with port constraints", J. Visual Languages and Computing 25, 2014, section 5).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from passes.export.cells import Cell

PORT_GAP, PORT_MARGIN = 13.0, 14.0
_CLOSE = 6.0  # vertical pieces nearer than this look like one
_PAIRWISE_LIMIT = 160
N = TypeVar("N", bound=Hashable)


@dataclass(slots=True)
class Trunk:
    """What one tensor does in one gap: ends that go up to the row above, and down to the row below."""

    up: list[float] = field(default_factory=list)
    down: list[float] = field(default_factory=list)
    track: int = -1  # none: a straight line down

    @property
    def low(self) -> float:
        return min(*self.up, *self.down) if len(self.up) + len(self.down) > 1 else (self.up or self.down)[0]

    @property
    def high(self) -> float:
        return max(*self.up, *self.down) if len(self.up) + len(self.down) > 1 else (self.up or self.down)[0]


def spread(wanted: Sequence[float], low: float, high: float) -> list[float]:
    """Places in ``low..high`` near the wanted ones, in their order, as far apart as there is room for."""
    count = len(wanted)
    gap = min(PORT_GAP, (high - low) / max(1, count - 1))
    order = sorted(range(count), key=lambda i: (wanted[i], i))
    places = [0.0] * count
    floor = low
    for rank, i in enumerate(order):
        ceiling = high - gap * (count - 1 - rank)
        places[i] = min(max(wanted[i], floor), ceiling)
        floor = places[i] + gap
    # Pushed to the right where they meet: push back to the left, so that the crowd sits around what it wanted.
    for rank in range(count - 2, -1, -1):
        i, after = order[rank], order[rank + 1]
        slack = places[after] - gap - places[i]
        if slack > 0 and places[i] < wanted[i]:
            places[i] += min(slack, wanted[i] - places[i])
    return places


def leave_place(cell: Cell, left: float, nexts: Sequence[float], alone: bool) -> float:
    """Where a tensor leaves its cell: straight towards a reader if one is right ahead, otherwise in the middle.

    One of several tensors leaves on the side of its readers.
    """
    centre = left + cell.width / 2
    margin = min(PORT_MARGIN, cell.width / 2)
    ahead = [x for x in nexts if left + margin <= x <= left + cell.width - margin]
    if ahead and alone:
        return min(ahead, key=lambda x: (abs(x - centre), x))
    return centre if alone else sum(nexts) / len(nexts)


def assign_tracks(trunks: Mapping[Hashable, Trunk]) -> int:
    """Give each trunk of one gap its track, 0 being the highest; the number of tracks."""
    bent = [t for t in trunks.values() if t.high - t.low > 0.01]
    bent.sort(key=lambda t: (t.low, t.high, t.up, t.down))
    placed: list[Trunk] = []
    for trunk in _from_above(bent):
        beneath = [
            other.track + 1 for other in placed
            if other.low - _CLOSE < trunk.high and trunk.low < other.high + _CLOSE
        ]  # fmt: skip
        trunk.track = max(beneath, default=0)
        placed.append(trunk)
    return max((t.track + 1 for t in bent), default=0)


def _from_above(trunks: list[Trunk]) -> list[Trunk]:
    """An order with few crossings: again and again the trunk that costs least above all that remain."""
    if len(trunks) > _PAIRWISE_LIMIT:
        return trunks
    count = len(trunks)
    cost = [[_cost(a, b) - _cost(b, a) if a is not b else 0.0 for b in trunks] for a in trunks]
    total = [sum(row) for row in cost]
    remaining = list(range(count))
    order: list[Trunk] = []
    while remaining:
        best = min(remaining, key=lambda i: (total[i], i))
        remaining.remove(best)
        order.append(trunks[best])
        for i in remaining:
            total[i] -= cost[i][best]
    return order


def _cost(above: Trunk, below: Trunk) -> float:
    """Crossings when ``above`` lies above ``below``; lying on each other costs much more."""
    crossings = sum(above.low < x < above.high for x in below.up) + sum(below.low < x < below.high for x in above.down)
    overlaps = sum(abs(x - y) < _CLOSE for x in below.up for y in above.down)
    return crossings + 1000.0 * overlaps


def simplified(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The polyline without repeated points and without points in the middle of a straight piece."""
    kept: list[tuple[float, float]] = []
    for point in points:
        if kept and abs(kept[-1][0] - point[0]) < 0.01 and abs(kept[-1][1] - point[1]) < 0.01:
            continue
        if len(kept) > 1:
            (ax, ay), (bx, by) = kept[-2], kept[-1]
            if abs(ax - bx) < 0.01 and abs(bx - point[0]) < 0.01 and (by - ay) * (point[1] - by) >= 0:
                kept[-1] = point
                continue
            if abs(ay - by) < 0.01 and abs(by - point[1]) < 0.01 and (bx - ax) * (point[0] - bx) >= 0:
                kept[-1] = point
                continue
        kept.append(point)
    return kept


def columns(spans: Mapping[N, tuple[int, int]]) -> tuple[dict[N, int], int]:
    """A column of the channel for each vertical piece, given the gaps it spans; how many columns there are."""
    free: list[int] = []  # per column, the first gap below what it holds
    chosen: dict[N, int] = {}
    for net, (low, high) in sorted(spans.items(), key=lambda item: item[1]):
        column = next((c for c, end in enumerate(free) if end < low), len(free))
        if column == len(free):
            free.append(high)
        chosen[net] = column
        free[column] = high
    return chosen, len(free)
