"""Reverse-mode differentiation as a graph rewrite: every ``gradient`` node becomes the nodes that compute it.

One sweep over the graph between the xs and the ys serves all gradients asked of the same ys (A. Griewank and
A. Walther, "Evaluating Derivatives", 2nd ed., SIAM 2008, section 3.2). Nodes are visited inputs first, so that the
gradients inside a differentiated expression are expanded before it: higher order is the same thing twice.

A ``custom_gradient`` node is differentiated by its rule, a graph among its inputs, of which a sweep copies what depends
on the cotangents. When all gradients are expanded only the node's values are left of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TypeAlias

from graphc import ops
from graphc.custom import RULE_ARGUMENT
from graphc.errors import CompilerError, ScopeError
from graphc.gradients import CUSTOM, GRADIENT, custom_parts, differentiable_inputs
from graphc.node import Node, Tensor, attrs_of, make_node
from graphc.opdef import NotDifferentiable
from graphc.ops.rules import VjpByInput
from graphc.ops.shape import RESHAPE
from graphc.where import derived_from
from passes.graph import Graph, rebuild, topological


def expand_gradients(graph: Graph) -> Graph:
    """``graph`` without ``gradient`` and ``custom_gradient`` nodes.

    Raises ``ScopeError`` when it needs a tensor that exists only in the rule of a custom gradient.
    """
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

    expanded = without_rules(rebuild(graph, expand))
    for node in expanded.nodes:
        if node.op is RULE_ARGUMENT:
            raise ScopeError(
                f"{node.outputs[0].describe()} was kept from the rule of a custom_gradient, and exists only there"
            )
    return expanded


def without_rules(graph: Graph, needed: Collection[Node] = ()) -> Graph:
    """``graph`` with values alone in place of ``custom_gradient`` nodes, except those ``needed``."""
    if all(node.op is not CUSTOM or node in needed for node in graph.nodes):
        return graph

    def values(node: Node, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if node.op is not CUSTOM or node in needed:
            return None
        return tuple(custom_parts(node.attrs, inputs).values)

    return rebuild(graph, values)


def without_idle_rules(graph: Graph) -> Graph:
    """``graph`` without the rules of custom gradients that no gradient asks for, and all that only they need."""
    if not any(node.op is CUSTOM for node in graph.nodes):
        return graph
    return without_rules(graph, set(topological(node for node in graph.nodes if node.op is GRADIENT)))


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
    def asked(tensor: Tensor) -> bool:
        return tensor in wanted or tensor.node in live

    for tensor, cotangent in _by_rule(node, totals, asked) if node.op is CUSTOM else _by_vjp(node, totals, asked):
        if cotangent.ndim != tensor.ndim or cotangent.dtype != tensor.dtype:
            raise CompilerError(
                f"the derivative of {node.op.name} has type {cotangent.type} where its input has {tensor.type} "
                f"({node.where})"
            )
        pending.setdefault(tensor, []).append(cotangent)


Asked: TypeAlias = Callable[[Tensor], bool]
Pairs: TypeAlias = Iterable[tuple[Tensor, Tensor]]


def _by_vjp(node: Node, totals: Sequence[Tensor | None], asked: Asked) -> Pairs:
    """Inputs that are asked for and their cotangents, by the rule of the op."""
    rule = node.op.vjp
    if isinstance(rule, NotDifferentiable):
        return []
    (g,) = totals
    assert g is not None
    with derived_from(node.where, "backward"):
        results = rule.of(node, g, asked) if isinstance(rule, VjpByInput) else rule(node, g)
    return [(t, r) for t, r in zip(node.inputs, results, strict=True) if r is not None and asked(t)]


def _by_rule(node: Node, totals: Sequence[Tensor | None], asked: Asked) -> Pairs:
    """The same by the rule of a custom gradient: what nobody asks for is not copied."""
    parts = custom_parts(node.attrs, node.inputs)
    pairs = [(x, g) for x, g in zip(parts.arguments, parts.cotangents, strict=True) if g is not None and asked(x)]
    known = dict(zip(node.attrs["stand_ins"], node.outputs, strict=True))
    with derived_from(node.where, "backward"):
        for seed, total, value in zip(node.attrs["seeds"], totals, node.outputs, strict=True):
            if seed is not None:
                known[seed] = ops.zeros_like(value) if total is None else total
    copied = _copied([g for _, g in pairs], known, {*parts.arguments, *parts.captured})
    return [(x, g) for (x, _), g in zip(pairs, copied, strict=True)]


def _copied(tensors: Sequence[Tensor], known: dict[Tensor, Tensor], edge: set[Tensor]) -> list[Tensor]:
    """``tensors`` with each key of ``known`` replaced by its value. Nothing at or above ``edge`` needs a copy."""
    replaced = {t: t for t in edge} | known
    stack = list(tensors)
    while stack:
        node = stack[-1].node
        missing = [] if stack[-1] in replaced else [t for t in node.inputs if t not in replaced]
        if missing:
            stack += missing
        elif stack.pop() not in replaced:
            inputs = tuple([replaced[t] for t in node.inputs])
            same = all(a is b for a, b in zip(inputs, node.inputs, strict=True))
            replaced.update(zip(node.outputs, node.outputs if same else node.rebuilt(inputs).outputs, strict=True))
    return [replaced[t] for t in tensors]


def _total(cotangents: list[Tensor] | None) -> Tensor | None:
    if not cotangents:
        return None
    with derived_from(cotangents[0].node.where, "backward"):
        total = cotangents[0]
        for cotangent in cotangents[1:]:
            total = ops.add(total, cotangent)
    return total
