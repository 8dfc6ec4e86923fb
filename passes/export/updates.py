"""Updates as a reader thinks of them: one per parameter, where the graph has a dozen nodes for each.

What an optimiser built (its role says so) is divided into *steps*. The step of a parameter holds every node that only
the writing of that parameter needs, and its slots: parameters that are not trained, and that nothing but updates reads
and writes. What several of them need, such as a count of steps and what is computed from it, is a step of its own.

No reader of a step's node is outside the steps, and what a shared node needs is shared. So lines between steps lead
from shared ones to the others, and boxes drawn for steps make no cycles.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from graphc.opdef import Kind
from graphc.state import PARAMETER
from passes.export.model import Entry, Picture

_SHARED = -1  # in place of a parameter, for what several need


@dataclass(frozen=True, slots=True)
class Step:
    """The update of parameter ``owner``, or with None what several updates need. All are indices into the entries.

    ``members`` are its nodes, inputs first, with those ``slots`` that are not fetched.
    """

    owner: int | None
    members: tuple[int, ...]
    slots: tuple[int, ...]


def steps(picture: Picture) -> list[Step]:
    """The steps of ``picture``: those of parameters in the order of their assignments, then the shared ones."""
    return _Division(picture).steps()


class _Division:
    """The nodes that optimisers built, each with the parameter that needs it."""

    def __init__(self, picture: Picture) -> None:
        self.entries = picture.entries
        self.sources: list[list[int]] = [[picture.index[t.node] for t in e.node.inputs] for e in picture.entries]
        self.readers: list[list[int]] = [[] for _ in picture.entries]
        for edge in picture.edges:
            self.readers[edge.source].append(edge.target)
        self.inner = self._inner()
        self.slots = [i for i in self.inner if self.entries[i].node.op is PARAMETER]
        # Which parameter needs a node: nobody known yet, one, or several.
        self.need: dict[int, int | None] = dict.fromkeys(self.inner)
        for i in self.inner:
            if self._writes(i) and self.sources[i][0] not in self.need:
                self.need[i] = self.sources[i][0]
        self._settle()
        self._place_rest()

    def _writes(self, i: int) -> bool:
        return self.entries[i].node.op.kind is Kind.UPDATE

    def _inner(self) -> list[int]:
        """Nodes that optimisers built for nothing but updates, inputs first."""
        found: set[int] = set()
        for i in reversed(range(len(self.entries))):
            if (self._is_slot(i) or self._is_built(self.entries[i])) and all(r in found for r in self.readers[i]):
                found.add(i)
        return sorted(found)

    def _is_built(self, entry: Entry) -> bool:
        return entry.node.role == "update" and entry.role == "update" and not entry.fetched

    def _is_slot(self, i: int) -> bool:
        node = self.entries[i].node
        return node.op is PARAMETER and not node.attrs["trainable"] and any(self._writes(r) for r in self.readers[i])

    def _settle(self) -> None:
        """Whatever a node is needed for, its inputs are needed for too; a slot is written for what it is read for."""
        changed = True
        while changed:
            changed = False
            for i in reversed(self.inner):
                beyond = self.sources[i][:1] if self._writes(i) else self.readers[i]
                need = _merged(self.need[i], (self.need.get(other) for other in beyond))
                changed |= need != self.need[i]
                self.need[i] = need

    def _place_rest(self) -> None:
        """A slot that is only written, such as a mean of past weights, belongs to the parameter it is computed from."""
        fed: dict[int, int | None] = {}
        owners = {n for n in self.need.values() if n is not None}
        for i in self.inner:
            sources = self.sources[i]
            fed[i] = _merged(self.need[i], (s if s in owners else fed.get(s) for s in sources))
        for i in self.inner:
            if self._writes(i) and self.need[i] is None:
                found = fed[i]
                self.need[i] = self.need[self.sources[i][0]] = _SHARED if found is None else found
        self._settle()

    def steps(self) -> list[Step]:
        of_owner: dict[int, list[int]] = {}
        shared: list[int] = []
        for i in self.inner:
            need = self.need[i]
            (shared if need is None or need == _SHARED else of_owner.setdefault(need, [])).append(i)
        order = sorted(of_owner, key=lambda owner: max(of_owner[owner]))
        parts = [(owner, of_owner[owner]) for owner in order]
        return [self._step(owner, part) for owner, part in [*parts, *((None, p) for p in self._connected(shared))]]

    def _step(self, owner: int | None, part: list[int]) -> Step:
        slots = tuple(i for i in part if self.entries[i].node.op is PARAMETER)
        return Step(owner, tuple(i for i in part if not self.entries[i].fetched), slots)

    def _connected(self, nodes: list[int]) -> list[list[int]]:
        """The connected parts of some nodes."""
        pending = set(nodes)
        parts: list[list[int]] = []
        for root in nodes:
            part, stack = [], [root] if root in pending else []
            pending.discard(root)
            while stack:
                i = stack.pop()
                part.append(i)
                near = [j for j in [*self.sources[i], *self.readers[i]] if j in pending]
                stack += dict.fromkeys(near)
                pending.difference_update(near)
            if part:
                parts.append(sorted(part))
        return parts


def _merged(need: int | None, others: Iterable[int | None]) -> int | None:
    """The one parameter named, or that several are."""
    for other in others:
        if other is not None and need != other:
            need = other if need is None else _SHARED
    return need
