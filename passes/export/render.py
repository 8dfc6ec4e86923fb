"""A scene as SVG: one self-contained element with its own light background, so that it reads on any page."""

from __future__ import annotations

from xml.sax.saxutils import escape

from passes.export.cells import Point
from passes.export.compose import Frame, Line, Scene
from passes.export.measure import MONO, SANS, TITLE, TITLE_SMALL, TYPE, TYPE_SMALL, sans_width
from passes.export.model import ROLES, type_text
from passes.export.sketch import Box

# Fill, line, text: one row per role. Shapes differ too (see _outline), so that the picture reads without colour.
COLOURS: dict[str, tuple[str, str, str]] = {
    "placeholder": ("#dbeafe", "#2563a8", "#164a80"),
    "parameter": ("#dcf2dd", "#2f8138", "#1d5a26"),
    "constant": ("#f0f1f3", "#8b95a1", "#5b6470"),
    "forward": ("#ffffff", "#54708c", "#1f3347"),
    "backward": ("#fdead6", "#cc6a14", "#8a4203"),
    "update": ("#ebe1f8", "#7443ab", "#532a83"),
}
LOSS = "#c2255c"
QUIET, INK, LINE, LINE_BACK = "#7b8794", "#46525e", "#7088a0", "#d08742"
MARGIN, HEAD, LEGEND = 22.0, 26.0, 30.0
RADIUS = 7.0
_MEMBERS = 6  # a tooltip with more than so many is one line each
_SAID = {
    "placeholder": "placeholder (data)", "parameter": "parameter", "constant": "constant", "forward": "forward",
    "backward": "backward", "update": "update",
}  # fmt: skip


def svg(scene: Scene, interactive: bool = False) -> str:
    """The whole picture. With ``interactive`` boxes and lines carry data attributes for the page's script."""
    legend = _legend(scene)
    header = HEAD if _panelled(scene) else 0.0
    width = max(scene.width + 2 * MARGIN, legend[1] + 2 * MARGIN)
    height = scene.height + 2 * MARGIN + header + LEGEND
    dx, dy = round((width - scene.width) / 2, 1), MARGIN + header
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_n(width)} {_n(height)}" width="{_n(width)}" '
        f'height="{_n(height)}" font-family="{SANS}" role="img" '
        f'aria-label="graph, stage {scene.sketch.picture.stage}">',
        f'<rect width="{_n(width)}" height="{_n(height)}" rx="10" fill="#fbfcfd"/>',
        _markers(),
        f'<g transform="translate({_n(dx)} {_n(dy)})">',
        *_panels(scene),
        *(_frame(f) for f in scene.frames),
        *(_line(line, scene, interactive) for line in sorted(scene.lines, key=lambda line: not line.link.seed)),
        *(_frame_label(f) for f in scene.frames),
        *(_box(scene, i, interactive) for i in range(len(scene.sketch.boxes))),
        "</g>",
        f'<g transform="translate({_n(MARGIN)} {_n(height - LEGEND)})">{legend[0]}</g>',
        "</svg>",
    ]
    return "\n".join(out) + "\n"


def _n(value: float) -> str:
    """A number as short text, the same on every machine."""
    return f"{value:.1f}".removesuffix(".0")


def _markers() -> str:
    parts = [
        f'<marker id="gc-{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        f'markerUnits="userSpaceOnUse" orient="auto"><path d="M0 .8 7.4 4 0 7.2z" fill="{colour}"/></marker>'
        for name, colour in (("f", LINE), ("b", LINE_BACK), ("u", COLOURS["update"][1]))
    ]
    return f"<defs>{''.join(parts)}</defs>"


def _panelled(scene: Scene) -> bool:
    return len(scene.bands) == 2


def _panels(scene: Scene) -> list[str]:
    """The two halves, each on its own ground."""
    if not _panelled(scene):
        return []
    updated = any(box.entry.role == "update" and box.band for box in scene.sketch.boxes)
    grounds = (
        (0, "forward ↓", "#eef4fa", COLOURS["forward"][1]),
        (1, "backward and updates ↑" if updated else "backward ↑", "#fef6ec", COLOURS["backward"][1]),
    )
    out = []
    for band, said, ground, colour in grounds:
        left, top, right, bottom = scene.bands[band]
        out.append(
            f'<rect x="{_n(left - 12)}" y="{_n(top - HEAD - 4)}" width="{_n(right - left + 24)}" '
            f'height="{_n(bottom - top + HEAD + 16)}" rx="9" fill="{ground}"/>'
            f'<text x="{_n(left)}" y="{_n(top - HEAD + 12)}" '
            f'font-size="12" font-weight="600" fill="{colour}">{said}</text>'
        )
    return out


