"""Rewrites of forms that overflow or cancel into forms that do not: the same function of real numbers, better computed.

They run before gradients are expanded, because the derivative of a naive form is naive too. An x of a pending gradient
keeps its identity: it is never rewritten, nor looked behind. A rewrite may turn a value that overflowed into a finite
one. What it no longer needs may still be fetched, or read by others: it is only not computed for this reader.
"""

from __future__ import annotations

from graphc.gradients import GRADIENT
from passes.graph import Graph
from passes.stabilise import exponentials, logarithms, moments
from passes.stabilise.forms import RULES

__all__ = ["RULES", "exponentials", "logarithms", "moments", "stabilise"]


def stabilise(graph: Graph) -> Graph:
    """``graph`` with the first rule that matches applied to each node, inputs before readers."""
    barriers = [x for node in graph.nodes if node.op is GRADIENT for x in node.inputs[2 * node.attrs["targets"] :]]
    return RULES.apply(graph, barriers)
