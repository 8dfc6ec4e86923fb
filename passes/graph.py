"""A graph being compiled: what is fetched and what is updated; walks and rebuilds over it.

Graphs are never mutated. A pass is a function ``Graph -> Graph`` that rebuilds what it changes and shares the rest. All
walks are iterative, so that depth is limited by memory alone.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from graphc.node import Node, Tensor


@dataclass(frozen=True)
class Graph:
    """Fetched tensors, and the ``assign`` nodes whose updates take effect at the end of a run. ``after`` has, for
    tensors that are computed a second time, what must be there before.
    """

    outputs: tuple[Tensor, ...]
    updates: tuple[Node, ...] = ()
    after: Mapping[Tensor, Tensor] = field(default_factory=dict)

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
        if root in done:
            continue
        done.add(root)
        stack = [(root, iter(root.inputs))]
        while stack:
            node, inputs = stack[-1]
            for tensor in inputs:
                behind = tensor.node
                if behind not in done:
                    done.add(behind)
                    stack.append((behind, iter(behind.inputs)))
                    break
            else:
                order.append(node)
                stack.pop()
    return tuple(order)


Rewrite = Callable[[Node, tuple[Tensor, ...]], "tuple[Tensor, ...] | None"]
Replacements = Mapping[Tensor, Tensor]
_account: contextvars.ContextVar[list[Replacements] | None] = contextvars.ContextVar("graphc_rebuilds", default=None)


@contextlib.contextmanager
def rebuilds() -> Iterator[list[Replacements]]:
    """Collects, for every rebuild inside the block, which tensors stand for others of the graph before."""
    found: list[Replacements] = []
    token = _account.set(found)
    try:
        yield found
    finally:
        _account.reset(token)


def composed(steps: Sequence[Replacements]) -> Replacements:
    """The replacements of several rebuilds, one after the other, as those of one."""
    found: dict[Tensor, Tensor] = {}
    for step in steps:
        found = {**step, **{old: step.get(new, new) for old, new in found.items()}}
    return found


def rebuild(graph: Graph, rewrite: Rewrite) -> Graph:
    """The graph with ``rewrite(node, new_inputs)`` in place of each node's results; ``graph`` itself if that is it.

    ``rewrite`` returns the tensors that replace the node's outputs, or None to keep the node (rebuilt only if its
    inputs changed). Update nodes are rebuilt, never rewritten.
    """
    replaced: dict[Tensor, Tensor] = {}  # without those that stay
    updates: dict[Node, Node] = {}
    for node in graph.nodes:
        inputs = _replaced(node.inputs, replaced)
        outputs = rewrite(node, inputs) if node.outputs else None
        if outputs is None:
            fresh = on_inputs(node, inputs)
            outputs = fresh.outputs
            if not node.outputs:
                updates[node] = fresh
        if outputs is not node.outputs:
            for old, new in zip(node.outputs, outputs, strict=True):
                if old is not new:
                    replaced[old] = new
    account = _account.get()
    if account is not None:
        account.append(replaced)
    outputs = _replaced(graph.outputs, replaced)
    unchanged = outputs is graph.outputs and all(updates[u] is u for u in graph.updates)
    return graph if unchanged else Graph(outputs, tuple([updates[u] for u in graph.updates]))


def _replaced(tensors: tuple[Tensor, ...], replaced: Replacements) -> tuple[Tensor, ...]:
    """``tensors`` with those replaced that are; the same tuple if none is."""
    for tensor in tensors:
        if tensor in replaced:
            return tuple([replaced.get(t, t) for t in tensors])
    return tensors


def on_inputs(node: Node, inputs: tuple[Tensor, ...]) -> Node:
    """``node`` on the inputs that a rebuild has for it: itself if they are its own."""
    return node if inputs is node.inputs else node.rebuilt(inputs)
