"""Exact simplifications: a fixed set of rules, one function per op, each applied once, inputs before readers.

Every rule keeps NaN, infinities and the sign of zero: ``x + 0`` stays (it turns -0.0 into 0.0), ``x - 0`` goes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from graphc import ops
from graphc.node import Node, Tensor
from graphc.ops.leaf import CONSTANT
from graphc.where import derived_from
from passes.graph import Graph, rebuild
from passes.stabilise import is_constant

Rule = Callable[[Node], "Tensor | None"]


def _multiply(node: Node) -> Tensor | None:
    """x * 1 -> x; x * -1 -> -x."""
    shape = node.outputs[0].shape
    for x, factor in (node.inputs, node.inputs[::-1]):
        if x.shape == shape and is_constant(factor, 1):
            return x
        if x.shape == shape and x.dtype.kind != "u" and is_constant(factor, -1):
            return ops.negative(x)
    return None


def _divide(node: Node) -> Tensor | None:
    """x / 1 -> x; x / c -> x * (1/c) where c is a power of two with a normal reciprocal."""
    x, y = node.inputs
    if x.shape == node.outputs[0].shape and is_constant(y, 1):
        return x
    if y.node.op is CONSTANT and y.ndim == 0:
        value = float(y.node.attrs["value"])
        if value and math.isfinite(value) and math.frexp(abs(value))[0] == 0.5 and 2.0**-60 < abs(value) < 2.0**60:
            return x * (1.0 / value)
    return None


def _subtract(node: Node) -> Tensor | None:
    """x - 0 -> x."""
    x, y = node.inputs
    return x if x.shape == node.outputs[0].shape and is_constant(y, 0) else None


def _negative(node: Node) -> Tensor | None:
    """-(-x) -> x."""
    inner = node.inputs[0].node
    return inner.inputs[0] if inner.op.name == "negative" else None


def _where(node: Node) -> Tensor | None:
    """where(c, x, x) -> x."""
    _, x, y = node.inputs
    return x if x is y and x.shape == node.outputs[0].shape else None


def _stop_gradient(node: Node) -> Tensor | None:
    """stop_gradient(x) -> x, once gradients are expanded."""
    return node.inputs[0]


def _broadcast(node: Node) -> Tensor | None:
    """broadcast_to(broadcast_to(x)) -> broadcast_to(x), and none where the shape is x's already."""
    x = node.inputs[0]
    if x.shape == node.outputs[0].shape:
        return x
    inner = x.node
    return ops.broadcast_to(inner.inputs[0], node.attrs["shape"]) if inner.op.name == "broadcast_to" else None


def _permute(node: Node) -> Tensor | None:
    """permute_dims of permute_dims -> one; none where the order is the identity."""
    inner = node.inputs[0].node
    if inner.op.name != "permute_dims":
        return None
    return ops.permute_dims(inner.inputs[0], tuple(inner.attrs["axes"][a] for a in node.attrs["axes"]))


def _reshape(node: Node) -> Tensor | None:
    """reshape of a reinterpretation -> one reshape; none where the shape is the same."""
    x = node.inputs[0]
    if x.shape == node.outputs[0].shape:
        return x
    if x.node.op.name in ("reshape", "expand_dims", "squeeze"):
        return ops.reshape(x.node.inputs[0], node.attrs["shape"])
    return None


def _expand(node: Node) -> Tensor | None:
    """expand_dims(squeeze(x)) -> x where the axes are the same."""
    inner = node.inputs[0].node
    same = inner.op.name == "squeeze" and inner.inputs[0].shape == node.outputs[0].shape
    return inner.inputs[0] if same and inner.attrs["axes"] == node.attrs["axes"] else None


def _squeeze(node: Node) -> Tensor | None:
    """squeeze(expand_dims(x)) -> x where the axes are the same."""
    inner = node.inputs[0].node
    return inner.inputs[0] if inner.op.name == "expand_dims" and inner.attrs["axes"] == node.attrs["axes"] else None


RULES: dict[str, Rule] = {
    "multiply": _multiply, "divide": _divide, "subtract": _subtract, "negative": _negative, "where": _where,
    "stop_gradient": _stop_gradient, "broadcast_to": _broadcast, "permute_dims": _permute, "reshape": _reshape,
    "expand_dims": _expand, "squeeze": _squeeze,
}  # fmt: skip


def simplify(graph: Graph) -> Graph:
    """``graph`` with every rule applied once. It runs after gradients are expanded."""

    def rewrite(node: Node, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        rule = RULES.get(node.op.name)
        if rule is None:
            return None
        same = all(a is b for a, b in zip(inputs, node.inputs, strict=True))
        with derived_from(node.where, node.role):
            found = rule(node if same else node.rebuilt(inputs))
        return None if found is None else (found,)

    return rebuild(graph, rewrite)
