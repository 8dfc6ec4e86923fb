"""Constant folding: what depends on constants alone is computed now, by the op's reference."""

from __future__ import annotations

import numpy as np

from graphc.dims import product
from graphc.node import Node, Tensor, attrs_of, frozen
from graphc.opdef import Kind, Reference
from graphc.ops.leaf import CONSTANT
from passes.graph import Graph, rebuild

LIMIT = 4096  # elements; a larger constant would cost more memory than recomputing costs time
_FOLDED = {Kind.SCALAR, Kind.REDUCE, Kind.RESHAPE, Kind.MATMUL}


def fold_constants(graph: Graph) -> Graph:
    """``graph`` with small constant expressions evaluated. Views stay views: they cost nothing."""
    return rebuild(graph, _fold)


def _fold(node: Node, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    if node.op.kind not in _FOLDED or not inputs or any(t.node.op is not CONSTANT for t in inputs):
        return None
    shape = node.results[0].shape
    size = product(shape)
    if not isinstance(size, int) or size > LIMIT:
        return None
    if node.op.fallible:
        return None  # it must fail when it runs, not now
    assert node.op.reference is not None
    value = node.op.reference(Reference(node, {}), *(t.node.attrs["value"] for t in inputs))
    attrs = attrs_of(value=frozen(np.asarray(value, node.results[0].dtype)))
    constant = Node(CONSTANT, (), attrs, node.results, name=node.name, where=node.where, role=node.role, body=node.body)
    return constant.outputs
