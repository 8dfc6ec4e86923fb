"""The order of calls: what is read is written before, parameters are overwritten last, and little lives at one time.

Of the calls that can run next, those go first that leave no more memory in use than they find; of these, the one that
needs least room while it runs. (For calls that do not wait for each other that is the best order: H. Abdel-Wahab and
T. Kameda, "Scheduling to Minimize Maximum Cumulative Cost Subject to Series-Parallel Precedence Constraints", 1978.) So
an update follows its gradient, and what only the gradient needed is free again. Calls that leave more in use keep the
order of the graph.

The order is part of the program, and made before extents are known: one that a run binds counts as ``ASSUMED``. Other
extents seldom ask for another order.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence

from graphc.dims import Dim, Extent, Floor, Minimum, Quotient, Symbol
from graphc.errors import CompilerError
from passes.epilogue import Canonical, join_epilogues
from passes.graph import Graph
from passes.memory import largest_live, lifetimes, rounded, temporaries
from passes.program import Buffer, Call, CopyCall, loops_of
from passes.waves import one_by_one

ASSUMED = 128
PARTS = 16  # slices of partial results
Sizes = Mapping[Buffer, int]


def schedule(calls: Sequence[Call], final: Sequence[CopyCall], graph: Graph, canonical: Canonical) -> list[Call]:
    """``calls`` and then ``final``, the copies into parameters, in an order in which they can run; matrix products
    with their epilogues.
    """
    everything: list[Call] = [*calls, *final]
    everything = join_epilogues(everything, _constraints(everything, graph), canonical)
    after, priority = _constraints(everything, graph), _priorities(everything, graph)
    sizes = _sizes(everything)
    orders = [
        [everything[i] for i in _ordered(after, priority, _Room(everything, known))]
        for known in (sizes, dict.fromkeys(sizes, 0))  # the second is the order of the graph
    ]
    return min(orders, key=assumed_peak)


def assumed_peak(order: Sequence[Call], unknown: int = ASSUMED) -> int:
    """The most that lives at one time, in bytes, where every extent that is not known is ``unknown``."""
    return largest_live(lifetimes(order, one_by_one(order)), _sizes(order, unknown))


def _sizes(calls: Sequence[Call], unknown: int = ASSUMED) -> dict[Buffer, int]:
    return {buffer: assumed_bytes(buffer, unknown) for call in calls for buffer in temporaries(call)}


def _constraints(everything: Sequence[Call], graph: Graph) -> list[set[int]]:
    """For each call, the calls that must come after it."""
    after: list[set[int]] = [set() for _ in everything]
    writers: dict[Buffer, list[int]] = {}
    readers: dict[Buffer, list[int]] = {}
    for i, call in enumerate(everything):
        for buffer in call.writes:
            writers.setdefault(buffer, []).append(i)
        for buffer in call.reads:
            readers.setdefault(buffer, []).append(i)
    fallible = [i for i, call in enumerate(everything) if any(loop.guards for loop in loops_of(call))]
    for buffer, who in writers.items():
        if buffer.kind == "parameter":
            for i in who:
                _order_overwrite(i, readers.get(buffer, []), fallible, after)
        else:
            # Several calls fill one buffer each in its own place, but what adds to it comes after what fills it.
            adding = [i for i in who if buffer in everything[i].reads]
            filling = [i for i in who if i not in adding]
            for i in filling:
                after[i].update(adding)
            for position, i in enumerate(adding):
                after[i].update(adding[position + 1 :])
            for i in who:
                after[i].update(r for r in readers.get(buffer, []) if r not in who)
    if graph.after:
        _keep_late(graph, writers, after)
    return after


def _keep_late(graph: Graph, writers: Mapping[Buffer, Sequence[int]], after: list[set[int]]) -> None:
    """What is computed again comes behind what its readers wait for anyway, where that leads to no circle."""
    makers = {buffer.tensor: who for buffer, who in writers.items() if buffer.tensor is not None}
    for tensor, behind in graph.after.items():
        for first in makers.get(behind, ()):
            for second in makers.get(tensor, ()):
                if first != second and not _leads_to(second, first, after):
                    after[first].add(second)


def _leads_to(start: int, end: int, after: Sequence[set[int]]) -> bool:
    pending, seen = [start], {start}
    while pending:
        fresh = after[pending.pop()] - seen
        if end in fresh:
            return True
        seen |= fresh
        pending += fresh
    return False


def _order_overwrite(writer: int, readers: Sequence[int], fallible: Sequence[int], after: list[set[int]]) -> None:
    """Everything that reads the old value, and everything that may fail, comes before the writer."""
    for reader in readers:
        if reader != writer:
            after[reader].add(writer)
    for check in fallible:
        if check != writer:
            after[check].add(writer)


def _priorities(calls: Sequence[Call], graph: Graph) -> list[int]:
    index = {node: i for i, node in enumerate(graph.nodes)}
    return [max((index.get(n, len(index)) for n in call.nodes), default=len(index)) for call in calls]


def _ordered(after: Sequence[set[int]], priority: Sequence[int], room: _Room) -> list[int]:
    waiting = [0] * len(after)
    for targets in after:
        for target in targets:
            waiting[target] += 1
    ready = [(*room.rank(i), priority[i], i) for i, count in enumerate(waiting) if not count]
    heapq.heapify(ready)
    order: list[int] = []
    while ready:
        *rank, _, i = heapq.heappop(ready)
        if waiting[i] < 0 or tuple(rank) != room.rank(i):
            continue  # it has run, or stands further ahead by now
        order.append(i)
        waiting[i] = -1
        better = room.run(i)
        for target in after[i]:
            waiting[target] -= 1
        for other in {*better, *after[i]}:
            if not waiting[other]:
                heapq.heappush(ready, (*room.rank(other), priority[other], other))
    if len(order) != len(after):
        raise CompilerError("the kernels of this program wait for each other in a circle; please report this graph")
    return order


class _Room:
    """How much memory each call takes into use if it runs next, and how much is free after it. Either only changes for
    the better as other calls run.
    """

    def __init__(self, calls: Sequence[Call], sizes: Sizes) -> None:
        self._sizes = sizes
        self._buffers = [temporaries(call) for call in calls]
        self._users: dict[Buffer, set[int]] = {}
        for i, buffers in enumerate(self._buffers):
            for buffer in buffers:
                self._users.setdefault(buffer, set()).add(i)
        self._used: set[Buffer] = set()
        self._takes = [sum(sizes[b] for b in buffers) for buffers in self._buffers]
        self._frees = [sum(sizes[b] for b in buffers if len(self._users[b]) == 1) for buffers in self._buffers]

    def rank(self, call: int) -> tuple[bool, int]:
        """Smaller for what should run first."""
        takes, frees = self._takes[call], self._frees[call]
        return (True, 0) if takes > frees else (False, takes)

    def run(self, call: int) -> set[int]:
        """Note that ``call`` has run; the calls that take less or free more by it."""
        better: set[int] = set()
        for buffer in self._buffers[call]:
            size, users = self._sizes[buffer], self._users[buffer]
            users.discard(call)
            if buffer not in self._used:
                self._used.add(buffer)
                better |= users
                for user in users:
                    self._takes[user] -= size
            if len(users) == 1:
                (last,) = users
                better.add(last)
                self._frees[last] += size
        return better


def assumed_bytes(buffer: Buffer, unknown: int = ASSUMED) -> int:
    """The size of a buffer of assumed extents."""
    parts = PARTS if buffer.kind == "partial" else 1
    return rounded(assumed_size(buffer.shape, unknown) * buffer.dtype.itemsize * parts)


def assumed_size(shape: Sequence[Extent], unknown: int = ASSUMED) -> int:
    """Elements of a tensor of assumed extents."""
    return round(math.prod(max(0.0, _assumed(extent, unknown)) for extent in shape))


def _assumed(extent: Extent, unknown: int) -> float:
    """The extent, roughly: assumed numbers need not divide each other as those of a run do."""
    if not isinstance(extent, Dim):
        return extent
    terms = extent.terms
    return sum(c * math.prod(_assumed_atom(a, unknown) ** p for a, p in atoms) for atoms, c in terms)


def _assumed_atom(atom: Symbol | Quotient | Floor | Minimum, unknown: int) -> float:
    if isinstance(atom, Symbol):
        return unknown
    if isinstance(atom, Minimum):
        return min(_assumed(e, unknown) for e in atom.extents)
    divisor = atom.divisor if isinstance(atom, Floor) else _assumed(atom.denominator, unknown)
    return _assumed(atom.numerator, unknown) / max(divisor, 1.0)
