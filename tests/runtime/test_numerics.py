"""``Session(check_numerics=True)``: the op that makes the first NaN or infinity is named, and nothing has changed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.errors import GraphcError, IndexRangeError, NumericsError
from graphc.node import Tensor
from graphc.where import derived_from
from runtime import numerics
from runtime.cpu.backend import CpuProgram

DEVICES = ("cpu", "reference")
ONES = np.ones((3, 2), np.float32)
ZERO = np.array([[1, 2], [3, 0], [0, 4]], np.float32)
START = np.array([1.0, 0.5], np.float32)


def leaves() -> tuple[Tensor, Tensor]:
    return gc.placeholder(("n", 2), name="x"), gc.parameter(START, name="w")


def refused(fetches: Any, feeds: dict[Any, Any], *kept: tuple[Tensor, Any], device: str = "cpu") -> str:
    """What the error says; the run has changed neither parameters nor counters, and the next one may succeed."""
    with gc.Session(device, check_numerics=True) as session:
        with pytest.raises(NumericsError) as error:
            session.run(fetches, feeds)
        for parameter, value in kept:
            np.testing.assert_array_equal(session.get(parameter), value)
        assert session.stats()["runs"] == 0
        assert session._store.run_counter == 0
    assert isinstance(error.value, (GraphcError, FloatingPointError))
    assert "nothing was updated" in str(error.value)
    return str(error.value)


def line_of(tensor: Tensor) -> str:
    return f"test_numerics.py:{tensor.node.where.line} in "


@pytest.mark.parametrize("device", DEVICES)
def test_a_loss_from_the_logarithm_of_zero(device: str) -> None:
    x, w = leaves()
    y = gc.log(x * w)
    loss = gc.mean(y)
    text = refused([loss, gc.optim.SGD(0.1).minimize(loss)], {x: ZERO}, (w, START), device=device)
    first, result, inputs, operand, last = text.splitlines()
    assert first.startswith("log at ")
    assert line_of(y) in first
    assert first.endswith("gives 2 -inf in 6 elements")
    assert "log float32[3, 2]" in result
    assert result.endswith("first at (1, 1)")
    assert inputs == "  inputs:"
    assert "multiply float32[3, 2]" in operand
    assert operand.endswith("from 0.0 to 3.0, all finite; there 0.0")
    assert "where(condition, x, float('inf'))" in last


@pytest.mark.parametrize("device", DEVICES)
def test_zero_by_zero_in_a_gradient(device: str) -> None:
    """The value is finite everywhere; the derivative of a square root at 0 is not."""
    x, w = leaves()
    norm = gc.sqrt(gc.sum(gc.square(x * w), 1))
    loss = gc.sum(norm)
    feed = np.array([[1, 2], [0, 0], [3, 4]], np.float32)
    with gc.Session(device, check_numerics=True) as session:
        assert np.isfinite(session.run(loss, {x: feed}))
    text = refused([loss, gc.optim.SGD(0.1).minimize(loss)], {x: feed}, (w, START), device=device)
    first = text.splitlines()[0]
    assert "in the gradient of that line" in first
    assert line_of(norm) in first
    assert "first at (1,)" in text
    assert "there 0.0" in text


@pytest.mark.parametrize("device", DEVICES)
def test_overflow_in_exp(device: str) -> None:
    x, w = leaves()
    y = gc.exp(x * w * 50)
    text = refused([gc.sum(1 / y), gc.assign(w, w * 2)], {x: ZERO}, (w, START), device=device)  # 1 / inf hides it
    assert text.startswith("exp at ")
    assert "gives 2 +inf in 6 elements" in text
    assert "from 0.0 to 150.0, all finite; there 150.0" in text
    assert "first at (1, 0)" in text


@pytest.mark.parametrize("device", DEVICES)
def test_a_feed_that_is_not_finite(device: str) -> None:
    x, w = leaves()
    feed = ONES.copy()
    feed[2, 1], feed[0, 1] = np.nan, -np.inf
    text = refused([gc.sum(x * w), gc.assign(w, w * 2)], {x: feed}, (w, START), device=device)
    assert text.startswith("the feed of placeholder 'x' (")
    assert line_of(x) in text
    assert "holds 1 NaN and 1 -inf in 6 elements" in text
    assert "first at (0, 1)" in text


def test_a_feed_that_overflows_when_it_is_converted() -> None:
    x = gc.placeholder((2,), name="x")
    assert "holds 1 +inf in 2 elements" in refused(x + 1, {x: np.array([1e300, 1.0])})


@pytest.mark.parametrize("device", DEVICES)
def test_a_parameter_that_is_not_finite(device: str) -> None:
    x, w = leaves()
    with gc.Session(device, check_numerics=True) as session:
        session.run(gc.sum(x * w), {x: ONES})
        session.set(w, [np.nan, 1])
        with pytest.raises(NumericsError, match=r"parameter 'w' .* holds 1 NaN in 2 elements"):
            session.run(gc.sum(x * w), {x: ONES})


@pytest.mark.parametrize("device", DEVICES)
def test_an_update_that_overflows(device: str) -> None:
    x, w = leaves()
    (slot,) = [gc.parameter(np.float32(3), name="slot")]
    fetches = [gc.sum(x), gc.assign(slot, slot + 1), gc.assign(w, w * 2e38 * gc.sum(x))]
    text = refused(fetches, {x: ONES}, (w, START), (slot, 3), device=device)
    assert text.startswith("multiply at ")
    assert "the new value of parameter 'w'" in text
    assert "gives 2 +inf in 2 elements" in text


@pytest.mark.parametrize("device", DEVICES)
def test_it_is_found_in_the_run_in_which_it_happens(device: str) -> None:
    x, w = leaves()
    loss = gc.sum(gc.square(x * w))
    with gc.Session(device, check_numerics=True) as session:
        step = session.compile([loss, gc.optim.SGD(1e12).minimize(loss)], feeds=[x])
        before = session.get(w)
        while np.max(np.abs(before)) < 1e15:  # the next run's square, and its gradient, are too large
            step(ONES)
            before = session.get(w)
        with pytest.raises(NumericsError):
            step.repeat(5, ONES)
        assert 0 < step.runs < 20
        before = session.get(w)
        with pytest.raises(NumericsError):
            step(ONES)
        np.testing.assert_array_equal(session.get(w), before)
        assert session.stats()["runs"] == step.runs == session._store.run_counter
        assert np.all(np.isfinite(before))


def test_repeated_runs_are_each_checked() -> None:
    w = gc.parameter(np.float32(1e30), name="w")
    with gc.Session(check_numerics=True) as session:
        step = session.compile(gc.assign(w, w * 100))
        with pytest.raises(NumericsError, match="multiply"):
            step.repeat(100)
        assert step.runs == 4
        assert session.get(w) == np.float32(1e30) * np.float32(100) ** 4 or session.get(w) > 9e37


# What is meant.


def test_masks_of_infinity_are_meant() -> None:
    x = gc.placeholder((2, 3), name="x")
    masked = gc.where(x > 0, x, -math.inf)
    loss = gc.sum(gc.softmax(masked) * x)
    feed = np.array([[1, -1, 2], [3, 4, -5]], np.float32)
    with gc.Session(check_numerics=True) as session, gc.Session("reference") as plain:
        for fetches in ([loss, gc.gradients(loss, x)], [masked], [gc.max(masked, 1), gc.exp(masked)], [x + masked]):
            for mine, other in zip(session.run(fetches, {x: feed}), plain.run(fetches, {x: feed}), strict=True):
                np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-6)
    # A row with nothing left is NaN: that is nobody's wish.
    text = refused(loss, {x: -np.ones((2, 3))})
    assert text.startswith("softmax at ")
    assert "6 NaN in 6 elements" in text
    assert "none finite; 6 -inf in 6 elements" in text


def test_a_parameter_may_start_at_infinity() -> None:
    best = gc.parameter(np.float32(np.inf), name="best")
    x = gc.placeholder((), name="x")
    with gc.Session(check_numerics=True) as session:
        for value in (3.0, 5.0):
            session.run(gc.assign(best, gc.minimum(best, x)), {x: value})
        assert session.get(best) == 3


def test_an_infinity_may_not_reach_another_parameter() -> None:
    x, w = leaves()
    text = refused(gc.assign(w, gc.where(w > 0.7, w, math.inf)), {}, (w, START))
    assert text.startswith("parameter 'w' would be set to 1 +inf in 2 elements, passed on from a constant")
    assert x.name == "x"


def test_an_infinity_beside_a_meant_one_is_found() -> None:
    x = gc.placeholder((3,), name="x")
    mask = gc.constant(np.array([0, -np.inf, 0], np.float32))
    text = refused(x * 1e37 + mask, {x: [1, 2, 300]})
    assert text.startswith("multiply at ")
    assert "first at (2,)" in text
    text = refused(x + mask, {x: [1, np.inf, 0]})
    assert "the feed of placeholder 'x'" in text
    big = gc.constant(np.array([3e38, -np.inf, 0], np.float32))
    text = refused(big + x, {x: [3e38, 1, 1]})
    assert text.startswith("add at ")
    assert "first at (0,)" in text  # not the one that was written


def test_a_hidden_infinity_of_the_users_is_reported() -> None:
    """Its gradient would be NaN."""
    x = gc.placeholder((3,), name="x")
    y = gc.where(x > 0, gc.log(x), 0)
    assert refused(y, {x: [1, 0, 2]}).startswith("log at ")
    safe = gc.where(x > 0, gc.log(gc.where(x > 0, x, 1)), 0)
    with gc.Session(check_numerics=True) as session:
        value, slope = session.run([safe, gc.gradients(gc.sum(safe), x)], {x: [1, 0, 2]})
        np.testing.assert_allclose(value, [0, 0, np.log(2)], rtol=1e-6)
        np.testing.assert_allclose(slope, [1, 0, 0.5])


def test_what_a_gradient_hides_is_its_own_affair() -> None:
    """A rule that divides by 0 where its result is not taken is no fault of the user's."""
    x, y = gc.placeholder((3,), name="x"), gc.placeholder((3,), name="y")
    assert refused(gc.where(x > 0, 1 / y, x), {x: [1, -1, 2], y: [1, 0, 1]}).startswith("divide at ")
    with derived_from(x.node.where, "backward"):
        hidden = gc.where(x > 0, 1 / y, x)
        felt = gc.where(x > 0, x, 1 / y)
    with gc.Session(check_numerics=True) as session:
        np.testing.assert_array_equal(session.run(hidden, {x: [1, -1, 2], y: [1, 0, 1]}), [1, -1, 1])
    text = refused(felt, {x: [1, -1, 2], y: [1, 0, 1]})
    assert text.startswith("divide at ")
    assert "in the gradient of that line" in text


