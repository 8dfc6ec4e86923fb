"""The machinery of rules: order, repetition, barriers, what is known of tensors, and the account of what fired."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from rewrite_checks import applied, graph_of, ops_in

import graphc as gc
from graphc import ops
from graphc.node import Node, Tensor
from graphc.ops.elementwise import ADD, NEGATIVE, SUBTRACT
from graphc.ops.exponential import EXP
from passes.graph import composed, rebuilds
from passes.matching import UNIFORM_LIMIT, Context
from passes.rewriting import REPEATS, Rules, firings
from passes.simplify import simplify


def negated_exponentials() -> Rules:
    """exp(x) becomes -x."""
    rules = Rules("test")

    @rules.on(EXP)
    def exp_is_negative(node: Node, context: Context) -> Tensor | None:
        return ops.negative(node.inputs[0])

    return rules


def test_the_first_rule_that_matches_wins() -> None:
    rules = negated_exponentials()

    @rules.on(EXP, NEGATIVE)
    def never(node: Node, context: Context) -> Tensor | None:
        raise AssertionError("an earlier rule has matched")

    rules.by_op[NEGATIVE].clear()
    assert ops_in(rules.apply(graph_of(gc.exp(gc.placeholder((2,))))))["negative"] == 1


def test_what_a_rule_returns_is_offered_again_some_times() -> None:
    rules = Rules("test")

    @rules.on(ADD)
    def grow(node: Node, context: Context) -> Tensor | None:
        return ops.add(node.outputs[0], 1)

    x = gc.placeholder((2,), name="x")
    with firings() as fired:
        graph = rules.apply(graph_of(x + x))
    assert fired == {"test.grow": REPEATS}
    assert ops_in(graph)["add"] == 1 + REPEATS


def test_inputs_come_before_readers_and_places_are_kept() -> None:
    x = gc.placeholder((2,), name="x")
    y = gc.exp(gc.exp(x))
    graph = negated_exponentials().apply(graph_of(y))
    outer = graph.outputs[0].node
    assert outer.op is NEGATIVE
    assert outer.inputs[0].node.op is NEGATIVE
    assert outer.inputs[0].node.inputs[0] is x
    assert outer.where == y.node.where


def test_a_graph_without_matches_is_shared() -> None:
    graph = graph_of(gc.tanh(gc.placeholder((2,))) * 3)
    assert negated_exponentials().apply(graph) is graph


def test_what_stands_for_a_tensor_after_several_rebuilds() -> None:
    twice = Rules("twice")

    @twice.on(NEGATIVE)
    def as_difference(node: Node, context: Context) -> Tensor | None:
        return ops.subtract(0, node.inputs[0])

    x = gc.placeholder((2,), name="x")
    first, kept = gc.exp(x), gc.tanh(x)
    graph = graph_of(gc.square(first), kept, gc.negative(kept))
    with rebuilds() as steps:
        after = twice.apply(negated_exponentials().apply(graph))
    stands = composed(steps)
    assert stands[first].node.op is SUBTRACT
    assert stands[first] is after.outputs[0].node.inputs[0]
    assert stands[graph.outputs[2]] is after.outputs[2]  # one that only the second replaced
    assert kept not in stands
    assert after.outputs[1] is kept


def test_barriers_stay_and_hide_what_is_behind_them() -> None:
    x = gc.placeholder((2,), name="x")
    inner = gc.exp(x)
    y = gc.exp(inner + 1)
    graph = negated_exponentials().apply(graph_of(y, inner), [inner])
    assert graph.outputs[1] is inner
    assert graph.outputs[0].node.op is NEGATIVE
    context = Context([inner])
    assert context.made_by(inner, EXP) is None
    assert context.made_by(y, EXP) is y.node
    assert context.moved(gc.expand_dims(inner, 0))[0] is inner
    shown = gc.expand_dims(inner, 0)
    assert Context([shown]).moved(shown)[0] is shown


def test_firings_are_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    x = gc.placeholder((2, 3), name="x")
    y = (x * 1 - 0) / 4 + gc.stop_gradient(x).T.T
    with caplog.at_level(logging.DEBUG, logger="graphc.passes"), firings() as fired:
        simplify(graph_of(y))
        assert fired == {
            "simplify.neutral_operand": 2, "simplify.divide_by_power_of_two": 1, "simplify.stop_gradient_is_done": 1,
            "simplify.permutation_of_permutation": 1,
        }  # fmt: skip
        simplify(graph_of(x * 1))
    assert fired["simplify.neutral_operand"] == 3
    assert "simplify: divide_by_power_of_two 1, neutral_operand 2, permutation_of_permutation 1" in caplog.text


def test_nothing_is_counted_outside() -> None:
    with firings() as fired:
        pass
    simplify(graph_of(gc.placeholder((2,)) * 1))
    assert not fired


# What a rule may know.


@pytest.mark.parametrize(
    ("tensor", "value"),
    [
        (lambda: gc.constant(2.0), 2.0),
        (lambda: gc.constant(np.full((3, 4), 2.0, np.float32)), 2.0),
        (lambda: gc.reshape(gc.broadcast_to(gc.constant(2.0), (3, 4)), (12,))[::2], 2.0),
        (lambda: gc.constant(np.full(UNIFORM_LIMIT, 2.0)), 2.0),
        (lambda: gc.constant(np.full(UNIFORM_LIMIT + 1, 2.0)), None),
        (lambda: gc.constant(np.array([2.0, 2.0, 2.5])), None),
        (lambda: gc.constant(np.array([0.0, -0.0])), None),
        (lambda: gc.constant(np.zeros((0,))), None),
        (lambda: gc.placeholder((3,)), None),
        (lambda: gc.constant(1.0) + 1, None),
    ],
)  # fmt: skip
def test_values(tensor: object, value: float | None) -> None:
    assert callable(tensor)
    found = Context().value(tensor())
    assert found == value if value is not None else found is None


def test_zeros_have_signs_and_nan_is_no_number() -> None:
    context, zero, minus = Context(), gc.constant(0.0), gc.constant(-0.0)
    assert [context.is_value(t, v) for t in (zero, minus) for v in (0.0, -0.0)] == [True, False, False, True]
    assert context.is_value(gc.constant(0), 0)
    assert not context.is_value(gc.constant(np.nan), np.nan)
    assert context.is_value(gc.constant(np.uint64(2**64 - 1)), 2**64 - 1)
    assert not context.is_value(gc.constant(np.uint8(255)), -1)


def test_what_may_fail() -> None:
    context, x = Context(), gc.placeholder((2,), "int64", name="x")
    checked = ops.check_index(x, 3)
    assert not context.may_fail(x * 2)
    assert context.may_fail(checked)
    assert context.may_fail(gc.sum(checked * 2))
    assert context.may_fail(gc.one_hot(x, 3))
    deep = x
    for _ in range(20_000):
        deep = deep + 1
    assert not context.may_fail(deep)
    assert context.may_fail(deep + checked)


def test_rules_are_functions_with_a_formula() -> None:
    """What a log names can be looked up."""
    from passes import simplify as exact
    from passes import stabilise as stable

    for rules in (exact.RULES, stable.RULES):
        names = {rule.__name__ for each in rules.by_op.values() for rule in each}
        functions = {rule for each in rules.by_op.values() for rule in each}
        assert len(names) == len(functions), "two rules of one name"
        assert all(rule.__doc__ and "\n" not in rule.__doc__.strip() for rule in functions)


def test_a_deep_graph_is_no_trouble() -> None:
    x = gc.placeholder((2,), name="x")
    y = x
    for _ in range(20_000):
        y = gc.negative(y * 1)
    graph, fired = applied(simplify, y)
    assert graph.outputs[0] is x
    assert fired == {"neutral_operand": 20_000, "involution": 10_000}
