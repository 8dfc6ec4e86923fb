"""Rewrites of forms that overflow or cancel into forms that do not.

They run before gradients are expanded, because the derivative of a naive form is naive too. An x of a pending gradient
keeps its identity: it is never rewritten. A rewrite may turn a value that overflowed into a finite one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphc import ops
from graphc.gradients import GRADIENT
from graphc.node import Node, Tensor
from graphc.ops.leaf import CONSTANT
from graphc.where import derived_from
from passes.graph import Graph, rebuild

Rule = Callable[[Node], "Tensor | None"]


def _log(node: Node) -> Tensor | None:
    """log(softmax(x)) -> log_softmax(x); log(sum(exp(x))) -> logsumexp(x); log(1 + x) -> log1p(x); log(sigmoid(x))."""
    x = node.inputs[0]
    inner = x.node
    if inner.op.name == "softmax":
        return ops.log_softmax(inner.inputs[0], inner.attrs["axis"][0])
    if inner.op.name == "sum" and inner.inputs[0].node.op.name == "exp" and len(inner.attrs["axis"]) == 1:
        exponent = inner.inputs[0].node.inputs[0]
        return ops.logsumexp(exponent, inner.attrs["axis"][0], keepdims=inner.attrs["keepdims"])
    if inner.op.name == "add":
        for one, other in (inner.inputs, inner.inputs[::-1]):
            if is_constant(one, 1) and other.shape == x.shape:
                return ops.log1p(other)
    if inner.op.name == "sigmoid":
        z = inner.inputs[0]
        return ops.minimum(z, 0) - ops.log1p(ops.exp(-ops.abs(z)))
    return None


def _subtract(node: Node) -> Tensor | None:
    """exp(x) - 1 -> expm1(x)."""
    x, y = node.inputs
    if x.node.op.name == "exp" and is_constant(y, 1) and x.shape == node.outputs[0].shape:
        return ops.expm1(x.node.inputs[0])
    return None


RULES: dict[str, Rule] = {"log": _log, "subtract": _subtract}


def is_constant(tensor: Tensor, value: float) -> bool:
    """Whether every element is known to be ``value`` (0.0 and -0.0 are told apart)."""
    while tensor.node.op.name == "broadcast_to":
        tensor = tensor.node.inputs[0]
    if tensor.node.op is not CONSTANT:
        return False
    array = tensor.node.attrs["value"]
    if array.size != 1 or array.item() != value:
        return False
    return bool(np.signbit(array.astype(np.float64)).item() == np.signbit(value))


def stabilise(graph: Graph) -> Graph:
    """``graph`` with every rule applied once, inputs before readers."""
    barriers = {x for node in graph.nodes if node.op is GRADIENT for x in node.inputs[2 * node.attrs["targets"] :]}

    def rewrite(node: Node, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        rule = RULES.get(node.op.name)
        if rule is None or node.outputs[0] in barriers or any(t in barriers for t in node.inputs):
            return None
        same = all(a is b for a, b in zip(inputs, node.inputs, strict=True))
        with derived_from(node.where, node.role):
            found = rule(node if same else node.rebuilt(inputs))
        return None if found is None else (found,)

    return rebuild(graph, rewrite)
