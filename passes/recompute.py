"""The second half of rematerialisation: a graph in which late readers take a value from a second node like the first.

The second node is equal to the first and no pass merges the two: what merges equal nodes has run. ``Graph.after`` says
what the second one waits for, so that fusion and the order of calls keep it late.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from graphc.node import Node, Tensor
from graphc.opdef import Kind
from passes.graph import Graph
from passes.program import Call

CallsOf = Mapping[Node, Set[int]]


@dataclass(frozen=True, eq=False)
class Again:
    """``tensor`` is given up: what reads it in call ``start`` or later reads it from a second node. ``calls`` are all
    that have it, its maker included; ``inner`` is what is computed a second time for it, and ``behind`` what must be
    there before.
    """

    tensor: Tensor
    start: int
    calls: frozenset[int]
    inner: tuple[Tensor, ...]
    behind: Tensor


def calls_of(calls: Sequence[Call]) -> dict[Node, set[int]]:
    """For each node the numbers of the calls that compute it, or read through it as a view."""
    found: dict[Node, set[int]] = {}
    for number, call in enumerate(calls):
        inside = set(call.nodes)
        for node in call.nodes:
            found.setdefault(node, set()).add(number)
            for tensor in node.inputs:
                behind = tensor.node
                while behind.op.kind in (Kind.VIEW, Kind.RESHAPE) and behind not in inside:
                    found.setdefault(behind, set()).add(number)
                    behind = behind.inputs[0].node
    return found


def recomputed(graph: Graph, given_up: Sequence[Again], where: CallsOf) -> Graph:
    """``graph`` with second nodes for what is ``given_up``; ``where`` has the calls of each node."""
    late: set[tuple[Node, Tensor]] = set()  # who reads what from a second node
    copied: dict[Tensor, Tensor] = {}
    for again in given_up:
        copied.update((t, again.behind) for t in again.inner if t not in copied)
        pending = [(again.tensor, again.calls)]
        while pending:
            tensor, calls = pending.pop()
            for node in dict.fromkeys(graph.readers[tensor]):
                mine = calls & where.get(node, frozenset())
                if mine and min(mine) >= again.start:
                    late.add((node, tensor))
                elif mine and max(mine) >= again.start:  # it is computed by early and late calls
                    copied.setdefault(node.outputs[0], again.behind)
                    pending.append((node.outputs[0], mine))
    first: dict[Tensor, Tensor] = {}  # without those that stay
    second: dict[Tensor, Tensor] = {}
    updates: dict[Node, Node] = {}
    for node in graph.nodes:
        fresh = _on(node, [second[t] if (node, t) in late else first.get(t, t) for t in node.inputs])
        updates[node] = fresh
        if fresh is not node:
            first.update(zip(node.outputs, fresh.outputs, strict=True))
        if any(t in copied for t in node.outputs):
            copy = node.rebuilt(tuple([second.get(t, first.get(t, t)) for t in node.inputs]))
            second.update(zip(node.outputs, copy.outputs, strict=True))
    after = {second[t]: first.get(behind, behind) for t, behind in copied.items()}
    return Graph(tuple([first.get(t, t) for t in graph.outputs]), tuple([updates[u] for u in graph.updates]), after)


def _on(node: Node, inputs: Sequence[Tensor]) -> Node:
    same = all(new is old for new, old in zip(inputs, node.inputs, strict=True))
    return node if same else node.rebuilt(tuple(inputs))