def _frame(frame: Frame) -> str:
    return (
        f'<rect x="{_n(frame.x)}" y="{_n(frame.y)}" width="{_n(frame.width)}" height="{_n(frame.height)}" rx="9" '
        f'fill="#ffffff" fill-opacity=".75" stroke="#8796a5" stroke-dasharray="5 3">'
        f"<title>{escape(frame.title)}</title></rect>"
    )


def _frame_label(frame: Frame) -> str:
    """The label on a ground of its own: lines that come in from above pass behind it."""
    width = sans_width(frame.label, TYPE) + 12
    return (
        f'<rect x="{_n(frame.x + 8)}" y="{_n(frame.y + 7)}" width="{_n(width)}" height="17" rx="5" fill="#e4eaf0"/>'
        f'<text x="{_n(frame.x + 14)}" y="{_n(frame.y + 19)}" font-size="{_n(TYPE)}" font-weight="600" '
        f'fill="#46525e">{escape(frame.label)}</text>'
    )


def _line(line: Line, scene: Scene, interactive: bool) -> str:
    source, target = (scene.sketch.boxes[b] for b in (line.link.source, line.link.target))
    kind = "u" if "update" in (target.entry.role, source.entry.role) else "b" if target.band or source.band else "f"
    colour = {"f": LINE, "b": LINE_BACK, "u": COLOURS["update"][1]}[kind]
    head = f' marker-end="url(#gc-{kind})"' if line.head else ""
    dash = ' stroke-dasharray="4 4"' if line.link.seed else ""
    data = f' data-s="{line.link.source}" data-t="{line.link.target}"' if interactive else ""
    return f'<path d="{_path(line.points)}" fill="none" stroke="{colour}" stroke-width="1.3"{dash}{head}{data}/>'


def _path(points: tuple[Point, ...]) -> str:
    """A polyline with rounded corners."""
    out = [f"M{_n(points[0][0])} {_n(points[0][1])}"]
    for before, here, after in zip(points, points[1:], points[2:], strict=False):
        radius = min(RADIUS, _length(before, here) / 2, _length(here, after) / 2)
        start, end = _towards(here, before, radius), _towards(here, after, radius)
        out.append(f"L{_n(start[0])} {_n(start[1])}Q{_n(here[0])} {_n(here[1])} {_n(end[0])} {_n(end[1])}")
    out.append(f"L{_n(points[-1][0])} {_n(points[-1][1])}")
    return "".join(out)


def _length(a: Point, b: Point) -> float:
    return abs(a[0] - b[0]) + abs(a[1] - b[1])


def _towards(a: Point, b: Point, distance: float) -> Point:
    whole = _length(a, b) or 1.0
    return a[0] + (b[0] - a[0]) * distance / whole, a[1] + (b[1] - a[1]) * distance / whole


def _outline(role: str, x: float, y: float, w: float, h: float, slim: bool = False) -> str:
    """The shape of a role, without paint: slanted, cylinder, plain, square, round, cut corners."""
    if role == "placeholder":
        s = 9.0
        return f'<path d="M{_n(x + s)} {_n(y)}H{_n(x + w)}L{_n(x + w - s)} {_n(y + h)}H{_n(x)}Z"'
    if role == "parameter":
        r = 5.0
        return (
            f'<path d="M{_n(x)} {_n(y + r)}A{_n(w / 2)} {_n(r)} 0 0 1 {_n(x + w)} {_n(y + r)}V{_n(y + h - r)}'
            f"A{_n(w / 2)} {_n(r)} 0 0 1 {_n(x)} {_n(y + h - r)}Z"
            f'M{_n(x)} {_n(y + r)}A{_n(w / 2)} {_n(r)} 0 0 0 {_n(x + w)} {_n(y + r)}"'
        )
    if role == "update":
        c = 7.0
        return (
            f'<path d="M{_n(x + c)} {_n(y)}H{_n(x + w - c)}L{_n(x + w)} {_n(y + c)}V{_n(y + h - c)}'
            f"L{_n(x + w - c)} {_n(y + h)}"
            f'H{_n(x + c)}L{_n(x)} {_n(y + h - c)}V{_n(y + c)}Z"'
        )
    radius = {"constant": h / 2, "backward": h / 2.4}.get(role, 3.0)
    return f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(w)}" height="{_n(h)}" rx="{_n(min(radius, 16.0))}"'


def _box(scene: Scene, index: int, interactive: bool) -> str:
    box, (x, y) = scene.sketch.boxes[index], scene.corners[index]
    role = box.entry.role
    fill, line, _ = COLOURS[role]
    parts = [f"<title>{escape(tooltip(box, scene))}</title>"]
    if box.entry.fetched or box.entry.loss:
        ring = LOSS if box.entry.loss else line
        parts.append(
            f"{_outline(role, x - 4, y - 4, box.width + 8, box.height + 8)} "
            f'fill="none" stroke="{ring}" stroke-width="{2.2 if box.entry.loss else 1.4}"/>'
        )
    weight = "1" if box.slim else "1.5"
    parts.append(
        f'{_outline(role, x, y, box.width, box.height)} fill="{fill}" stroke="{line}" stroke-width="{weight}"/>'
    )
    parts += _texts(box, x, y)
    data = f' data-b="{index}" class="box"' if interactive else ""
    return f"<g{data}>{''.join(parts)}</g>"


