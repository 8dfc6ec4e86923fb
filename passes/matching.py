"""What a rule may ask about tensors behind a node: who made them, whether they are constant, equal, safe to drop.

A barrier is a tensor with respect to which a gradient is still to be taken. A rule that looked behind one would cut the
path from it to the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from graphc import ops
from graphc.node import Node, Tensor
from graphc.opdef import Attrs, Kind, OpDef
from graphc.ops.indexing import GATHER
from graphc.ops.leaf import CONSTANT, EXTENT

UNIFORM_LIMIT = 4096  # elements; whether those of a larger constant are all the same is not looked at
VIEWS = 8  # how many views one after the other are looked through
SAME_NODES = 32  # how many pairs of nodes are compared before two tensors count as different
_VIEWS = (Kind.VIEW, Kind.RESHAPE)
_COMPARABLE_LEAVES = (CONSTANT, EXTENT)  # others have a value of their own: fed, drawn, held by a session
_NEVER_THE_SAME = (Kind.TRANSFORM, Kind.UPDATE)


class Context:
    """What is known while the rules of a pass are applied to a graph."""

    def __init__(self, barriers: Iterable[Tensor] = ()) -> None:
        self.barriers = set(barriers)
        self._uniform: dict[Node, Any] = {}
        self._fails: dict[Node, bool] = {}

    def follow(self, old: Sequence[Tensor], new: Sequence[Tensor]) -> None:
        """What stands for a barrier is one."""
        if self.barriers:
            self.barriers.update(b for a, b in zip(old, new, strict=True) if a in self.barriers)

    def made_by(self, tensor: Tensor, *choice: OpDef) -> Node | None:
        """The node that made ``tensor``, if its op is one of ``choice`` and it may be looked at."""
        made = tensor.node.op
        for op in choice:
            if made is op:
                return tensor.node if tensor not in self.barriers else None
        return None

    def moved(self, tensor: Tensor, *, gathers: bool = False) -> tuple[Tensor, list[Node]]:
        """What ``tensor`` shows through views that may be looked through, and these, outermost first. With ``gathers``
        also through elements taken at indices.
        """
        views: list[Node] = []
        while len(views) < VIEWS and tensor not in self.barriers:
            node = tensor.node
            if node.op.kind not in _VIEWS and not (gathers and node.op is GATHER):
                break
            views.append(node)
            tensor = node.inputs[0]
        return tensor, views

    def value(self, tensor: Tensor) -> Any:
        """The number that every element of ``tensor`` is known to be, as a NumPy scalar; otherwise None."""
        if tensor.node.op.kind in _VIEWS:
            tensor, _ = self.moved(tensor)
        node = tensor.node
        if node.op is not CONSTANT or tensor in self.barriers:
            return None
        if node not in self._uniform:
            self._uniform[node] = _uniform(node.attrs["value"])
        return self._uniform[node]

    def is_value(self, tensor: Tensor, wanted: float) -> bool:
        """Whether every element is known to be ``wanted``; 0.0 and -0.0 are told apart."""
        found = self.value(tensor)
        if found is None or found != wanted:
            return False
        return found.dtype.kind != "f" or bool(np.signbit(found) == np.signbit(wanted))

    def same(self, a: Tensor, b: Tensor) -> bool:
        """Whether two tensors are the same expression, so that they have equal values and one may stand for the other.

        Bounded: larger expressions count as different.
        """
        pending, left = [(a, b)], SAME_NODES
        while pending:
            a, b = pending.pop()
            if a is b:
                continue
            left -= 1
            if left < 0 or not self._same_node(a, b):
                return False
            pending += zip(a.node.inputs, b.node.inputs, strict=True)
        return True

    def _same_node(self, a: Tensor, b: Tensor) -> bool:
        x, y = a.node, b.node
        if x.op is not y.op or a.index != b.index or len(x.inputs) != len(y.inputs) or x.results != y.results:
            return False
        if x.op.kind in _NEVER_THE_SAME or a in self.barriers or b in self.barriers:
            return False
        if x.op.kind is Kind.LEAF and not any(x.op is op for op in _COMPARABLE_LEAVES):
            return False
        return same_attrs(x.attrs, y.attrs)

    def may_fail(self, tensor: Tensor) -> bool:
        """Whether a run may fail in computing ``tensor``: then it must be computed, though nothing needs its value."""
        stack = [tensor.node]
        while stack:
            node = stack[-1]
            if node in self._fails:
                stack.pop()
                continue
            waiting = [t.node for t in node.inputs if t.node not in self._fails]
            if waiting:
                stack += waiting
                continue
            own = node.op.fallible or node.op.domain.bounded
            self._fails[node] = own or any(self._fails[t.node] for t in node.inputs)
            stack.pop()
        return self._fails[tensor.node]


def _uniform(array: np.ndarray[Any, Any]) -> Any:
    if not 1 <= array.size <= UNIFORM_LIMIT:
        return None
    first = array.reshape(-1)[0]
    return first if array.tobytes() == first.tobytes() * array.size else None


def same_attrs(a: Attrs, b: Attrs) -> bool:
    """Whether attributes are equal, with their types, and arrays in every bit."""
    return a.keys() == b.keys() and all(_same_value(a[key], b[key]) for key in a)


def _same_value(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        small = a.size <= UNIFORM_LIMIT
        return small and a.dtype == b.dtype and a.shape == b.shape and bool(a.tobytes() == b.tobytes())
    if isinstance(a, tuple):
        return len(a) == len(b) and all(_same_value(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def either_way(node: Node) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The two inputs of ``node`` in both orders."""
    x, y = node.inputs
    return (x, y), (y, x)


def moved_again(views: Sequence[Node], tensor: Tensor) -> Tensor:
    """``tensor`` seen through ``views``, outermost first, in place of what they showed: same shape, same dtype."""
    for view in reversed(views):
        tensor = view.rebuilt((tensor, *view.inputs[1:])).outputs[0]
    return tensor


def fitted(tensor: Tensor, node: Node) -> Tensor:
    """``tensor`` broadcast to the shape of the result of ``node``."""
    return ops.broadcast_to(tensor, node.outputs[0].shape)


def filled(node: Node, value: Any) -> Tensor:
    """A constant in place of the result of ``node``."""
    return ops.full_like(node.outputs[0], value)