def test_stable_forms_are_taken_as_they_are_computed() -> None:
    x = gc.placeholder((3,), name="x")
    fetches = [gc.log(gc.softmax(x)), gc.log(gc.sum(gc.exp(x), 0)), gc.log(gc.sigmoid(x))]
    with gc.Session(check_numerics=True) as session:
        found = session.run(fetches, {x: [-1000, 0, 1000]})
        assert all(np.all(np.isfinite(f)) for f in found)
    # The reference computes them as they are written, and says so.
    assert refused(fetches[:1], {x: [-1000, 0, 1000]}, device="reference").startswith("log at ")


SAFE: dict[str, tuple[Callable[[Tensor], Tensor], list[float]]] = {
    "power at 0": (lambda x: x**2.5, [0, 1, 2]),
    "zero to the power of zero": (lambda x: gc.pow(x, x), [1, 2, 3]),
    "relu": (gc.relu, [-1, 0, 1]),
    "absolute value": (gc.abs, [-1, 0, 1]),
    "sigmoid far out": (gc.sigmoid, [-500, 0, 500]),
    "tanh far out": (gc.tanh, [-500, 0, 500]),
    "softmax far apart": (gc.softmax, [-1e30, 0, 1e30]),
    "log-softmax far apart": (gc.log_softmax, [-1e10, 0, 1e10]),
    "subnormals": (lambda x: x * 1e-3, [1e-40, 0, 1]),
}


