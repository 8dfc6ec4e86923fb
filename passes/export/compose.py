"""Composition: the sketch with places. Each kernel is laid out on its own, then is one big cell among others."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from passes.export.cells import Arrow, Cell, Placement, Point
from passes.export.inlining import BACKWARD, FORWARD
from passes.export.layout import place
from passes.export.measure import TYPE, sans_width, shortened
from passes.export.routing import simplified
from passes.export.sketch import Box, Link, Sketch

FRAME, HEADER = 14.0, 20.0  # around the boxes of a kernel, and for its label


@dataclass(frozen=True, slots=True)
class Frame:
    """The rectangle around a kernel's boxes."""

    x: float
    y: float
    width: float
    height: float
    label: str
    title: str


@dataclass(frozen=True, slots=True)
class Line:
    """One drawn line; ``head`` says whether it ends at a box."""

    points: tuple[Point, ...]
    link: Link
    head: bool


@dataclass(slots=True)
class Scene:
    """All that is drawn, with places. ``corners`` belongs to ``sketch.boxes``; ``bands`` as in :class:`Placement`."""

    sketch: Sketch
    corners: list[Point]
    frames: list[Frame]
    lines: list[Line]
    width: float
    height: float
    bands: dict[int, tuple[float, float, float, float]]


@dataclass(slots=True)
class _Inner:
    """A kernel laid out on its own: its cell, and what is inside, relative to the cell's corner."""

    cell: Cell
    boxes: list[int]
    corners: list[Point]
    lines: list[Line] = field(default_factory=list)
    label: str = ""


def compose(sketch: Sketch) -> Scene:
    """Places for everything in ``sketch``."""
    inners = [_inside(sketch, g, boxes) for g, boxes in enumerate(sketch.groups)]
    cells: list[Cell] = [inner.cell for inner in inners]
    cell_of: dict[int, int] = {b: g for g, inner in enumerate(inners) for b in inner.boxes}
    for b, box in enumerate(sketch.boxes):
        if box.group is None:
            cell_of[b] = len(cells)
            cells.append(Cell(box.width, box.height, box.band, _weight(box)))
    outer = [link for link in sketch.links if cell_of[link.source] != cell_of[link.target]]
    arrows = [Arrow(cell_of[li.source], cell_of[li.target], li.key, li.seed) for li in outer]
    joined = {cell for arrow in arrows for cell in (arrow.source, arrow.target)}
    for b, others in sketch.near.items():
        if cell_of[b] not in joined:
            cells[cell_of[b]].near = tuple(sorted({cell_of[other] for other in others} - {cell_of[b]}))
    placed = place(cells, arrows)
    return _assembled(sketch, inners, cell_of, outer, placed)


def _assembled(
    sketch: Sketch, inners: list[_Inner], cell_of: dict[int, int], outer: list[Link], placed: Placement
) -> Scene:
    corners = [(0.0, 0.0)] * len(sketch.boxes)
    frames: list[Frame] = []
    lines = [
        Line(tuple(route), link, sketch.boxes[link.target].group is None)
        for route, link in zip(placed.routes, outer, strict=True)
    ]  # fmt: skip
    for b, box in enumerate(sketch.boxes):
        if box.group is None:
            corners[b] = placed.corners[cell_of[b]]
    for g, inner in enumerate(inners):
        x, y = placed.corners[g]
        label = sketch.picture.groups[g].label
        frames.append(Frame(x, y, inner.cell.width, inner.cell.height, inner.label, label))
        for b, (bx, by) in zip(inner.boxes, inner.corners, strict=True):
            corners[b] = (x + bx, y + by)
        for line in inner.lines:
            lines.append(Line(tuple((x + px, y + py) for px, py in line.points), line.link, line.head))
    return Scene(sketch, corners, frames, lines, placed.width, placed.height, placed.bands)


def _inside(sketch: Sketch, g: int, boxes: list[int]) -> _Inner:
    """Lay out kernel ``g``. What comes in and goes out passes ports, pinned to its first and last row."""
    own = {b: i for i, b in enumerate(boxes)}
    cells = [Cell(sketch.boxes[b].width, sketch.boxes[b].height, FORWARD, _weight(sketch.boxes[b])) for b in boxes]
    ports: dict[tuple[str, Hashable], int] = {}
    arrows: list[Arrow] = []
    links: list[Link] = []
    for link in sketch.links:
        into, out = link.target in own, link.source in own
        if not (into or out) or (into and out and link.seed):
            continue
        side = "in" if into and not out else "out"
        if into and out:
            arrows.append(Arrow(own[link.source], own[link.target], link.key))
        else:
            known = (side, link.key) in ports
            port = ports.setdefault((side, link.key), len(cells))
            if not known:
                weight = _weight(sketch.boxes[link.source])
                cells.append(Cell(2.0, 0.0, FORWARD, weight, "first" if side == "in" else "last"))
            elif side == "out":
                continue
            ends = (port, own[link.target]) if side == "in" else (own[link.source], port)
            arrows.append(Arrow(*ends, link.key))
        links.append(link)
    return _framed(sketch, g, boxes, cells, ports, arrows, links)


def _framed(
    sketch: Sketch, g: int, boxes: list[int], cells: list[Cell], ports: dict[tuple[str, Hashable], int],
    arrows: list[Arrow], links: list[Link],
) -> _Inner:  # fmt: skip
    placed = place(cells, arrows)
    band = _band([sketch.boxes[b] for b in boxes])
    label = shortened(sketch.picture.groups[g].label, 40)
    width = max(placed.width + 2 * FRAME, sans_width(label, TYPE) + 30.0)
    height = placed.height + 2 * FRAME + HEADER
    shift = (width - placed.width) / 2
    top = FRAME + HEADER

    def moved(point: Point, extent: float = 0.0) -> Point:
        # In the backward half arrows go up: the kernel is laid out downward and turned over.
        y = point[1] if band == FORWARD else placed.height - point[1] - extent
        return round(point[0] + shift, 1), round(y + top, 1)

    corners = [moved(placed.corners[i], cells[i].height) for i in range(len(boxes))]
    lines = []
    for arrow, link, route in zip(arrows, links, placed.routes, strict=True):
        points = [moved(p) for p in route]
        entry, exit_ = (0.0, height) if band == FORWARD else (height, 0.0)
        if arrow.source >= len(boxes):
            points = [(points[0][0], entry), *points]
        if arrow.target >= len(boxes):
            points = [*points, (points[-1][0], exit_)]
        lines.append(Line(tuple(simplified(points)), link, arrow.target < len(boxes)))
    place_of = {key: moved((placed.corners[i][0] + 1.0, 0.0))[0] for key, i in ports.items()}
    enter = {key: x for (side, key), x in place_of.items() if side == "in"}
    leave = {key: x for (side, key), x in place_of.items() if side == "out"}
    return _Inner(Cell(width, height, band, enter=enter, leave=leave), boxes, corners, lines, label)


def _weight(box: Box) -> float:
    """Data keeps the straight way down before parameters do."""
    return 0.5 if box.entry.role in ("parameter", "constant") else 1.0


def _band(boxes: list[Box]) -> int:
    """The half in which a kernel stands: that of most of its boxes, the forward one for a tie or a loss."""
    backward = sum(box.band == BACKWARD for box in boxes)
    lost = any(box.entry.loss for box in boxes)
    return BACKWARD if 2 * backward > len(boxes) and not lost else FORWARD
