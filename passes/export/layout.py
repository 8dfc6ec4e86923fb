"""Layered layout: rows, order, coordinates and routes put together.

The picture has two bands side by side. In the left one, the forward half, arrows flow down; in the right one they
flow back up. Both share the rows, so that a derivative stands beside its op. Arrows from one to the other run in a
channel between the two.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from passes.export import coordinates, ordering, routing
from passes.export.cells import Arrow, Cell, Placement, Point
from passes.export.layering import layer
from passes.export.routing import Trunk

COLUMN, CHANNEL, TRACK = 12.0, 34.0, 9.0
GAP = 17.0  # from a row to the nearest track: room for an arrowhead
Net = tuple[int, Hashable]


def place(cells: Sequence[Cell], arrows: Sequence[Arrow]) -> Placement:
    """Places for ``cells`` that do not overlap and routes for ``arrows`` that cross no cell. Deterministic."""
    return _Layout(cells, arrows).run()


@dataclass(slots=True)
class _Hop:
    """One arrow in one gap: in at one place and out at another."""

    gap: int
    enter: float
    leave: float


@dataclass(slots=True)
class _Layout:
    cells: Sequence[Cell]
    arrows: Sequence[Arrow]
    rows: list[int] = field(default_factory=list)
    loose: list[bool] = field(default_factory=list)
    bands: dict[int, ordering.Slots] = field(default_factory=dict)
    slot_x: dict[int, list[float]] = field(default_factory=dict)
    left: list[float] = field(default_factory=list)
    extent: dict[int, tuple[float, float]] = field(default_factory=dict)
    column_x: dict[Net, float] = field(default_factory=dict)
    enter: dict[tuple[int, Net], float] = field(default_factory=dict)
    leave: dict[Net, float] = field(default_factory=dict)
    hops: list[list[_Hop]] = field(default_factory=list)

    def run(self) -> Placement:
        self.rows, self.loose = layer(self.cells, self.arrows)
        count = max(self.rows, default=-1) + 1
        self._place_bands(count)
        self._choose_ports()
        self._walk()
        trunks = self._trunks(count)
        tracks = [routing.assign_tracks(nets) for nets in trunks]
        return self._finish(count, trunks, tracks)

    def _place_bands(self, count: int) -> None:
        """Order and horizontal places, band after band, with the channel between."""
        self.left = [0.0] * len(self.cells)
        right = 0.0
        lanes, lane_count = routing.columns(self._spans())
        for band in (0, 1):
            slots = ordering.build(band, self.cells, self.arrows, self.rows, self.loose)
            ordering.order(slots, count)
            widths = [self.cells[c].width if c >= 0 else 2.0 for c in slots.cell]
            weights = [self.cells[c].weight if c >= 0 else 0.0 for c in slots.cell]
            xs = [round(x + right, 1) for x in coordinates.assign(slots, widths, weights)]
            self.bands[band], self.slot_x[band] = slots, xs
            for slot, cell in enumerate(slots.cell):
                if cell >= 0:
                    self.left[cell] = round(xs[slot] - widths[slot] / 2, 1)
            if xs:
                end = max(x + w / 2 for x, w in zip(xs, widths, strict=True))
                self.extent[band] = (right, end)
                right = end
            if band == 0:
                start = right + CHANNEL
                self.column_x = {net: start + COLUMN * lane for net, lane in lanes.items()}
                right = start + COLUMN * max(0, lane_count - 1) + CHANNEL

    def _gaps(self, i: int) -> tuple[int, int]:
        """The gaps in which arrow ``i`` leaves its source and enters its target; gap g lies above row g."""
        arrow = self.arrows[i]
        source, target = self.rows[arrow.source], self.rows[arrow.target]
        return source + 1 - self.cells[arrow.source].band, target + self.cells[arrow.target].band

    def _spans(self) -> dict[Net, tuple[int, int]]:
        """The gaps that each loose net must join by a vertical piece in the channel."""
        spans: dict[Net, tuple[int, int]] = {}
        for i, arrow in enumerate(self.arrows):
            start, end = self._gaps(i)
            if self.loose[i] and start != end:
                net = (arrow.source, arrow.key)
                low, high = spans.get(net, (start, start))
                spans[net] = (min(low, end), max(high, end))
        return spans

    def _neighbour(self, i: int, at_source: bool) -> float:
        """Horizontal place of what arrow ``i`` meets next after its source, or last before its target."""
        arrow = self.arrows[i]
        other = arrow.target if at_source else arrow.source
        if self.loose[i]:
            start, end = self._gaps(i)
            if start != end:
                return self.column_x[arrow.source, arrow.key]
            return self.left[other] + self.cells[other].width / 2
        band = self.cells[arrow.source].band
        path = self.bands[band].paths[i]
        slot = path[1] if at_source else path[-2]
        if self.bands[band].cell[slot] < 0:
            return self.slot_x[band][slot]
        return self._fixed(i, not at_source) or self.left[other] + self.cells[other].width / 2

    def _fixed(self, i: int, at_source: bool) -> float | None:
        """The port that a cell prescribes for arrow ``i``, if it does."""
        arrow = self.arrows[i]
        cell = arrow.source if at_source else arrow.target
        ports = self.cells[cell].leave if at_source else self.cells[cell].enter
        return self.left[cell] + ports[arrow.key] if arrow.key in ports else None

    def _choose_ports(self) -> None:
        """First where tensors leave, then where they enter, so that a line from straight above stays straight."""
        leaving: dict[int, dict[Net, list[int]]] = {}
        for i, arrow in enumerate(self.arrows):
            leaving.setdefault(arrow.source, {}).setdefault((arrow.source, arrow.key), []).append(i)
        for c, nets in leaving.items():
            cell, left = self.cells[c], self.left[c]
            wanted = [
                routing.leave_place(cell, left, [self._neighbour(i, True) for i in those], len(nets) == 1)
                for those in nets.values()
            ]  # fmt: skip
            for net, x, those in zip(nets, self._spread(c, wanted), nets.values(), strict=True):
                fixed = self._fixed(those[0], True)
                self.leave[net] = x if fixed is None else fixed
        entering: dict[int, dict[Net, int]] = {}
        for i, arrow in enumerate(self.arrows):
            entering.setdefault(arrow.target, {}).setdefault((arrow.source, arrow.key), i)
        for c, firsts in entering.items():
            wanted = [self._comes_from(net, i) for net, i in firsts.items()]
            for (net, i), x in zip(firsts.items(), self._spread(c, wanted), strict=True):
                fixed = self._fixed(i, False)
                self.enter[c, net] = x if fixed is None else fixed

    def _comes_from(self, net: Net, i: int) -> float:
        direct = not self.loose[i] and len(self.bands[self.cells[net[0]].band].paths[i]) == 2
        return self.leave[net] if direct else self._neighbour(i, False)

    def _spread(self, c: int, wanted: Sequence[float]) -> list[float]:
        margin = min(routing.PORT_MARGIN, self.cells[c].width / 2)
        return routing.spread(wanted, self.left[c] + margin, self.left[c] + self.cells[c].width - margin)

    def _walk(self) -> None:
        """The gaps each arrow passes, with its places in them."""
        for i, arrow in enumerate(self.arrows):
            net = (arrow.source, arrow.key)
            start, end = self.leave[net], self.enter[arrow.target, net]
            if self.loose[i]:
                out, into = self._gaps(i)
                if out == into:
                    self.hops.append([_Hop(out, start, end)])
                else:
                    x = self.column_x[net]
                    self.hops.append([_Hop(out, start, x), _Hop(into, x, end)])
                continue
            band = self.cells[arrow.source].band
            path = self.bands[band].paths[i]
            xs = [start, *(self.slot_x[band][s] for s in path[1:-1]), end]
            rows = [self.bands[band].row[s] for s in path]
            self.hops.append([_Hop(max(rows[k], rows[k + 1]), xs[k], xs[k + 1]) for k in range(len(path) - 1)])

    def _trunks(self, count: int) -> list[dict[Hashable, Trunk]]:
        """Per gap, what each net does there."""
        gaps: list[dict[Hashable, Trunk]] = [{} for _ in range(count + 1)]
        for i, hops in enumerate(self.hops):
            arrow = self.arrows[i]
            from_above = self.cells[arrow.source].band == 0
            for k, hop in enumerate(hops):
                trunk = gaps[hop.gap].setdefault((arrow.source, arrow.key), Trunk())
                last = k == len(hops) - 1
                if self.loose[i] and not last:
                    to_below = hops[k + 1].gap > hop.gap
                elif last:
                    to_below = self.cells[arrow.target].band == 0
                else:
                    to_below = from_above
                for x, above in ((hop.enter, from_above), (hop.leave, not to_below)):
                    side = trunk.up if above else trunk.down
                    if x not in side:
                        side.append(x)
                from_above = to_below
        return gaps

    def _finish(self, count: int, trunks: list[dict[Hashable, Trunk]], tracks: list[int]) -> Placement:
        heights = [0.0] * count
        for c, cell in enumerate(self.cells):
            heights[self.rows[c]] = max(heights[self.rows[c]], cell.height)
        tops: list[float] = []
        gap_tops: list[float] = []
        y = 0.0
        for g in range(count + 1):
            gap_tops.append(y)
            if tracks[g] or (0 < g < count and heights[g - 1] and heights[g]):
                y += 2 * GAP + TRACK * max(0, tracks[g] - 1)
            if g < count:
                tops.append(y)
                y += heights[g]
        corners = [
            (self.left[c], round(tops[self.rows[c]] + (heights[self.rows[c]] - cell.height) / 2, 1))
            for c, cell in enumerate(self.cells)
        ]  # fmt: skip
        routes = [self._route(i, corners, gap_tops, trunks) for i in range(len(self.arrows))]
        ends = [end for _, end in self.extent.values()] + [x + COLUMN for x in self.column_x.values()]
        width = max(ends, default=0.0)
        return Placement(corners, routes, width, y, {band: self._bounds(band, corners) for band in self.extent})

    def _bounds(self, band: int, corners: Sequence[Point]) -> tuple[float, float, float, float]:
        own = [c for c, cell in enumerate(self.cells) if cell.band == band]
        top, bottom = min(corners[c][1] for c in own), max(corners[c][1] + self.cells[c].height for c in own)
        return self.extent[band][0], top, self.extent[band][1], bottom

    def _route(
        self, i: int, corners: Sequence[Point], gap_tops: Sequence[float], trunks: Sequence[dict[Hashable, Trunk]]
    ) -> list[Point]:
        arrow, hops = self.arrows[i], self.hops[i]
        source, target = self.cells[arrow.source], self.cells[arrow.target]
        start = corners[arrow.source][1] + (source.height if source.band == 0 else 0.0)
        end = corners[arrow.target][1] + (0.0 if target.band == 0 else target.height)
        points = [(hops[0].enter, start)]
        for hop in hops:
            track = trunks[hop.gap][arrow.source, arrow.key].track
            if track >= 0:
                y = gap_tops[hop.gap] + GAP + TRACK * track
                points += [(hop.enter, y), (hop.leave, y)]
        points.append((hops[-1].leave, end))
        return routing.simplified([(round(x, 1), round(y, 1)) for x, y in points])
