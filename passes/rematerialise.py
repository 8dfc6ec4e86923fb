"""Values computed again rather than kept: which, so that less memory is in use at the peak of a run.

What a gradient needs of the forward pass waits in memory meanwhile. Some of it is a few operations away from what waits
there anyway, from inputs and parameters, or from one number for each row: it is given up after its early readers, and
made a second time where late readers need it; for a matrix product, which reads memory, by a kernel before it. (The
idea: T. Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016.)

The choice is made on the calls of a program, in their order: what waits through the peak and costs least for its bytes
is given up, as long as that lowers the peak and raises none; what turns out not to lower it after all is kept.
``recompute.py`` rewrites the graph, which is then lowered again; ``lower.py`` takes the program that needs less.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

import numpy as np

from graphc.node import Node, Tensor
from graphc.opdef import Kind
from passes.graph import Graph
from passes.memory import lifetimes, temporaries
from passes.program import Buffer, GemmCall, Program, loops_of
from passes.recompute import Again, calls_of, recomputed
from passes.schedule import ASSUMED, assumed_bytes, assumed_peak, assumed_size
from passes.waves import one_by_one

WORTH = 1 << 16  # bytes: less fits a cache, and is not worth computing anything again
SHARE = 16  # nor is less than this part of the peak
CACHED = 1 << 20  # bytes: what is smaller may still be in a cache when it is read again
AFFORDABLE = {True: 2, False: 8}  # cost of ops, by whether what is given up is cached, that a byte of it is worth
SLOWER = 50  # all of them together may take this part of the time of the run
FLOPS = 4  # of matrix products take as long as ops of cost 1
SMALL = 16  # times smaller than a value: that may be kept to make the value of
OTHERWISE = (ASSUMED // 8, ASSUMED * 8)
HARDLY = 65 / 64
LONGEST = 32  # values computed again for one
CANDIDATES = 512  # the time to choose among them grows with their square
Profile = np.ndarray[Any, np.dtype[np.int64]]


def needs_less(program: Program, other: Program) -> bool:
    """Whether a program needs so much less memory than another that computing something again is worth it, and hardly
    more at extents that are smaller, or larger, than those assumed.
    """
    peak = assumed_peak(other.calls)
    return _is_worth(peak - assumed_peak(program.calls), peak) and all(
        assumed_peak(program.calls, extent) <= assumed_peak(other.calls, extent) * HARDLY for extent in OTHERWISE
    )


def _is_worth(saved: int, peak: int) -> bool:
    """Whether a peak that is lower by so many bytes is worth computing something again."""
    return saved >= max(WORTH, peak // SHARE)


def rematerialised(graph: Graph, program: Program) -> Graph | None:
    """A graph that computes the same as ``graph``, and that may need less memory than ``program``, which was made of
    it; None if nothing is worth computing again.
    """
    life = _Life(graph, program)
    if not _is_worth(life.peak, life.peak):
        return None
    found = list(islice(life.candidates(), CANDIDATES + 1))
    if not found or len(found) > CANDIDATES:
        return None
    given_up = _Choice(life, found).run()
    return recomputed(graph, [c.again for c in given_up], life.calls_of) if given_up else None


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A value that can be made again of ``sources``: of its late readers, the calls ``inline`` can compute it
    themselves, and ``stored`` read memory. ``early`` is the last call that has the first value.
    """

    again: Again
    bytes: int
    early: int
    inline: tuple[int, ...]
    stored: tuple[int, ...]
    sources: tuple[Tensor, ...]
    cost: float

    def frees(self, step: int) -> bool:
        """Whether it need not be in memory during a step."""
        return self.early < step < min(self.stored, default=step + 1)


