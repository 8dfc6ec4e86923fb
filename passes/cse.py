"""Common subexpressions: nodes with equal op, inputs and attributes become one.

Names and locations are not part of the comparison. Attributes are compared with their types, so that 0 is not 0.0, and
constants by their bytes, so that -0.0 is not 0.0 and a NaN equals itself.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np

from graphc.node import Node, Tensor
from graphc.ops.leaf import PLACEHOLDER
from graphc.state import PARAMETER
from passes.graph import Graph, rebuild

COMPARED = 65536  # bytes; larger constants are equal only if they are one
_IDENTITY = {PLACEHOLDER, PARAMETER}


def eliminate_common_subexpressions(graph: Graph) -> Graph:
    """``graph`` in which equal nodes are one node."""
    interned: dict[Hashable, tuple[Tensor, ...]] = {}

    def intern(node: Node, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if node.op in _IDENTITY:
            return None
        ordered = [id(t) for t in inputs]  # tensors compare elementwise; rebuild keeps them alive
        if node.op.commutative:
            ordered.sort()
        attrs = tuple(sorted((k, _key(v)) for k, v in node.attrs.items()))
        key = (node.op.name, tuple(ordered), attrs, node.results)
        found = interned.get(key)
        if found is None:
            same = all(a is b for a, b in zip(inputs, node.inputs, strict=True))
            found = interned[key] = (node if same else node.rebuilt(inputs)).outputs
        return found

    return rebuild(graph, intern)


def _key(value: Any) -> Hashable:
    if isinstance(value, np.ndarray):
        content: Hashable = value.tobytes() if value.nbytes <= COMPARED else id(value)
        return ("array", str(value.dtype), value.shape, content)
    if isinstance(value, tuple):
        return tuple(_key(v) for v in value)
    return (type(value).__name__, value)
