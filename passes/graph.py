"""A graph being compiled: what is fetched and what is updated; walks and rebuilds over it.

Graphs are never mutated. A pass is a function ``Graph -> Graph`` that rebuilds what it changes and shares the rest. All
walks are iterative, so that depth is limited by memory alone.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from graphc.node import Node, Tensor


@dataclass(frozen=True)
class Graph:
    """Fetched tensors, and the ``assign`` nodes whose updates take effect at the end of a run."""

    outputs: tuple[Tensor, ...]
    updates: tuple[Node, ...] = ()

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes, inputs before readers, in an order that depends only on the graph's structure."""
        return topological([*(t.node for t in self.outputs), *self.updates])

    @cached_property
    def readers(self) -> dict[Tensor, list[Node]]:
        """For each tensor, the nodes that read it, in topological order; once for each time it is an input."""
        found: dict[Tensor, list[Node]] = {t: [] for node in self.nodes for t in node.outputs}
        for node in self.nodes:
            for tensor in node.inputs:
                found[tensor].append(node)
        return found


def topological(roots: Iterable[Node]) -> tuple[Node, ...]:
    """Every node reachable from ``roots``, inputs first (an iterative depth-first postorder)."""
    order: list[Node] = []
    done: set[Node] = set()
    for root in roots:
        stack: list[tuple[Node, int]] = [(root, 0)]
        while stack:
            node, position = stack.pop()
            if position == 0:
                if node in done:
                    continue
                done.add(node)
            inputs = node.inputs
            while position < len(inputs) and inputs[position].node in done:
                position += 1
            if position < len(inputs):
                stack.append((node, position + 1))
                stack.append((inputs[position].node, 0))
            else:
                order.append(node)
    return tuple(order)


Rewrite = Callable[[Node, tuple[Tensor, ...]], "tuple[Tensor, ...] | None"]
Replacements = Mapping[Tensor, Tensor]
_account: contextvars.ContextVar[list[Replacements] | None] = contextvars.ContextVar("graphc_rebuilds", default=None)


@contextlib.contextmanager
def rebuilds() -> Iterator[list[Replacements]]:
    """Collects, for every rebuild inside the block, which tensor stands for which of the graph before."""
    found: list[Replacements] = []
    token = _account.set(found)
    try:
        yield found
    finally:
        _account.reset(token)


def composed(steps: Sequence[Replacements]) -> Replacements:
    """The replacements of several rebuilds, one after the other, as those of one."""
    first, *rest = steps or [{}]
    for step in rest:
        first = {old: step[new] for old, new in first.items() if new in step}
    return first


def rebuild(graph: Graph, rewrite: Rewrite) -> Graph:
    """The graph with ``rewrite(node, new_inputs)`` in place of each node's results.

    ``rewrite`` returns the tensors that replace the node's outputs, or None to keep the node (rebuilt only if its
    inputs changed). Update nodes are rebuilt, never rewritten.
    """
    replaced: dict[Tensor, Tensor] = {}
    updates: dict[Node, Node] = {}
    for node in graph.nodes:
        inputs = tuple([replaced[t] for t in node.inputs])
        outputs = rewrite(node, inputs) if node.outputs else None
        if outputs is None:
            same = all(a is b for a, b in zip(inputs, node.inputs, strict=True))
            fresh = node if same else node.rebuilt(inputs)
            outputs = fresh.outputs
            if not node.outputs:
                updates[node] = fresh
        for old, new in zip(node.outputs, outputs, strict=True):
            replaced[old] = new
    account = _account.get()
    if account is not None:
        account.append(replaced)
    return Graph(tuple(replaced[t] for t in graph.outputs), tuple(updates[u] for u in graph.updates))
