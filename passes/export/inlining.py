"""What has no box: which nodes are written inside their readers, and how; and in which half of the picture each is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from graphc.opdef import Kind
from passes.export.measure import shortened
from passes.export.model import Entry, Picture, is_leaf
from passes.export.updates import Step

FORWARD, BACKWARD = 0, 1  # bands: the forward half flows down, the backward half flows back up
VIEWS = (Kind.VIEW, Kind.RESHAPE)
Span = tuple[str, str]  # text, and the role that colours it


class Inliner:
    """Decides which entries are written inside their readers, and how."""

    def __init__(self, picture: Picture, steps: Sequence[Step]) -> None:
        self.picture = picture
        self.entries = picture.entries
        self.readers: list[list[int]] = [[] for _ in picture.entries]
        for edge in picture.edges:
            self.readers[edge.source].append(edge.target)
        self.sources: list[list[int]] = [[picture.index[t.node] for t in e.node.inputs] for e in picture.entries]
        self.bands = self._bands([i for step in steps for i in step.members])
        self.group_of = {i: g for g, group in enumerate(picture.groups) for i in group.members}
        for i, entry in enumerate(self.entries):
            if entry.node.op.kind is Kind.UPDATE and self.sources[i][1] in self.group_of:
                self.group_of[i] = self.group_of[self.sources[i][1]]  # the kernel writes where it is told to
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

    def _bands(self, updating: Sequence[int]) -> list[int]:
        """Updates stand in the backward half if there is one: the gradients come from there."""
        bands = [FORWARD] * len(self.entries)
        for i, entry in enumerate(self.entries):
            if entry.role == "backward" or any(bands[s] == BACKWARD for s in self.sources[i]):
                bands[i] = BACKWARD
        self.waits = [band == BACKWARD for band in bands]  # for something of the backward half
        if BACKWARD in bands:
            for i in updating:
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
        if entry.node.op.kind not in VIEWS or len(self.sources[i]) != 1:
            return None
        source = self.sources[i][0]
        if source in self.text and self.text[source][1] == "constant":
            return self.text[source]
        reverse = tuple(range(entry.node.outputs[0].ndim))[::-1]
        if source in self.anchored and self.bands[i] == BACKWARD and entry.node.attrs.get("axes") == reverse:
            return f"{shortened(str(self.entries[source].name), 20)}.T", self.entries[source].role
        return None

    def _is_transpose(self, i: int) -> bool:
        """Whether its readers may write ``·.T`` for it: a matrix transposed for them alone, or by no kernel."""
        entry = self.entries[i]
        if entry.node.attrs.get("axes") != (1, 0) or entry.op != "permute_dims" or entry.fetched or i in self.text:
            return False
        own = self.group_of.get(i)
        plain = all(
            own in (None, self.group_of.get(r)) and self.entries[r].node.op.kind not in VIEWS for r in self.readers[i]
        )
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
