"""Composite ops become simple ones."""

from __future__ import annotations

from graphc.node import Node, Tensor
from graphc.opdef import Kind
from graphc.where import derived_from
from passes.graph import Graph, rebuild


def decompose(graph: Graph) -> Graph:
    """``graph`` without composite ops. A decomposition may use composite ops itself."""
    while any(node.op.kind is Kind.COMPOSITE for node in graph.nodes):
        graph = rebuild(graph, _parts)
    return graph


def _parts(node: Node, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    if node.op.kind is not Kind.COMPOSITE:
        return None
    assert node.op.decompose is not None
    with derived_from(node.where, node.role):
        return (node.op.decompose(node.rebuilt(inputs)),)