@pytest.mark.parametrize("name", SAFE)
def test_no_false_alarm(name: str) -> None:
    build, values = SAFE[name]
    x, p = gc.placeholder((3,), name="x"), gc.parameter(np.ones(3, np.float32), name="p")
    loss = gc.sum(build(x) * p)
    with gc.Session(check_numerics=True) as session:
        session.run([loss, gc.gradients(loss, x), gc.optim.Adam(0.1).minimize(loss)], {x: values})


LIBRARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    **{
        name: (lambda x, t, name=name: getattr(gc.nn, name)(x))  # type: ignore[misc]
        for name in (
            "celu", "elu", "gelu", "hardsigmoid", "hardswish", "hardtanh", "layer_norm", "leaky_relu", "log_sigmoid",
            "mish", "relu6", "rms_norm", "selu", "silu", "softplus", "softsign", "tanhshrink",
        )
    },
    **{
        name: (lambda x, t, name=name: getattr(gc.nn, name)(x, t))  # type: ignore[misc]
        for name in (
            "mse_loss", "l1_loss", "huber_loss", "smooth_l1_loss", "cross_entropy", "cosine_similarity",
            "binary_cross_entropy_with_logits",
        )
    },
    "kl_div": lambda x, t: gc.nn.kl_div(gc.log_softmax(x), t),
    "binary_cross_entropy": lambda x, t: gc.nn.binary_cross_entropy(gc.sigmoid(x), t),
}  # fmt: skip


