"""Values that a later walk of the row needs again: kept in the output's memory where that is right, else computed."""

from typing import Any

import numpy as np
import pytest

import graphc as gc
from passes.program import LoopCall
from runtime.fetches import flatten

F32 = np.float32


def exponentials(fetches: Any) -> list[int]:
    """How often each loop kernel of the step computes an exponential."""
    with gc.Session() as session:
        calls = [c for c in session.compile(fetches).kernels if isinstance(c, LoopCall)]
    return [sum(i.op == "unary" and i.attr == "exp" for i in c.kernel.instructions()) for c in calls]


def agree(fetches: Any, feeds: dict[Any, Any]) -> None:
    with gc.Session() as cpu, gc.Session(threads=1) as one, gc.Session(device="reference") as reference:
        expected = reference.run(fetches, feeds)
        found = cpu.run(fetches, feeds)
        for mine, same, theirs in zip(found, one.run(fetches, feeds), expected, strict=True):
            np.testing.assert_array_equal(mine, same)
            np.testing.assert_allclose(mine, theirs, rtol=2e-5, atol=1e-5)


def rows(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(F32)


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (5, 255), (5, 256), (7, 257), (300, 1000), (0, 4)])
def test_softmax_computes_its_exponentials_once(shape: tuple[int, int]) -> None:
    x = gc.placeholder(("n", "m"), name="x")
    assert exponentials(gc.softmax(x)) == [1]
    agree([gc.softmax(x)], {x: rows(*shape)})


def test_cross_entropy_with_its_gradient() -> None:
    x, labels = gc.placeholder(("n", "m"), name="x"), gc.placeholder(("n",), "int64", name="labels")
    loss = gc.nn.cross_entropy(x, labels)
    fetches = [loss, gc.gradients(loss, x)]
    assert sum(exponentials(fetches)) == 1
    agree(fetches, {x: rows(40, 130), labels: np.arange(40) % 130})


def test_two_outputs_keep_two_values() -> None:
    x = gc.placeholder(("n", "m"), name="x")
    e, t = gc.exp(x), gc.tanh(x)
    fetches = [e / gc.sum(e, 1, keepdims=True), t - gc.sum(t, 1, keepdims=True)]
    agree(fetches, {x: rows(30, 200)})


def test_no_output_of_the_same_dtype_or_form_keeps_it() -> None:
    x = gc.placeholder(("n", "m"), name="x")
    e = gc.exp(x)
    wide = gc.astype(e / gc.sum(e, 1, keepdims=True), "float64")
    assert sum(exponentials(wide)) == 2
    agree([wide], {x: rows(30, 200)})


def test_a_parameter_is_no_place_to_keep() -> None:
    """Its old value is read in the last walk."""
    w = gc.parameter(rows(6, 40), name="w")
    e = gc.exp(w)
    value = w - e / gc.sum(e, 1, keepdims=True)
    with gc.Session() as cpu, gc.Session(device="reference") as reference:
        for session in (cpu, reference):
            session.run(gc.assign(w, value))
        np.testing.assert_allclose(cpu.get(w), reference.get(w), rtol=1e-5, atol=1e-6)


def test_as_an_epilogue_of_the_product() -> None:
    """The product must not share the memory in which its exponentials wait while it is still read."""
    x, w = gc.placeholder(("n", 8), name="x"), gc.placeholder((8, 33), name="w")
    product = x @ w
    e = gc.exp(product)
    fetches = [e / gc.sum(e, 1, keepdims=True) + product]
    agree(fetches, {x: rows(50, 8), w: rows(8, 33)})
    agree([gc.softmax(product)], {x: rows(50, 8), w: rows(8, 33)})


def test_special_values_wait_unchanged() -> None:
    x = gc.placeholder((None, 4), name="x")
    value = np.array(
        [[np.nan, 0, 0, 0], [np.inf, 0, 0, 0], [-np.inf] * 4, [-np.inf, 0, 1, 2], [1e30, -1e30, 0, 0]], F32
    )
    with gc.Session() as cpu, gc.Session(device="reference") as reference:
        with np.errstate(all="ignore"):
            expected = reference.run(gc.softmax(x), {x: value})
        np.testing.assert_allclose(cpu.run(gc.softmax(x), {x: value}), expected, rtol=1e-6)
    assert flatten(gc.softmax(x)).graph.outputs
