"""Reverse-mode differentiation as a graph rewrite: every ``gradient`` node becomes the nodes that compute it.

One sweep over the graph between the xs and the ys serves all gradients asked of the same ys (A. Griewank and
A. Walther, "Evaluating Derivatives", 2nd ed., SIAM 2008, section 3.2). Nodes are visited inputs first, so that the
gradients inside a differentiated expression are expanded before it: higher order is the same thing twice.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc import ops
from graphc.errors import CompilerError
from graphc.gradients import GRADIENT, differentiable_inputs
from graphc.node import Node, Tensor, attrs_of, make_node
from graphc.opdef import NotDifferentiable
from graphc.ops.shape import RESHAPE
from graphc.where import derived_from
from passes.graph import Graph, rebuild, topological


def expand_gradients(graph: Graph) -> Graph:
    """``graph`` without ``gradient`` nodes."""
    sweeps = _shared_sweeps(graph)
    asked = {x for xs in sweeps.values() for x in xs}
    results: dict[tuple[Tensor, ...], dict[Tensor, Tensor]] = {}

    def expand(node: Node, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if node.op is not GRADIENT:
            return None
        targets, cotangents, xs = split(node, inputs)
        key = (*targets, *cotangents)
        if any(x not in results.get(key, {}) for x in xs):
            wanted = dict.fromkeys([*xs, *_leaves(sweeps.get(split_key(node), ()))])
            with derived_from(node.where, "backward"):
                results[key] = backpropagate(targets, cotangents, [*wanted])
        found = (results[key][x] for x in xs)
        return tuple(_distinct(new) if old in asked else new for old, new in zip(node.outputs, found, strict=True))

    return rebuild(graph, expand)


def _distinct(tensor: Tensor) -> Tensor:
    """``tensor`` as a tensor of its own. Two gradients may expand to one tensor; a gradient with respect to the first
    of them is not one with respect to the second.
    """
    return make_node(RESHAPE, (tensor,), attrs_of(shape=tensor.shape)).outputs[0]


def split(node: Node, inputs: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Targets, cotangents and xs of a gradient node, out of ``inputs`` in place of its own."""
    n = node.attrs["targets"]
    return tuple(inputs[:n]), tuple(inputs[n : 2 * n]), tuple(inputs[2 * n :])


def split_key(node: Node) -> tuple[Tensor, ...]:
    """What two gradient nodes must have in common to share one sweep: targets and cotangents."""
    return tuple(node.inputs[: 2 * node.attrs["targets"]])


def _shared_sweeps(graph: Graph) -> dict[tuple[Tensor, ...], list[Tensor]]:
    sweeps: dict[tuple[Tensor, ...], list[Tensor]] = {}
    for node in graph.nodes:
        if node.op is GRADIENT:
            sweeps.setdefault(split_key(node), []).extend(split(node, node.inputs)[2])
    return sweeps


def _leaves(xs: Sequence[Tensor]) -> list[Tensor]:
    """Those xs that no expansion replaces: leaves, which are the same tensors before and after."""
    return [x for x in xs if not x.node.inputs]


def backpropagate(ys: Sequence[Tensor], cotangents: Sequence[Tensor], xs: Sequence[Tensor]) -> dict[Tensor, Tensor]:
    """The cotangent of each x, given those of the ys, built with public ops; zeros where no path remains."""
    order = topological([y.node for y in ys])
    live = _live_nodes(order, set(xs))
    pending: dict[Tensor, list[Tensor]] = {}
    for y, g in zip(ys, cotangents, strict=True):
        pending.setdefault(y, []).append(g)
    found: dict[Tensor, Tensor] = {}
    wanted = set(xs)
    for node in reversed(order):
        if node not in live and not any(t in wanted for t in node.outputs):
            continue
        totals = [_total(pending.pop(t, None)) for t in node.outputs]
        for tensor, total in zip(node.outputs, totals, strict=True):
            if tensor in wanted and total is not None:
                found[tensor] = total
        if node in live and any(t is not None for t in totals):
            _propagate(node, totals, live, wanted, pending)
    for x in xs:
        if x not in found:
            found[x] = ops.zeros_like(x)
    return found


def _live_nodes(order: Sequence[Node], xs: set[Tensor]) -> set[Node]:
    """Nodes with an input that is an x or depends on one through differentiable inputs."""
    live: set[Node] = set()
    for node in order:
        for tensor in differentiable_inputs(node):
            if tensor in xs or tensor.node in live:
                live.add(node)
                break
    return live


def _propagate(
    node: Node,
    totals: Sequence[Tensor | None],
    live: set[Node],
    wanted: set[Tensor],
    pending: dict[Tensor, list[Tensor]],
) -> None:
    rule = node.op.vjp
    if isinstance(rule, NotDifferentiable):
        return
    (g,) = totals
    assert g is not None
    with derived_from(node.where, "backward"):
        results = rule(node, g)
    for tensor, cotangent in zip(node.inputs, results, strict=True):
        if cotangent is None or not (tensor in wanted or tensor.node in live):
            continue
        if cotangent.ndim != tensor.ndim or cotangent.dtype != tensor.dtype:
            raise CompilerError(
                f"the derivative of {node.op.name} has type {cotangent.type} where its input has {tensor.type} "
                f"({node.where})"
            )
        pending.setdefault(tensor, []).append(cotangent)


def _total(cotangents: list[Tensor] | None) -> Tensor | None:
    if not cotangents:
        return None
    with derived_from(cotangents[0].node.where, "backward"):
        total = cotangents[0]
        for cotangent in cotangents[1:]:
            total = ops.add(total, cotangent)
    return total