@pytest.mark.parametrize("name", LIBRARY)
def test_the_library_hides_no_infinity(name: str) -> None:
    """What it builds of ops counts as the user's, so it may not make what it then takes away."""
    x, t = gc.placeholder((2, 6), name="x"), gc.placeholder((2, 6), name="t")
    far = np.array([[-1e4, -100, -20, -1, -1e-20, -0.0], [0, 1e-40, 1e-7, 1, 20, 1e4]], np.float32)
    wanted = np.array([[0, 1, 0, 1, 0.5, 1], [0, 0, 1, 1, 0, 0.5]], np.float32)
    loss = gc.sum(LIBRARY[name](x, t))
    with gc.Session("reference", check_numerics=True) as session:
        session.run([loss, gc.gradients(loss, x)], {x: far, t: wanted})


# The compiled step.


def test_a_compiled_step_that_differs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = leaves()
    true = CpuProgram.run

    def broken(self: Any, *args: Any) -> Any:
        results = true(self, *args)
        results[0] = results[0] * np.float32(np.inf)
        return results

    monkeypatch.setattr(CpuProgram, "run", broken)
    text = refused([x * w, gc.assign(w, w + 1)], {x: ONES}, (w, START))
    assert text.startswith("the compiled step gives 6 +inf in 6 elements for multiply")
    assert "GRAPHC_DEBUG=passes" in text


def test_it_gives_what_an_unchecked_session_gives() -> None:
    x, w = leaves()
    loss = gc.mean(gc.square(x * w - 1))
    fetches = [loss, gc.optim.Adam(0.1).minimize(loss)]
    with gc.Session(check_numerics=True) as checked, gc.Session() as plain:
        for rows in (3, 1, 3):
            assert checked.run(fetches, {x: ZERO[:rows]})[0] == plain.run(fetches, {x: ZERO[:rows]})[0]
        np.testing.assert_array_equal(checked.get(w), plain.get(w))
        assert checked.stats()["runs"] == plain.stats()["runs"] == 3


def test_other_errors_stay_what_they_are() -> None:
    i = gc.placeholder((2,), "int64", name="i")
    with gc.Session(check_numerics=True) as session, pytest.raises(IndexRangeError):
        session.run(gc.one_hot(i, 3), {i: [0, 3]})


def test_integers_and_empty_arrays() -> None:
    x, i = gc.placeholder(("n",), name="x"), gc.placeholder((2,), "int64", name="i")
    with gc.Session(check_numerics=True) as session:
        session.run([i * 3, i > 1, gc.sum(x), gc.exp(x)], {x: np.zeros(0), i: [2**62, -1]})
    assert refused(gc.mean(x), {x: np.zeros(0)}).startswith("divide at ")  # 0 / 0


def test_words() -> None:
    """One element, none, and values of one kind."""
    assert numerics._words(np.float32([np.nan])) == "1 NaN in 1 element"
    assert numerics._range(np.zeros((0, 3), np.float32)) == "no elements"
    assert numerics._range(np.float32([np.inf, -np.inf])) == "none finite; 1 +inf and 1 -inf in 2 elements"
    assert numerics._range(np.array(2.5, np.float32)) == "value 2.5"
    assert numerics.position(()) == "its only element"
