"""The order of calls: what is read is written before; parameters are overwritten last; ties go to the order of the
graph.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from graphc.errors import CompilerError
from passes.epilogue import Canonical, join_epilogues
from passes.graph import Graph
from passes.program import Buffer, Call, CopyCall, loops_of


def schedule(calls: Sequence[Call], final: Sequence[CopyCall], graph: Graph, canonical: Canonical) -> list[Call]:
    """``calls`` and then ``final``, the copies into parameters, in an order in which they can run; matrix products
    with their epilogues.
    """
    everything: list[Call] = [*calls, *final]
    everything = join_epilogues(everything, _constraints(everything), canonical)
    order = _topological(_constraints(everything), _priorities(everything, graph))
    return [everything[i] for i in order]


def _constraints(everything: Sequence[Call]) -> list[set[int]]:
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
    return after


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


def _topological(after: Sequence[set[int]], priority: Sequence[int]) -> list[int]:
    waiting = [0] * len(after)
    for targets in after:
        for target in targets:
            waiting[target] += 1
    ready = [(priority[i], i) for i, count in enumerate(waiting) if not count]
    heapq.heapify(ready)
    order: list[int] = []
    while ready:
        _, i = heapq.heappop(ready)
        order.append(i)
        for target in after[i]:
            waiting[target] -= 1
            if not waiting[target]:
                heapq.heappush(ready, (priority[target], target))
    if len(order) != len(after):
        raise CompilerError("the kernels of this program wait for each other in a circle; please report this graph")
    return order
