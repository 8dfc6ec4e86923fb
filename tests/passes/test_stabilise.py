"""The stable forms: which rule makes them, values and gradients where the form as written breaks, and what stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from rewrite_checks import applied, evaluated, graph_of, ops_in, run
from stable_forms import FORMS, Form

import graphc as gc
from graphc.node import Tensor
from passes.gradient import expand_gradients
from passes.stabilise import RULES, stabilise

EACH = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)


def argument(form: Form, dtype: str = "float32") -> Tensor:
    return gc.placeholder(np.shape(form.points), dtype, name="x")


def test_every_rule_has_a_form() -> None:
    rules = {rule.__name__ for rules in RULES.by_op.values() for rule in rules}
    assert rules == {form.rule for form in FORMS}


@EACH
def test_its_rule_fires_and_leaves_nothing_to_do(form: Form) -> None:
    graph, fired = applied(stabilise, form.write(argument(form)))
    assert form.rule in fired
    assert applied(stabilise, *graph.outputs)[1] == {}


@EACH
def test_value_and_gradient_where_the_form_as_written_breaks(form: Form) -> None:
    x = argument(form)
    y = form.write(x)
    points = np.asarray(form.points, np.float32)
    fetches = [y, gc.gradients(gc.sum(y), x)]
    exact = points.astype(np.float64)
    with np.errstate(all="ignore"):
        expected = [form.value(exact), form.gradient(exact)]

    def wrong(found: list[Any]) -> list[Any]:
        """Where they are off by more than some 30 ulps: each is a chain of under ten functions of some ulps."""
        return [
            ~np.isclose(f.astype(np.float64), e, rtol=4e-6, atol=atol, equal_nan=True)
            for f, e, atol in zip(found, expected, (1e-38, form.slack + 1e-38), strict=True)
        ]

    results = run(fetches, {x: points})
    for name, places, found in zip(("value", "gradient"), wrong(results), results, strict=True):
        assert not places.any(), f"{name}: {found}"
    if form.breaks:
        assert any(places.any() for places in wrong(run(fetches, {x: points}, "reference"))), "the naive form is right"


@EACH
def test_it_is_the_same_function(form: Form) -> None:
    """In float64 and far from trouble: values, first and second derivatives, and the gradient with respect to every
    tensor inside the form, each of which is a barrier to the rules that would look behind it.
    """
    x = argument(form, "float64")
    y = form.write(x)
    inner = [n.outputs[0] for n in graph_of(y).nodes if n.inputs and n.outputs[0].dtype.kind == "f"]
    weights = gc.constant(np.linspace(0.5, 1.5, int(np.prod(y.shape))).reshape(y.shape))
    total = gc.sum(gc.square(y) * weights)
    first = gc.gradients(total, x)
    second = gc.gradients(gc.sum(gc.square(first)), x, unreachable="zero")
    fetches = [[y, first, second]]
    fetches += [[g] for t in inner for g in [gc.gradients(total, t, unreachable="zero")]]
    fetches += [gc.gradients(total, [x, *inner], unreachable="zero")]
    points = np.random.default_rng(5).uniform(*form.mild, np.shape(form.points))
    for fetched in fetches:
        plain = graph_of(*fetched)
        values = (evaluated(graph, {x: points}) for graph in (stabilise(plain), plain))
        for found, expected in zip(*values, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@EACH
def test_what_others_read_and_what_is_fetched_stays(form: Form) -> None:
    """A rule decides for one reader: all that the naive form computed may be fetched as well, and is as it was."""
    x = argument(form, "float64")
    y = form.write(x)
    tensors = [n.outputs[0] for n in graph_of(y).nodes]
    graph, fired = applied(stabilise, *tensors)
    assert form.rule in fired
    assert [t.type for t in graph.outputs] == [t.type for t in tensors]
    points = np.random.default_rng(6).uniform(*form.mild, np.shape(form.points))
    for found, expected in zip(evaluated(graph, {x: points}), evaluated(graph_of(*tensors), {x: points}), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


# Near misses: one thing is not as it must be, and the function is another.


def square_matrix() -> Tensor:
    return gc.placeholder((3, 3), name="x")


def _of_max(x: Tensor, m: Tensor) -> Tensor:
    return m + gc.log(gc.sum(gc.exp(x - m), -1, keepdims=True))


KEPT: dict[str, Callable[[Tensor], Tensor]] = {
    "log(2 + x)": lambda x: gc.log(x + 2),
    "log(x - 1)": lambda x: gc.log(x - 1),
    "log(1 + x) of ones that differ": lambda x: gc.log(x + gc.constant([1.0, 1.0, 1.5])),
    "log(sum(x))": lambda x: gc.log(gc.sum(x, 0)),
    "log(max(exp))": lambda x: gc.log(gc.max(gc.exp(x), 0)),
    "log(sum(exp) / -2)": lambda x: gc.log(gc.sum(gc.exp(x), 0) / -2.0),
    "log(sum(exp) * 0)": lambda x: gc.log(gc.sum(gc.exp(x), 0) * 0.0),
    "log(sum(exp) / x)": lambda x: gc.log(gc.sum(gc.exp(x), 0) / x),
    "log(exp + x)": lambda x: gc.log(gc.exp(x) + x),
    "log(tanh)": lambda x: gc.log(gc.tanh(x)),
    "log(2 * softmax)": lambda x: gc.log(2 * gc.softmax(x)),
    "log(stop_gradient(softmax))": lambda x: gc.log(gc.stop_gradient(gc.softmax(x))),
    "log of padding and softmax": lambda x: gc.log(gc.pad(gc.softmax(x), 1)),
    "log1p(exp(-|x|))": lambda x: gc.log1p(gc.exp(-gc.abs(x))),
    "log1p(exp(min(x, 0)))": lambda x: gc.log1p(gc.exp(gc.minimum(x, 0))),
    "log1p(exp(-relu(x)))": lambda x: gc.log1p(gc.exp(-gc.relu(x))),
    "log1p(-exp(x))": lambda x: gc.log1p(-gc.exp(x)),
    "log1p(sigmoid)": lambda x: gc.log1p(gc.sigmoid(x)),
    "exp(log(x))": lambda x: gc.exp(gc.log(x)),
    "exp - 2": lambda x: gc.exp(x) - 2,
    "exp - 0.9999999": lambda x: gc.exp(x) - float(np.float32(0.9999999)),
    "exp + 1": lambda x: gc.exp(x) + 1,
    "2 - exp": lambda x: 2 - gc.exp(x),
    "1 + cos": lambda x: 1 + gc.cos(x),
    "erf - 1": lambda x: gc.erf(x) - 1,
    "exp(x) / sum(exp(2x))": lambda x: gc.exp(x) / gc.sum(gc.exp(2 * x), -1, keepdims=True),
    "exp / sum(exp) of rows where columns are": lambda x: gc.exp(x) / gc.sum(gc.exp(x), -1),
    "exp / column sums turned": lambda x: gc.exp(x) / gc.expand_dims(gc.sum(gc.exp(x), 0), 1),
    "exp / max(exp)": lambda x: gc.exp(x) / gc.max(gc.exp(x), -1, keepdims=True),
    "exp / stop_gradient(sum(exp))": lambda x: gc.exp(x) / gc.stop_gradient(gc.sum(gc.exp(x), -1, keepdims=True)),
    "x - logsumexp of rows where columns are": lambda x: x - gc.logsumexp(x, -1),
    "x - stop_gradient(logsumexp)": lambda x: x - gc.stop_gradient(gc.logsumexp(x, -1, keepdims=True)),
    "2x - logsumexp(x)": lambda x: 2 * x - gc.logsumexp(x, -1, keepdims=True),
    "logsumexp(x) - x": lambda x: gc.logsumexp(x, -1, keepdims=True) - x,
    "softmax(x - min)": lambda x: gc.softmax(x - gc.min(x, -1, keepdims=True)),
    "softmax(x - max of columns)": lambda x: gc.softmax(x - gc.max(x, 0)),
    "softmax(x - max of rows where columns are)": lambda x: gc.softmax(x - gc.max(x, -1)),
    "softmax(2x - max(x))": lambda x: gc.softmax(2 * x - gc.max(x, -1, keepdims=True)),
    "1 / (2 + exp(-x))": lambda x: 1 / (2 + gc.exp(-x)),
    "exp(x) / (exp(2x) + exp(3x))": lambda x: gc.exp(x) / (gc.exp(2 * x) + gc.exp(3 * x)),
    "(exp(x) + exp(2x)) / exp(x)": lambda x: (gc.exp(x) + gc.exp(2 * x)) / gc.exp(x),
    "(1 + exp(-x)) ** -2": lambda x: (1 + gc.exp(-x)) ** -2,
    "cosh / sinh": lambda x: (gc.exp(x) + gc.exp(-x)) / (gc.exp(x) - gc.exp(-x)),
    "tanh of unlike parts": lambda x: (gc.exp(x) - gc.exp(-2 * x)) / (gc.exp(x) + gc.exp(-2 * x)),
    "sinh of unlike parts": lambda x: (gc.exp(2 * x) - gc.exp(-3 * x)) / 2,
    "sinh * 4": lambda x: (gc.exp(x) - gc.exp(-x)) * 2,
    "cosh": lambda x: (gc.exp(x) + gc.exp(-x)) / 2,
    "sqrt(x * y)": lambda x: gc.sqrt(x * gc.permute_dims(x, (1, 0))),
    "sqrt(x**3)": lambda x: gc.sqrt(x**3),
    "sqrt(x**2 + 1)": lambda x: gc.sqrt(x**2 + 1),
    "(x**2) ** 0.25": lambda x: (x**2) ** 0.25,
    "mean of squares of other axes": lambda x: gc.mean(x**2, 0) - gc.mean(x, 1) ** 2,
    "mean(x**2) - mean(2x)**2": lambda x: gc.mean(x**2, 1) - gc.mean(2 * x, 1) ** 2,
    "mean(x**2) - mean(x)": lambda x: gc.mean(x**2, 1) - gc.mean(x, 1),
    "sum(x**2) - mean(x)**2": lambda x: gc.sum(x**2, 1) - gc.mean(x, 1) ** 2,
    "sum(x**2) / 2 - (sum(x) / 2)**2 of three": lambda x: gc.sum(x**2, 1) / 2.0 - (gc.sum(x, 1) / 2.0) ** 2,
    "mean(x)**2 - mean(x**2)": lambda x: gc.mean(x, 1) ** 2 - gc.mean(x**2, 1),
    "mean(x**2) - stop_gradient(mean(x))**2": lambda x: gc.mean(x**2, 1) - gc.stop_gradient(gc.mean(x, 1)) ** 2,
}


@pytest.mark.parametrize("name", KEPT)
def test_near_misses_stay(name: str) -> None:
    y = KEPT[name](square_matrix())
    graph, fired = applied(stabilise, y)
    assert fired == {}
    assert graph.outputs[0] is y


def test_only_the_maximum_is_added_back() -> None:
    """What is added must be what was subtracted, element for element, and as much kept from gradients."""
    x = square_matrix()
    m = gc.max(x, -1, keepdims=True)
    wrong = [
        m + gc.log(gc.sum(gc.exp(x - gc.stop_gradient(m)), -1, keepdims=True)),
        gc.stop_gradient(m) + gc.log(gc.sum(gc.exp(x - m), -1, keepdims=True)),
        gc.squeeze(m, -1) + gc.log(gc.sum(gc.exp(x - m), -1, keepdims=True)),
        gc.permute_dims(m, (1, 0)) + gc.log(gc.sum(gc.exp(x - m), -1)),
        gc.max(x, 0) + gc.log(gc.sum(gc.exp(x - m), -1)),
        _of_max(x, gc.min(x, -1, keepdims=True)),
    ]
    for y in wrong:
        assert "logsumexp_by_hand" not in applied(stabilise, y)[1]
    for y in (_of_max(x, m), _of_max(x, gc.max(x)), gc.max(x) + gc.log(gc.sum(gc.exp(x - gc.max(x)), 1))):
        assert applied(stabilise, y)[1] == {"log_of_sum_of_exp": 1, "logsumexp_by_hand": 1}


def test_one_expression_written_twice_is_one_where_it_can_be() -> None:
    """The same inputs, ops and attributes; random numbers and gradients are themselves alone."""
    x = square_matrix()

    def softmax_of(a: Tensor, b: Tensor) -> bool:
        return "softmax_by_hand" in applied(stabilise, gc.exp(a) / gc.sum(gc.exp(b), -1, keepdims=True))[1]

    assert softmax_of(gc.tanh(x) * 2 + gc.max(x, 0), gc.tanh(x) * 2 + gc.max(x, 0))
    assert not softmax_of(gc.tanh(x) * 2, gc.tanh(x) * 3)
    assert not softmax_of(gc.max(x, 0) + x, gc.max(x, 1) + x)
    assert not softmax_of(x + gc.random.normal((3, 3)), x + gc.random.normal((3, 3)))
    noise = gc.random.normal((3, 3))
    assert softmax_of(x + noise, x + noise)
    total = gc.sum(gc.square(x))
    assert not softmax_of(gc.gradients(total, x), gc.gradients(total, x))
    long = [x, x]
    for _ in range(100):
        long = [gc.tanh(t) for t in long]
    assert not softmax_of(*long)  # a bounded comparison


def test_parameters_are_themselves_alone() -> None:
    p, q = (gc.parameter(np.ones((3, 3), np.float32), name=name) for name in "pq")
    assert applied(stabilise, gc.exp(p) / gc.sum(gc.exp(q), -1, keepdims=True))[1] == {}


@pytest.mark.parametrize("extent", [0, 1, 5])
def test_a_symbolic_extent(extent: int) -> None:
    x = gc.placeholder((2, "n"), name="x")
    fetches = [
        gc.log(gc.sum(gc.exp(x), 1)), gc.log(gc.mean(gc.exp(x), 1)), gc.exp(x) / gc.sum(gc.exp(x), 1, keepdims=True),
        gc.mean(x**2, 1) - gc.mean(x, 1) ** 2,
    ]  # fmt: skip
    assert len(applied(stabilise, *fetches)[1]) == 4
    points = np.random.default_rng(1).normal(size=(2, extent))
    for found, expected in zip(run(fetches, {x: points}), run(fetches, {x: points}, "reference"), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_sum_of_exponentials_over_no_elements_stays() -> None:
    x = gc.placeholder((0, 2), name="x")
    y = gc.log(gc.sum(gc.exp(x), 0))
    assert applied(stabilise, y)[1] == {}
    np.testing.assert_array_equal(run(y, {x: np.zeros((0, 2))}), [-np.inf] * 2)


def test_softplus_and_its_kin_have_all_derivatives_at_zero() -> None:
    x = gc.placeholder((3,), name="x")
    first = gc.gradients(gc.sum(gc.log(gc.sigmoid(x))), x)
    second = gc.gradients(gc.sum(first), x)
    third = gc.gradients(gc.sum(second), x)
    points = np.array([0.0, -0.0, 0.7])
    s = 1 / (1 + np.exp(-points))
    found = run([first, second, third], {x: points})
    expected = [1 - s, -s * (1 - s), -s * (1 - s) * (1 - 2 * s)]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_it_runs_before_gradients_and_again_after() -> None:
    """A naive form that only the gradient brings is made stable too."""
    x = gc.placeholder((3,), name="x")
    y = gc.log(gc.gradients(gc.sum(gc.log(1 + gc.exp(x))), x))
    assert np.isfinite(run(y, {x: np.array([-50.0, 0.0, 50.0])})).all()


def test_derivatives_keep_their_own_differences() -> None:
    """1 - sigmoid in the derivative of sigmoid, and exp of log_softmax in its, would only cost more."""
    x = gc.placeholder((3,), name="x")
    for function in (gc.sigmoid, gc.log_softmax):
        y = function(x)
        assert applied(stabilise, gc.gradients(gc.sum(gc.square(y)), x))[1] == {}
        expanded = graph_of(gc.gradients(gc.sum(gc.square(y)), x))
        assert applied(stabilise, *expand_gradients(expanded).outputs)[1] == {}


def test_the_placeholder_itself_is_no_barrier() -> None:
    """The usual case: the derivative of the stable form is taken."""
    x = gc.placeholder((2, 3), name="x")
    y = gc.sum(gc.log(gc.softmax(x)))
    assert ops_in(stabilise(graph_of(y, gc.gradients(y, x))))["log_softmax"] == 1


def test_a_barrier_is_followed_through_rewrites_of_its_inputs() -> None:
    """exp(...) is built again because its input is; it must stay what the gradient asks for."""
    x = gc.placeholder((2, 3), name="x")
    inner = gc.exp(gc.log(1 + x))
    y = gc.log(gc.sum(inner, 1))
    points = np.arange(1.0, 7.0).reshape(2, 3) / 8
    found, expected = (run(gc.gradients(gc.sum(y), inner), {x: points}, device) for device in ("cpu", "reference"))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
