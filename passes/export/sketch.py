"""From a picture to boxes and links: what gets a box of its own, what is said inside its reader, and how big each box
is.

A drawing with a box for every scalar and a line for every second read of a weight is unreadable. Scalars, extents and
their broadcasts are written into the label of what reads them, ``multiply(0.5, ·)``; a named parameter or placeholder
is drawn once and read by name in the backward half, ``matmul(·, w2.T)``; a transposed matrix is ``·.T``; runs of
views, and the steps from a gradient to its ``assign``, share one box.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from graphc.opdef import Kind
from passes.export.measure import PAD, TITLE, TITLE_SMALL, TYPE, TYPE_SMALL, mono_width, sans_width, shortened
from passes.export.model import Entry, Picture, is_leaf, type_text

FORWARD, BACKWARD = 0, 1  # bands: the forward half flows down, the backward half flows back up
_VIEWS = (Kind.VIEW, Kind.RESHAPE)
Span = tuple[str, str]  # text, and the role that colours it


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
    """All boxes and links of a picture, and which boxes belong to which group."""

    picture: Picture
    boxes: list[Box] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    groups: list[list[int]] = field(default_factory=list)


class _Inliner:
    """Decides which entries are written inside their readers, and how."""

    def __init__(self, picture: Picture) -> None:
        self.picture = picture
        self.entries = picture.entries
        self.readers: list[list[int]] = [[] for _ in picture.entries]
        for edge in picture.edges:
            self.readers[edge.source].append(edge.target)
        self.sources: list[list[int]] = [[picture.index[t.node] for t in e.node.inputs] for e in picture.entries]
        self.bands = self._bands()
        self.group_of = {i: g for g, group in enumerate(picture.groups) for i in group.members}
        names = Counter(e.name for e in picture.entries if is_leaf(e.node))
        self.anchored = {
            i for i, e in enumerate(self.entries)
            if is_leaf(e.node) and e.name and names[e.name] == 1 and self.bands[i] == FORWARD
        }  # fmt: skip
        self.text: dict[int, Span] = {}
        for i in range(len(self.entries)):
            span = None if self.entries[i].fetched else self._as_text(i)
            if span is not None:
                self.text[i] = span
        self.transposed = {i: self.sources[i][0] for i in range(len(self.entries)) if self._is_transpose(i)}
        self._keep_groups()

    def _bands(self) -> list[int]:
        bands = [FORWARD] * len(self.entries)
        for i, entry in enumerate(self.entries):
            if entry.role == "backward" or any(bands[s] == BACKWARD for s in self.sources[i]):
                bands[i] = BACKWARD
        for i, entry in enumerate(self.entries):
            if not entry.node.inputs and self.readers[i] and all(bands[r] == BACKWARD for r in self.readers[i]):
                bands[i] = BACKWARD
        return bands

    def _as_text(self, i: int) -> Span | None:
        entry = self.entries[i]
        if entry.op == "constant" and not entry.name and entry.node.attrs["value"].ndim == 0:
            return _number(entry.node.attrs["value"]), "constant"
        if entry.op == "extent":
            return shortened(_extent(entry), 18), "constant"
        if entry.node.op.kind not in _VIEWS or len(self.sources[i]) != 1:
            return None
        source = self.sources[i][0]
        if source in self.text and self.text[source][1] == "constant":
            return self.text[source]
        reverse = tuple(range(entry.node.outputs[0].ndim))[::-1]
        if source in self.anchored and self.bands[i] == BACKWARD and entry.node.attrs.get("axes") == reverse:
            return f"{shortened(str(self.entries[source].name), 20)}.T", self.entries[source].role
        return None

    def _is_transpose(self, i: int) -> bool:
        """Whether its readers may write ``·.T`` for it: a matrix transposed for them alone."""
        entry = self.entries[i]
        if entry.node.attrs.get("axes") != (1, 0) or entry.op != "permute_dims" or entry.fetched or i in self.text:
            return False
        own = self.group_of.get(i)
        plain = all(self.group_of.get(r) == own and self.entries[r].node.op.kind not in _VIEWS for r in self.readers[i])
        return plain and self.sources[i][0] not in self.text

    def _keep_groups(self) -> None:
        """A kernel whose nodes would all vanish into labels keeps them as boxes."""
        for group in self.picture.groups:
            if all(i in self.text or i in self.transposed for i in group.members):
                for i in group.members:
                    self.text.pop(i, None)
                    self.transposed.pop(i, None)

    def lines_into(self, i: int) -> int:
        """How many operands of an entry are not written into its label."""
        return sum(self.operand(i, s, p) is None for p, s in enumerate(self.sources[i]))

    def operand(self, reader: int, source: int, position: int) -> Span | None:
        """What ``reader`` writes for its input, or None when a line comes in."""
        if source in self.text:
            return self.text[source]
        leaf = self.entries[source]
        written = self.entries[reader].op == "assign" and position == 0 and len(self.readers[source]) > 1
        if (source in self.anchored and self.bands[reader] == BACKWARD) or (written and leaf.name):
            return shortened(str(leaf.name), 20), leaf.role
        return None


def _extent(entry: Entry) -> str:
    extent = str(entry.node.attrs["extent"])
    return "extent" if "?" in extent else extent


def _number(value: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> str:
    item = value.item()
    return str(item) if isinstance(item, (bool, int)) and abs(item) < 10**9 else f"{item:.4g}"


def sketch(picture: Picture) -> Sketch:
    """Boxes and links of ``picture``, with sizes and without places."""
    inliner = _Inliner(picture)
    drawn = [i for i in range(len(picture.entries)) if i not in inliner.text and i not in inliner.transposed]
    merged = _merged(inliner, drawn)
    result = Sketch(picture, groups=[[] for _ in picture.groups])
    box_of: dict[int, int] = {}
    for i in drawn:
        if i in merged:
            continue
        box = _box(inliner, i, _chain(merged, inliner, i))
        for member in box.members:
            box_of[member] = len(result.boxes)
        if box.group is not None:
            result.groups[box.group].append(len(result.boxes))
        result.boxes.append(box)
    for i in drawn:
        for position, (source, tensor) in enumerate(
            zip(inliner.sources[i], picture.entries[i].node.inputs, strict=True)
        ):
            if inliner.operand(i, source, position) is None:
                index = 0 if source in inliner.transposed else tensor.index
                origin = inliner.transposed.get(source, source)
                if box_of[origin] != box_of[i]:
                    result.links.append(Link(box_of[origin], box_of[i], (origin, index)))
    result.links += _seeds(result)
    return result


def _merged(inliner: _Inliner, drawn: list[int]) -> dict[int, int]:
    """Entries drawn in the box of their single reader, and that reader: runs of views, and the steps of an update."""
    merged: dict[int, int] = {}
    for i in drawn:
        readers, entry = inliner.readers[i], inliner.entries[i]
        if len(readers) != 1 or entry.fetched or len(entry.node.results) != 1:
            continue
        (j,) = readers
        reader = inliner.entries[j]
        views = entry.node.op.kind in _VIEWS and reader.node.op.kind in _VIEWS
        steps = entry.role == reader.role == "update" and inliner.lines_into(j) == 1 == inliner.lines_into(i)
        apart = j in inliner.text or j in inliner.transposed or inliner.group_of.get(i) != inliner.group_of.get(j)
        if (views or steps) and not apart:
            merged[i] = j
    return merged


def _chain(merged: dict[int, int], inliner: _Inliner, last: int) -> tuple[int, ...]:
    """The run of entries that share the box of ``last``, first to last."""
    run = [last]
    while True:
        before = [s for s in inliner.sources[run[-1]] if merged.get(s) == run[-1]]
        if not before:
            return tuple(reversed(run))
        run.append(before[0])


def _box(inliner: _Inliner, i: int, members: tuple[int, ...]) -> Box:
    entry = inliner.entries[i]
    slim = entry.node.op.kind in _VIEWS or entry.role == "constant"
    titles = _titles(inliner, members)
    if entry.loss:
        titles = ((("loss ", "loss"), *titles[0]), *titles[1:])
    types = entry.node.results or (entry.node.inputs[0].type,)  # an update writes its parameter's type
    lines = [shortened(type_text(t), 44) for t in types[:3]]
    if len(types) > 3:
        lines.append(f"and {len(types) - 3} more")
    if entry.node.op.kind is Kind.REDUCE and len(entry.node.attrs["axis"]) < entry.node.inputs[0].ndim:
        lines[0] += f" axis {', '.join(map(str, entry.node.attrs['axis']))}"
    box = Box(entry, members, inliner.bands[i], inliner.group_of.get(i), titles, tuple(lines), slim)
    size, small = (TITLE_SMALL, TYPE_SMALL) if slim else (TITLE, TYPE)
    texts = [
        *(sans_width("".join(t for t, _ in title), size) for title in titles),
        *(mono_width(line, small) for line in lines),
    ]
    extra = 2 * PAD if entry.role in ("placeholder", "update") else PAD  # slanted and cut corners take room
    box.width = float(np.ceil(max(texts) + 2 * PAD + extra))
    box.height = float(np.ceil(len(titles) * size * 1.35 + len(lines) * small * 1.35 + (8 if slim else 14)))
    if entry.role == "parameter":
        box.height += 6  # the lid of the cylinder
    return box


def _titles(inliner: _Inliner, members: tuple[int, ...]) -> tuple[tuple[Span, ...], ...]:
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


def _title(inliner: _Inliner, i: int) -> tuple[Span, ...]:
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
