"""From a picture to boxes and links: what gets a box of its own, what is said inside its reader, and how big each box
is.

A drawing with a box for every scalar and a line for every second read of a weight is unreadable. Scalars, extents and
their broadcasts are written into the label of what reads them, ``multiply(0.5, ·)``; a named parameter or placeholder
is drawn once and read by name in the backward half, ``matmul(·, w2.T)``; a transposed matrix is ``·.T``; runs of
views, and the steps from a gradient to its ``assign``, share one box; all that an optimiser does to one parameter is
one box too (see ``updates.py``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from graphc.opdef import Kind
from passes.export.inlining import BACKWARD, FORWARD, VIEWS, Inliner, Span
from passes.export.measure import PAD, TITLE, TITLE_SMALL, TYPE, TYPE_SMALL, mono_width, sans_width, shortened
from passes.export.model import Entry, Picture, type_text
from passes.export.summary import Summary, summaries
from passes.export.updates import steps


@dataclass(slots=True)
class Box:
    """One box: lines of coloured spans, then ``lines`` in a fixed-width font. ``entry`` is the last of its members."""

    entry: Entry
    members: tuple[int, ...]
    band: int
    group: int | None
    titles: tuple[tuple[Span, ...], ...]
    lines: tuple[str, ...]
    slim: bool
    width: float = 0.0
    height: float = 0.0


@dataclass(frozen=True, slots=True)
class Link:
    """A line from box to box. Links of one ``key`` carry one tensor and share their way. ``seed``: loss to gradient."""

    source: int
    target: int
    key: tuple[int, int]
    seed: bool = False


@dataclass(slots=True)
class Sketch:
    """All boxes and links of a picture, and which boxes belong to which group.

    ``near`` holds, for a box without lines, those that it stands among.
    """

    picture: Picture
    boxes: list[Box] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    groups: list[list[int]] = field(default_factory=list)
    near: dict[int, set[int]] = field(default_factory=dict)


def sketch(picture: Picture) -> Sketch:
    """Boxes and links of ``picture``, with sizes and without places."""
    divided = steps(picture)
    inliner = Inliner(picture, divided)
    summed = {i: summary for summary in summaries(inliner, divided) for i in summary.members}
    drawn = [i for i in range(len(picture.entries)) if i not in inliner.text and i not in inliner.transposed]
    merged = _merged(inliner, [i for i in drawn if i not in summed], summed)
    result = Sketch(picture, groups=[[] for _ in picture.groups])
    box_of: dict[int, int] = {}
    for i in drawn:
        if i in merged or i in box_of:
            continue
        box = _summary_box(inliner, summed[i]) if i in summed else _box(inliner, i, _chain(merged, inliner, i))
        box_of.update(dict.fromkeys(box.members, len(result.boxes)))
        if box.group is not None:
            result.groups[box.group].append(len(result.boxes))
        result.boxes.append(box)
    result.links = list(dict.fromkeys(_links(inliner, drawn, box_of, summed, result.near)))
    result.links += _seeds(result)
    return result


def _links(
    inliner: Inliner,
    drawn: Sequence[int],
    box_of: Mapping[int, int],
    summed: Mapping[int, Summary],
    near: dict[int, set[int]],
) -> Iterator[Link]:
    """A line for each operand that no label names. For boxes whose lines are left out, ``near`` gets their readers."""
    for i in drawn:
        for position, source in enumerate(inliner.sources[i]):
            if inliner.operand(i, source, position) is not None:
                continue
            tensor = inliner.entries[i].node.inputs[position]
            index = 0 if source in inliner.transposed else tensor.index
            origin = inliner.transposed.get(source, source)
            key = (origin, index)
            if origin in summed:
                if summed[origin].quiet and box_of[origin] != box_of[i]:
                    near.setdefault(box_of[origin], set()).add(box_of[i])
                    continue
                key = (summed[origin].members[0], 0)  # whatever it is that comes from there, as one line
            if box_of[origin] != box_of[i]:
                yield Link(box_of[origin], box_of[i], key)


def _merged(inliner: Inliner, drawn: Sequence[int], summed: Mapping[int, Summary]) -> dict[int, int]:
    """Entries drawn in the box of their single reader, and that reader: runs of views, and the steps of an update."""
    merged: dict[int, int] = {}
    for i in drawn:
        readers, entry = inliner.readers[i], inliner.entries[i]
        if len(readers) != 1 or readers[0] in summed or entry.fetched or len(entry.node.results) != 1:
            continue
        (j,) = readers
        reader = inliner.entries[j]
        views = entry.node.op.kind in VIEWS and reader.node.op.kind in VIEWS
        steps = entry.role == reader.role == "update" and inliner.lines_into(j) == 1
        apart = j in inliner.text or j in inliner.transposed or inliner.group_of.get(i) != inliner.group_of.get(j)
        if (views or steps) and not apart:
            merged[i] = j
    return merged


def _chain(merged: dict[int, int], inliner: Inliner, last: int) -> tuple[int, ...]:
    """The run of entries that share the box of ``last``, first to last."""
    run = [last]
    while True:
        before = [s for s in inliner.sources[run[-1]] if merged.get(s) == run[-1]]
        if not before:
            return tuple(reversed(run))
        run.append(before[0])


def _box(inliner: Inliner, i: int, members: tuple[int, ...]) -> Box:
    entry = inliner.entries[i]
    slim = entry.node.op.kind in VIEWS or entry.role == "constant"
    titles = _titles(inliner, members)
    if entry.loss:
        titles = ((("loss ", "loss"), *titles[0]), *titles[1:])
    types = entry.node.results or (entry.node.inputs[0].type,)  # an update writes its parameter's type
    lines = [shortened(type_text(t), 44) for t in types[:3]]
    if len(types) > 3:
        lines.append(f"and {len(types) - 3} more")
    if entry.node.op.kind is Kind.REDUCE and len(entry.node.attrs["axis"]) < entry.node.inputs[0].ndim:
        lines[0] += f" axis {', '.join(map(str, entry.node.attrs['axis']))}"
    return _sized(Box(entry, members, inliner.bands[i], inliner.group_of.get(i), titles, tuple(lines), slim))


def _summary_box(inliner: Inliner, summary: Summary) -> Box:
    i = max(i for i in summary.members if inliner.entries[i].role == "update")
    return _sized(
        Box(
            inliner.entries[i], summary.members, inliner.bands[i], summary.group, summary.titles, summary.lines,
            summary.slim,
        )
    )  # fmt: skip


def _sized(box: Box) -> Box:
    """``box`` with room for its text."""
    size, small = (TITLE_SMALL, TYPE_SMALL) if box.slim else (TITLE, TYPE)
    texts = [
        *(sans_width("".join(t for t, _ in title), size) for title in box.titles),
        *(mono_width(line, small) for line in box.lines),
    ]
    extra = 2 * PAD if box.entry.role in ("placeholder", "update") else PAD  # slanted and cut corners take room
    box.width = float(np.ceil(max(texts) + 2 * PAD + extra))
    box.height = float(np.ceil(len(box.titles) * size * 1.35 + len(box.lines) * small * 1.35 + (8 if box.slim else 14)))
    if box.entry.role == "parameter":
        box.height += 6  # the lid of the cylinder
    return box


def _titles(inliner: Inliner, members: tuple[int, ...]) -> tuple[tuple[Span, ...], ...]:
    """One line, or for the steps of an update one a step, in the direction of the flow."""
    entry = inliner.entries[members[-1]]
    if len(members) == 1:
        return (_title(inliner, members[0]),)
    if entry.role == "update":
        steps = [_title(inliner, m) for m in members[-5:]]
        return tuple(reversed(steps) if inliner.bands[members[-1]] == BACKWARD else steps)
    names = [inliner.entries[m].op for m in members]
    shown = names if len(names) <= 3 else [names[0], "...", names[-1]]
    return (((" → ".join(shown), entry.role),),)


def _title(inliner: Inliner, i: int) -> tuple[Span, ...]:
    """Name and op, with those operands written out that have no line of their own."""
    entry = inliner.entries[i]
    if not entry.node.inputs:
        kind = ((f" {entry.op}", "quiet"),) if entry.name else ()
        return ((shortened(entry.name or entry.op, 28), entry.role), *kind)
    sources = inliner.sources[i]
    operands = [inliner.operand(i, s, p) for p, s in enumerate(sources)]
    name = f"{shortened(entry.name, 28)}: " if entry.name else ""
    if entry.op == "gradient":
        return ((f"{name}gradient", entry.role), *_with_respect_to(entry, operands))
    if all(o is None and s not in inliner.transposed for o, s in zip(operands, sources, strict=True)):
        return ((name + entry.op, entry.role),)
    spans: list[Span] = [(f"{name}{entry.op}(", entry.role)]
    for position, (operand, source) in enumerate(zip(operands, sources, strict=True)):
        if position:
            spans.append((", ", entry.role))
        spans.append(operand or ("·.T" if source in inliner.transposed else "·", entry.role))
    return (*spans, (")", entry.role))


def _with_respect_to(entry: Entry, operands: list[Span | None]) -> list[Span]:
    """What a gradient request names: the leaves it differentiates by, as far as they fit."""
    named = [o for o in operands[2 * entry.node.attrs["targets"] :] if o]
    if not named:
        return []
    spans: list[Span] = [(" by ", "quiet")]
    for position, operand in enumerate(named[:6]):
        spans += [(", ", "quiet")] * bool(position) + [operand]
    return spans + [(f", and {len(named) - 6} more", "quiet")] * (len(named) > 6)


def _seeds(sketched: Sketch) -> list[Link]:
    """A dashed line from a single loss to where the way back starts: no tensor flows there, but so one reads it."""
    losses = [b for b, box in enumerate(sketched.boxes) if box.entry.loss and box.band == FORWARD]
    if len(losses) != 1 or sketched.picture.stage == "graph":
        return []
    fed = {link.target for link in sketched.links}
    starts = [
        b for b, box in enumerate(sketched.boxes)
        if box.entry.role == "backward" and b not in fed
        and all(role in ("backward", "constant") for title in box.titles for _, role in title)
    ]  # fmt: skip
    return [Link(losses[0], b, (-1 - losses[0], 0), seed=True) for b in starts[:2]]