def _texts(box: Box, x: float, y: float) -> list[str]:
    size, small = (TITLE_SMALL, TYPE_SMALL) if box.slim else (TITLE, TYPE)
    middle = _n(x + box.width / 2)
    lid = 7.0 if box.entry.role == "parameter" else 0.0
    tall = len(box.titles) * size * 1.35 + len(box.lines) * small * 1.35
    base = y + lid + (box.height - lid - tall) / 2 + size * 1.02
    out = []
    for k, title in enumerate(box.titles):
        spans = "".join(_span(text, role, box.entry.role) for text, role in title)
        out.append(
            f'<text x="{middle}" y="{_n(base + k * size * 1.35)}" text-anchor="middle" font-size="{_n(size)}" '
            f'font-weight="600" fill="{COLOURS[box.entry.role][2]}">{spans}</text>'
        )
    base += (len(box.titles) - 1) * size * 1.35
    for k, text in enumerate(box.lines):
        out.append(
            f'<text x="{middle}" y="{_n(base + (k + 1) * small * 1.38)}" text-anchor="middle" font-size="{_n(small)}" '
            f'font-family="{MONO}" fill="{INK}">{escape(text)}</text>'
        )
    return out


def _span(text: str, role: str, own: str) -> str:
    if role == own:
        return escape(text)
    if role == "quiet":
        return f'<tspan font-weight="400" fill="{QUIET}">{escape(text)}</tspan>'
    colour = LOSS if role == "loss" else COLOURS[role][1]
    return f'<tspan fill="{colour}">{escape(text)}</tspan>'


def tooltip(box: Box, scene: Scene) -> str:
    """All there is to say of a box: of each member op, whole name, result types, and the user's line."""
    parts = []
    if len(box.members) > _MEMBERS:
        return _printable("\n".join(_summed(box, scene)))
    for member in box.members:
        entry = scene.sketch.picture.entries[member]
        text = f"{entry.id}  {entry.op}" + (f" {entry.name!r}" if entry.name else "")
        parts.append(text + "".join(f"\n{type_text(t)}" for t in entry.node.results) + f"\n{entry.where}")
    return _printable("\n\n".join(parts))


def _summed(box: Box, scene: Scene) -> list[str]:
    """One line for each of many members, which share a line of the user's."""
    entries = [scene.sketch.picture.entries[member] for member in box.members]
    rows = ["".join(text for text, _ in title) for title in box.titles]
    for entry in entries:
        types = ", ".join(type_text(t) for t in entry.node.results)
        rows.append(f"{entry.id}  {entry.op}{f' {entry.name!r}' if entry.name else ''}  {types}".rstrip())
    return [*rows, *dict.fromkeys(entry.where for entry in entries)]


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


def _legend(scene: Scene) -> tuple[str, float]:
    """A row of samples, and its width: only what occurs in the picture."""
    present = {box.entry.role for box in scene.sketch.boxes}
    samples = [
        (_outline(role, 0, -6, 22, 14) + f' fill="{COLOURS[role][0]}" stroke="{COLOURS[role][1]}"/>', _SAID[role])
        for role in ROLES if role in present
    ]  # fmt: skip
    if any(box.entry.fetched and not box.entry.loss for box in scene.sketch.boxes):
        ring = '<rect x="0" y="-6" width="22" height="14" rx="3" fill="none" stroke="#54708c" stroke-width="1.2"/>'
        samples.append(
            (f'{ring}<rect x="3" y="-3" width="16" height="8" rx="2" fill="#ffffff" stroke="#54708c"/>', "fetched")
        )
    if any(line.link.seed for line in scene.lines):
        dash = f'<path d="M0 1H22" stroke="{LINE_BACK}" stroke-width="1.3" stroke-dasharray="4 4"/>'
        samples.append((dash, "gradient starts"))
    if scene.frames:
        samples.append(
            (
                '<rect y="-6" width="22" height="14" rx="3" fill="#ffffff" stroke="#8796a5" stroke-dasharray="4 3"/>',
                "one kernel",
            )
        )
    x, parts = 0.0, []
    for shape, said in samples:
        parts.append(
            f'<g transform="translate({_n(x)} 8)">{shape}'
            f'<text x="28" y="5" font-size="11" fill="{INK}">{said}</text></g>'
        )
        x += 28 + sans_width(said, 11) + 16
    return "".join(parts), x