class _Life:
    """What is in memory during each call, and which calls compute and read it."""

    def __init__(self, graph: Graph, program: Program) -> None:
        self.calls = program.calls
        self.spans = lifetimes(self.calls, one_by_one(self.calls))
        self.sizes = {buffer: assumed_bytes(buffer) for buffer in self.spans}
        self.buffers = {
            b.tensor: b
            for b in program.buffers
            if b.tensor is not None and (b.kind == "output" or (b.kind == "temp" and b in self.spans))
        }
        self.calls_of = calls_of(self.calls)
        self._graph = graph
        self._touched: dict[Buffer, list[int]] = {}
        for i, call in enumerate(self.calls):
            for buffer in temporaries(call):
                self._touched.setdefault(buffer, []).append(i)
        self.change = [0] * (len(self.calls) + 1)  # of the bytes in use
        for buffer, (first, last) in self.spans.items():
            self.change[first] += self.sizes[buffer]
            self.change[last + 1] -= self.sizes[buffer]
        self.work = sum(_work(node) * len(calls) for node, calls in self.calls_of.items()) + sum(
            size * len(self._touched[buffer]) for buffer, size in self.sizes.items()
        )
        self.profile: Profile = np.cumsum(self.change[:-1])
        self.peak = int(self.profile.max(initial=0))

    def candidates(self) -> Iterator[_Candidate]:
        """What waits in memory for a late reader, and can be made again at a price; the readers first."""
        for node in reversed(self._graph.nodes):
            for tensor in node.outputs:
                buffer = self.buffers.get(tensor)
                if buffer in self.spans and self.sizes[buffer] >= WORTH:
                    found = self._candidate(tensor, buffer)
                    if found is not None:
                        yield found

    def _candidate(self, tensor: Tensor, buffer: Buffer) -> _Candidate | None:
        touched = self._touched[buffer]
        gap, start = max(((late - early, late) for early, late in pairwise(touched)), default=(0, 0))
        early, late = start - gap, [i for i in touched if i >= start]
        behind = self._awaited(start, early)
        if gap < 2 or behind is None or any(buffer in self.calls[i].writes for i in touched[1:]):
            return None
        made = self._cone(tensor)
        if made is None:
            return None
        inner, sources, cost = made
        inline = [i for i in late if self._computes(tensor, i)]
        stored = [i for i in late if i not in inline]
        inline = [i for i in inline if i < min(stored, default=i + 1)]
        stored = [i for i in late if i not in inline]
        again = Again(tensor, start, frozenset(touched), inner, behind)
        found = _Candidate(again, self.sizes[buffer], early, tuple(inline), tuple(stored), sources, cost)
        return found if found.frees(early + 1) else None

    def _awaited(self, start: int, early: int) -> Tensor | None:
        """What call ``start`` reads that was made last, if that is after ``early``: a second node waits for it too."""
        made = [(self.spans[b][0], b.id, b.tensor) for b in self.calls[start].reads if b in self.spans]
        fresh = [found for found in made if early < found[0] < start and found[2] is not None]
        return max(fresh, key=lambda found: found[:2])[2] if fresh else None

    def _computes(self, tensor: Tensor, number: int) -> bool:
        """Whether a call that reads ``tensor`` could compute it instead: it need not have it in memory."""
        call, buffer = self.calls[number], self.buffers[tensor]
        if not loops_of(call) or (isinstance(call, GemmCall) and buffer in (call.a.buffer, call.b.buffer)):
            return False
        pending = [tensor]
        while pending:
            for reader in self._graph.readers[pending.pop()]:
                if number in self.calls_of.get(reader, ()):
                    if reader.op.kind is Kind.VIEW:
                        pending.append(reader.outputs[0])
                    elif reader.op.kind not in (Kind.SCALAR, Kind.REDUCE):
                        return False
        return True

    def _cone(self, tensor: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], float] | None:
        """What is computed to make ``tensor`` again, of which values that are in memory or could be, and the cost for
        each element; None if that is too much.
        """
        inner: dict[Tensor, None] = {}
        sources: dict[Tensor, None] = {}
        size, cost, pending = max(1, assumed_size(tensor.shape)), 0.0, [tensor]
        while pending:
            value = pending.pop()
            node = value.node
            if value in inner or node.op.kind is Kind.LEAF:
                continue
            if value is not tensor and value in self.buffers:
                sources[value] = None
            elif node.op.kind is Kind.VIEW or (node.op.kind is Kind.SCALAR and not node.op.fallible):
                inner[value] = None
                cost += node.op.cost * assumed_size(value.shape) / size
                if cost > _affordable(tensor) or len(inner) > LONGEST:
                    return None
                pending += node.inputs
            elif assumed_size(value.shape) * SMALL <= size and node.op.kind is Kind.REDUCE:
                sources[value] = None
            else:
                return None
        return tuple(inner), tuple(sources), cost


