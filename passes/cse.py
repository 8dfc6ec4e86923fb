"""Common subexpressions: nodes with equal op, inputs and attributes become one.

Names and locations are not part of the comparison. Attributes are compared with their types, so that 0 is not 0.0, and
constants by their bytes, so that -0.0 is not 0.0 and a NaN equals itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np

from graphc.node import Node, Tensor
from graphc.ops.leaf import PLACEHOLDER
from graphc.ops.philox import RANDOM_KEY
from graphc.state import PARAMETER
from graphc.where import Location
from passes.graph import Graph, rebuild

COMPARED = 65536  # bytes; larger constants are equal only if they are one
_IDENTITY = {PLACEHOLDER, PARAMETER, RANDOM_KEY}


def eliminate_common_subexpressions(graph: Graph) -> Graph:
    """``graph`` in which equal nodes are one node, which has the lines of all."""
    first, places = _classes(graph)
    made: dict[Node, tuple[Tensor, ...]] = {}

    def merge(node: Node, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if node in first:
            return made[first[node]]
        if node not in places:
            return None
        also = tuple([w for w in places[node] if w != node.where])
        same = len(also) == len(node.also) and inputs is node.inputs
        made[node] = (node if same else node.rebuilt(inputs, also=also)).outputs
        return made[node]

    return rebuild(graph, merge)


def _classes(graph: Graph) -> tuple[dict[Node, Node], dict[Node, dict[Location, None]]]:
    """For each node that equals an earlier one, the first of its equals; and for each such first one the lines of
    all.
    """
    first: dict[Node, Node] = {}
    places: dict[Node, dict[Location, None]] = {}
    numbers: dict[Tensor, int] = {}  # equal values have one number
    interned: dict[Hashable, Node] = {}
    for node in graph.nodes:
        alone = node.op in _IDENTITY or not node.outputs
        found = node if alone else interned.setdefault(_node_key(node, numbers), node)
        if found is node:
            numbers.update(zip(node.outputs, itertools.count(len(numbers))))
        else:
            first[node] = found
            numbers.update(zip(node.outputs, map(numbers.__getitem__, found.outputs), strict=True))
            places.setdefault(found, dict.fromkeys(found.places)).update(dict.fromkeys(node.places))
    return first, places


def _node_key(node: Node, numbers: Mapping[Tensor, int]) -> Hashable:
    inputs = [numbers[t] for t in node.inputs]
    if node.op.commutative:
        inputs.sort()
    attrs = tuple(sorted([(k, _key(v)) for k, v in node.attrs.items()])) if node.attrs else ()
    return (node.op, tuple(inputs), attrs, node.results)


def _key(value: Any) -> Hashable:
    if isinstance(value, np.ndarray):
        content: Hashable = value.tobytes() if value.nbytes <= COMPARED else id(value)
        return (value.dtype, value.shape, content)
    if isinstance(value, tuple):
        return tuple(_key(v) for v in value)
    return (type(value), value)
