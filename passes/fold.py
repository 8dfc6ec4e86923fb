"""Constant folding: what depends on constants alone is computed now, by the op's reference.

Results stay small: nothing larger than what it is made of (or than ``SMALL``) becomes a constant, and what is one
number everywhere stays one number, broadcast.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc import ops
from graphc.dims import Extent
from graphc.node import Node, Tensor, TensorType, attrs_of, frozen
from graphc.opdef import Kind, Reference
from graphc.ops.leaf import CONSTANT
from graphc.ops.shape import BROADCAST_TO
from graphc.where import derived_from
from passes.graph import Graph, rebuild
from passes.primitives import primitives

LIMIT = 4096  # elements; a larger constant would cost more memory than recomputing costs time
SMALL = 64  # elements that a computed constant may have, however few its inputs have
_COMPUTED = {Kind.SCALAR, Kind.REDUCE, Kind.MATMUL}
_MOVED = {Kind.VIEW, Kind.RESHAPE, Kind.CONCAT, Kind.GATHER}
_POSITIONAL = {"index", "flat_index", "load"}  # primitives by which an element depends on where it is


def fold_constants(graph: Graph) -> Graph:
    """``graph`` with small constant expressions evaluated. What can fail stays, to fail when it runs."""
    return rebuild(graph, _fold)


def _fold(node: Node, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    if not inputs or node.op.fallible or node.op.kind not in _COMPUTED | _MOVED:
        return None
    constants = [_constant_behind(t) for t in inputs]
    if any(c is None for c in constants):
        return None
    if all(c.size == 1 for c in constants) and _is_elementwise(node):
        return (_number(node, constants),)
    if not _is_small(node, inputs, sum(c.size for c in constants)):
        return None
    values = [np.broadcast_to(c, tuple(int(e) for e in t.shape)) for c, t in zip(constants, inputs, strict=True)]
    return (_evaluated(node, values, node.results[0]),)


def _constant_behind(tensor: Tensor) -> Any:
    """The array that ``tensor`` is or broadcasts; otherwise None."""
    while tensor.node.op is BROADCAST_TO:
        tensor = tensor.node.inputs[0]
    return tensor.node.attrs["value"] if tensor.node.op is CONSTANT else None


def _is_elementwise(node: Node) -> bool:
    return node.op.kind is Kind.SCALAR and _POSITIONAL.isdisjoint(primitives(node))


def _number(node: Node, constants: Sequence[Any]) -> Tensor:
    """An elementwise op of broadcast numbers: the op of the numbers, broadcast."""
    result = node.results[0]
    alone = _evaluated(node, [c.reshape(()) for c in constants], TensorType((), result.dtype))
    with derived_from(node.where, node.role):
        return ops.broadcast_to(alone, result.shape)


def _is_small(node: Node, inputs: Sequence[Tensor], given: int) -> bool:
    """Whether the result, made of ``given`` elements, is small, and so are the inputs that are broadcast for it."""
    allowed = max(given, SMALL if node.op.kind in _COMPUTED else 0)
    read = [t.shape for t in inputs if t.node.op is not CONSTANT]
    return _size(node.results[0].shape) <= min(LIMIT, allowed) and all(_size(shape) <= LIMIT for shape in read)


def _size(shape: Sequence[Extent]) -> float:
    """The number of elements; infinite where the shape is not known, even if there are none."""
    known = [e for e in shape if isinstance(e, int)]
    return math.prod(known) if len(known) == len(shape) else np.inf


def _evaluated(node: Node, values: Sequence[Any], result: TensorType) -> Tensor:
    """The constant, of type ``result``, that ``node`` makes of ``values``."""
    common: dict[str, Any] = {"name": node.name, "where": node.where, "role": node.role, "body": node.body}
    assert node.op.reference is not None
    with np.errstate(all="ignore"):
        value = node.op.reference(Reference(Node(node.op, node.inputs, node.attrs, (result,), **common), {}), *values)
    attrs = attrs_of(value=frozen(np.asarray(value, result.dtype)))
    return Node(CONSTANT, (), attrs, (result,), **common).outputs[0]
