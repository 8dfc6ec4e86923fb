"""Rewrites of forms that overflow or cancel into forms that do not.

They run before gradients are expanded, because the derivative of a naive form is naive too. An x of a pending gradient
keeps its identity: it is never rewritten. A rewrite may turn a value that overflowed into a finite one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np

from graphc import ops
from graphc.gradients import GRADIENT
from graphc.node import Node, Tensor
from graphc.ops.leaf import CONSTANT
from graphc.where import derived_from
from passes.graph import Graph, rebuild

# A rule is given the node and the tensors that it may not look behind.
Rule = Callable[[Node, Collection[Tensor]], "Tensor | None"]


def _log(node: Node, barriers: Collection[Tensor]) -> Tensor | None:
    """log(softmax(x)) -> log_softmax(x); log(sum(exp(x))) -> logsumexp(x); log(1 + x) -> log1p(x); log(sigmoid(x))."""
    x = node.inputs[0]
    if x in barriers:
        return None
    inner = x.node
    if inner.op.name == "softmax":
        return ops.log_softmax(inner.inputs[0], inner.attrs["axis"][0])
    if inner.op.name == "sum":
        return _log_sum(inner, barriers)
    if inner.op.name == "add":
        for one, other in (inner.inputs, inner.inputs[::-1]):
            if is_constant(one, 1, barriers) and other.shape == x.shape:
                return ops.log1p(other)
    return _log_sigmoid(inner.inputs[0]) if inner.op.name == "sigmoid" else None


def _log_sum(total: Node, barriers: Collection[Tensor]) -> Tensor | None:
    """log(sum(exp(x))) -> logsumexp(x), along one axis that has elements."""
    summed, axes = total.inputs[0], total.attrs["axis"]
    if summed in barriers or summed.node.op.name != "exp" or len(axes) != 1 or summed.shape[axes[0]] == 0:
        return None
    return ops.logsumexp(summed.node.inputs[0], axes[0], keepdims=total.attrs["keepdims"])


def _log_sigmoid(x: Tensor) -> Tensor:
    """min(x, 0) - log1p(exp(-|x|)), written so that both sides of 0 have the true derivatives of every order."""
    below = ops.less(x, 0)
    return ops.where(below, x, ops.zeros_like(x)) - ops.log1p(ops.exp(ops.where(below, x, -x)))


def _subtract(node: Node, barriers: Collection[Tensor]) -> Tensor | None:
    """exp(x) - 1 -> expm1(x)."""
    x, y = node.inputs
    if x in barriers or x.node.op.name != "exp" or x.shape != node.outputs[0].shape or not is_constant(y, 1, barriers):
        return None
    return ops.expm1(x.node.inputs[0])


RULES: dict[str, Rule] = {"log": _log, "subtract": _subtract}


def is_constant(tensor: Tensor, value: float, barriers: Collection[Tensor] = ()) -> bool:
    """Whether every element is known to be ``value`` (0.0 and -0.0 are told apart)."""
    while tensor.node.op.name == "broadcast_to" and tensor not in barriers:
        tensor = tensor.node.inputs[0]
    if tensor.node.op is not CONSTANT or tensor in barriers:
        return False
    array = tensor.node.attrs["value"]
    if array.size != 1 or array.item() != value:
        return False
    return bool(np.signbit(array.astype(np.float64)).item() == np.signbit(value))


def stabilise(graph: Graph) -> Graph:
    """``graph`` with every rule applied once, inputs before readers."""
    barriers = {x for node in graph.nodes if node.op is GRADIENT for x in node.inputs[2 * node.attrs["targets"] :]}

    def rewrite(node: Node, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        barriers.update(new for old, new in zip(node.inputs, inputs, strict=True) if old in barriers)
        rule = RULES.get(node.op.name)
        if rule is None or node.outputs[0] in barriers:
            return None
        same = all(a is b for a, b in zip(inputs, node.inputs, strict=True))
        with derived_from(node.where, node.role):
            found = rule(node if same else node.rebuilt(inputs), barriers)
        return None if found is None else (found,)

    return rebuild(graph, rewrite)
