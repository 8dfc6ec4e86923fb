"""Exact simplifications: a fixed set of rules, each of which keeps every bit (rules.py says why, and what is refused).

They run after gradients are expanded, and each node is offered to them once, inputs before readers.
"""

from __future__ import annotations

from passes.graph import Graph
from passes.simplify import algebra, arithmetic, choices, views
from passes.simplify.rules import RULES

__all__ = ["RULES", "algebra", "arithmetic", "choices", "simplify", "views"]


def simplify(graph: Graph) -> Graph:
    """``graph`` with the first rule that matches applied to each node."""
    return RULES.apply(graph)
