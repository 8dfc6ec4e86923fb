"""Simplified views of views, and reductions along axes of one element: structure, every element, and what stays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from rewrite_checks import applied, computing, evaluated, graph_of, run, same_bits

import graphc as gc
from graphc.node import Tensor, attrs_of, make_node
from graphc.ops.shape import RESHAPE
from passes.simplify import RULES, simplify

# Of x of shape (2, 1, 3) and special values: the rule, and what it leaves.
VIEWS: dict[str, tuple[str, Callable[[Tensor], Tensor], list[str]]] = {
    "reshape there and back": ("reshape_of_reshape", lambda x: gc.reshape(gc.reshape(x, (6,)), (2, 1, 3)), []),
    "reshape of reshape": ("reshape_of_reshape", lambda x: gc.reshape(gc.reshape(x, (6,)), (3, 2)), ["reshape"]),
    "reshape of expand_dims": ("reshape_of_reshape", lambda x: gc.reshape(gc.expand_dims(x, 0), (6,)), ["reshape"]),
    "reshape of squeeze": ("reshape_of_reshape", lambda x: gc.reshape(gc.squeeze(x, 1), (3, 2)), ["reshape"]),
    "reshape that inserts": ("reshape_of_unit_axes", lambda x: gc.reshape(x, (1, 2, 1, 1, 3)), ["expand_dims"]),
    "reshape that removes": ("reshape_of_unit_axes", lambda x: gc.reshape(x, (2, 3)), ["squeeze"]),
    "reshape that moves": ("reshape_of_unit_axes", lambda x: gc.reshape(x, (1, 2, 3)), ["squeeze", "expand_dims"]),
    "permutations": ("permutation_of_permutation",
                     lambda x: gc.permute_dims(gc.permute_dims(x, (2, 0, 1)), (2, 1, 0)), ["permute_dims"]),
    "permutations that cancel": ("permutation_of_permutation",
                                 lambda x: gc.permute_dims(gc.permute_dims(x, (2, 0, 1)), (1, 2, 0)), []),
    "broadcast of broadcast": ("broadcast_of_broadcast",
                               lambda x: gc.broadcast_to(gc.broadcast_to(x, (2, 5, 3)), (4, 2, 5, 3)),
                               ["broadcast_to"]),
    "broadcast of leading axes": ("broadcast_of_broadcast",
                                  lambda x: gc.broadcast_to(gc.expand_dims(x, (0, 1)), (4, 5, 2, 1, 3)),
                                  ["broadcast_to"]),
    "slice of slice": ("slice_of_slice", lambda x: x[..., 1:][..., ::-1], ["slice"]),
    "flipped twice": ("slice_of_slice", lambda x: gc.flip(gc.flip(x, (0, 2)), (2, 0)), []),
    "expand of expand": ("expand_of_expand", lambda x: gc.expand_dims(gc.expand_dims(x, (0, 2)), (1, 6)),
                         ["expand_dims"]),
    "squeeze of squeeze": ("squeeze_of_squeeze", lambda x: gc.squeeze(gc.squeeze(x[:1], 0), 0), ["slice", "squeeze"]),
    "expand of squeeze": ("expand_of_squeeze", lambda x: gc.expand_dims(gc.squeeze(x, 1), 1), []),
    "squeeze of expand": ("squeeze_of_expand", lambda x: gc.squeeze(gc.expand_dims(x, (0, 2)), (0, 2)), []),
    "squeeze of some of expand": ("squeeze_of_expand", lambda x: gc.squeeze(gc.expand_dims(x, (0, 2, 5)), 2),
                                  ["expand_dims"]),
    "max of one": ("reduction_of_single_elements", lambda x: gc.max(x, 1), ["squeeze"]),
    "min of one, kept": ("reduction_of_single_elements", lambda x: gc.min(x, 1, keepdims=True), []),
    "prod of one": ("reduction_of_single_elements", lambda x: gc.prod(x, 1), ["squeeze"]),
    "any of one": ("reduction_of_single_elements", lambda x: gc.any(x > 0, 1), ["greater", "squeeze"]),
    "all of one": ("reduction_of_single_elements", lambda x: gc.all(x > 0, 1), ["greater", "squeeze"]),
    "max of ones": ("reduction_of_single_elements", lambda x: gc.max(x[:1], (0, 1)), ["slice", "squeeze"]),
}  # fmt: skip
VALUES = np.array([[[0.0, -0.0, np.nan]], [[-np.inf, 1e-45, 3e38]]], np.float32)


@pytest.mark.parametrize("name", VIEWS)
def test_views(name: str) -> None:
    rule, build, left = VIEWS[name]
    x = gc.placeholder((2, 1, 3), name="x")
    y = build(x)
    graph, fired = applied(simplify, y)
    assert rule in fired
    assert computing(graph) == left
    same_bits(*evaluated(graph, {x: VALUES}), *evaluated(graph_of(y), {x: VALUES}))


def test_views_compiled() -> None:
    x = gc.placeholder((2, 1, 3), name="x")
    built = [build(x) for _, build, _ in VIEWS.values()]
    for found, expected in zip(run(built, {x: VALUES}), run(built, {x: VALUES}, "reference"), strict=True):
        same_bits(found, expected)


def test_every_rule_of_views_is_tested() -> None:
    rules = {r.__name__ for rules in RULES.by_op.values() for r in rules if r.__module__ == "passes.simplify.views"}
    assert rules == {rule for rule, _, _ in VIEWS.values()} | {"shape_is_the_same"}


def test_integers_may_be_added_up_alone() -> None:
    """A sum over one element of floats turns -0.0 into 0.0; integers have one zero."""
    x = gc.placeholder((3, 1), "int64", name="x")
    assert computing(applied(simplify, gc.sum(x, 1))[0]) == ["squeeze"]
    y = gc.placeholder((3, 1), name="y")
    graph, fired = applied(simplify, gc.sum(y, 1))
    assert fired == {}
    assert computing(graph) == ["sum"]
    found = run(gc.sum(y, 1), {y: [[-0.0], [1.0], [np.nan]]})
    same_bits(found, np.array([0.0, 1.0, np.nan], np.float32))


KEPT: dict[str, Callable[[Tensor], Tensor]] = {
    "reshape": lambda x: gc.reshape(x, (3, 1, 2)),
    "squeeze and expand elsewhere": lambda x: gc.expand_dims(gc.squeeze(x, 1), 2),
    "broadcast of inner axes": lambda x: gc.broadcast_to(gc.expand_dims(x, 1), (2, 4, 1, 3)),
    "squeeze of what was not inserted": lambda x: gc.squeeze(gc.expand_dims(x, 0), 2),
    "permutation of a slice": lambda x: gc.permute_dims(x[..., 1:], (2, 1, 0)),
    "max over two axes": lambda x: gc.max(x, (0, 1)),
    "sum of sum": lambda x: gc.sum(gc.sum(x, 0), 1),
    "sum of a permutation": lambda x: gc.sum(gc.permute_dims(x, (2, 1, 0)), 0),
    "sum of a broadcast": lambda x: gc.sum(gc.broadcast_to(x, (2, 7, 3)), 1),
    "max of max": lambda x: gc.max(gc.max(x, 0), 1),
    "scaled before a product": lambda x: (gc.squeeze(x, 1) * 3) @ gc.ones((3, 2)),
    "a product turned": lambda x: gc.permute_dims(gc.squeeze(x, 1) @ gc.ones((3, 2)), (1, 0)),
}  # fmt: skip


@pytest.mark.parametrize("name", KEPT)
def test_views_that_stay(name: str) -> None:
    y = KEPT[name](gc.placeholder((2, 1, 3), name="x"))
    graph, fired = applied(simplify, y)
    assert fired == {}
    assert graph.outputs[0] is y


@pytest.mark.parametrize("extent", [0, 1, 2, 7])
def test_slices_of_symbolic_extents(extent: int) -> None:
    """Starts and steps compose whatever the extent turns out to be."""
    x = gc.placeholder(("n", 2), name="x")
    built = [
        x[::2][::-1], x[::-1][::2], x[:3][::-1], x[-3:][::2], x[::-1][-2:], x[::3][::2][::-1], gc.flip(x[::-1], 0),
    ]  # fmt: skip
    assert computing(applied(simplify, *built)[0]) == ["slice"] * 6
    values = np.arange(2.0 * extent).reshape(extent, 2)
    for found, expected in zip(run(built, {x: values}), run(built, {x: values}, "reference"), strict=True):
        same_bits(found, expected)


def test_symbolic_extents_are_equal_or_not() -> None:
    x = gc.placeholder(("n", 1, "m"), name="x")
    n, _, m = x.shape
    assert computing(applied(simplify, gc.reshape(x, (n, m)))[0]) == ["squeeze"]
    assert computing(applied(simplify, gc.reshape(x, (m, n)))[0]) == ["reshape"]
    assert applied(simplify, gc.reshape(gc.reshape(x, (-1,)), (n, 1, m)))[0].outputs[0] is x
    assert computing(applied(simplify, gc.broadcast_to(gc.broadcast_to(x, (n, 4, m)), (2, n, 4, m)))[0]) == [
        "broadcast_to"
    ]


def test_a_long_chain_is_one_view() -> None:
    x = gc.placeholder((2, 3), name="x")
    y = x
    for i in range(3000):
        y = gc.reshape(y, (3, 2) if i % 2 else (6, 1, 1))
    graph, _ = applied(simplify, y)
    assert computing(graph) == ["reshape"]


def test_a_shape_that_is_the_same() -> None:
    """As expansion of gradients makes it: a reshape to the shape that is there, for a tensor of its own."""
    x = gc.placeholder((2, 3), name="x")
    y = make_node(RESHAPE, (x,), attrs_of(shape=x.shape)).outputs[0]
    graph, fired = applied(simplify, y)
    assert fired == {"shape_is_the_same": 1}
    assert graph.outputs[0] is x