def _affordable(tensor: Tensor) -> int:
    """The cost for each element at which a value may be made again: writing it to memory and reading it costs that."""
    size = tensor.dtype.itemsize
    return size * AFFORDABLE[size * assumed_size(tensor.shape) < CACHED]


def _work(node: Node) -> float:
    """What computing a node costs, in ops of cost 1."""
    made = sum(assumed_size(t.shape) for t in node.outputs)
    if node.op.kind is Kind.MATMUL:
        return 2 * made * assumed_size(node.inputs[0].shape[-2 if node.attrs.get("trans_a") else -1 :][:1]) / FLOPS
    return node.op.cost * max([made, *(assumed_size(t.shape) for t in node.inputs if node.op.kind is Kind.REDUCE)])


class _Choice:
    """Which candidates are given up."""

    def __init__(self, life: _Life, found: Sequence[_Candidate]) -> None:
        self._life = life
        self._rank = {candidate: i for i, candidate in enumerate(found)}  # those that read others come first
        self._pending = sorted(found, key=lambda c: -c.bytes / (1 + c.cost))

    def run(self) -> list[_Candidate]:
        """Those without which the peak is lower; nothing, unless it is by what makes it worth it."""
        chosen: list[_Candidate] = []
        profile = self._life.profile
        while True:
            peak = int(profile.argmax())
            candidate = next((c for c in self._pending if c.frees(peak)), None)
            if candidate is None:
                break
            self._pending.remove(candidate)
            other = self._profile([*chosen, candidate])
            if other is not None and other[peak] < profile[peak] and other.max() <= profile[peak]:
                chosen.append(candidate)
                profile = other
        top = int(profile.max())
        for candidate in sorted(chosen, key=lambda c: -c.cost):
            rest = [c for c in chosen if c is not candidate]
            other = self._profile(rest)
            if other is not None and other.max() <= top:
                chosen = rest
        return chosen if _is_worth(self._life.peak - top, self._life.peak) else []

    def _profile(self, chosen: Sequence[_Candidate]) -> Profile | None:
        """What is in memory during each call without the candidates; None if that takes too long."""
        life = self._life
        change = life.change.copy()

        def add(first: int, last: int, size: int) -> None:
            if first <= last:
                change[first] += size
                change[last + 1] -= size

        needed: dict[Tensor, list[int]] = {}  # when others are made of it
        kept_until: dict[Tensor, int] = {}
        spent = 0.0
        candidates = {c.again.tensor for c in chosen}
        for candidate in sorted(chosen, key=self._rank.__getitem__):
            again, stored, asked = candidate.again, candidate.stored, needed.get(candidate.again.tensor, ())
            early = max([candidate.early, *(i for i in asked if i < again.start)])
            late = [*candidate.inline, *(i for i in asked if i >= again.start)]
            add(early + 1, life.spans[life.buffers[again.tensor]][1], -candidate.bytes)
            if stored:
                add(stored[0], max([stored[-1], *late]), candidate.bytes)
                late = [*(i for i in late if i < stored[0]), stored[0]]
            cost = candidate.cost * len(set(late))
            spent += cost * assumed_size(again.tensor.shape)
            if cost > _affordable(again.tensor) or spent * SLOWER > life.work:
                return None
            for source in candidate.sources:
                if source in candidates:
                    needed.setdefault(source, []).extend(late)
                else:
                    kept_until[source] = max([kept_until.get(source, 0), *late])
        for source, until in kept_until.items():
            buffer = life.buffers.get(source)
            if buffer is None:
                size = assumed_size(source.shape) * source.dtype.itemsize
                add(min(life.calls_of.get(source.node, {0})), until, size)
            elif buffer.kind == "temp":
                add(life.spans[buffer][1] + 1, until, life.sizes[buffer])
        return np.cumsum(change[:-1])
