"""Programs that once went wrong, found by reading the compiler with the intent to break it."""

import gc
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import Tensor, optim
from graphc.errors import FeedError

F32 = np.float32


def both(fetches: Any, feeds: dict[Any, Any], parameters: list[Tensor], runs: int = 1) -> None:
    """The CPU and the reference make the same of it."""
    with graphc.Session() as cpu, graphc.Session(device="reference") as reference:
        for _ in range(runs):
            found, expected = cpu.run(fetches, feeds), reference.run(fetches, feeds)
        found = [v for v in found if v is not None] + [cpu.get(p) for p in parameters]
        expected = [v for v in expected if v is not None] + [reference.get(p) for p in parameters]
        for mine, theirs in zip(found, expected, strict=True):
            scale = np.nanmax(np.abs(theirs), initial=1)
            np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5 * scale)


def weights(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((rows, columns)) / 16).astype(F32)


OVERWRITTEN = {
    "right operand": lambda w, s: graphc.tanh(s @ w),
    "left operand": lambda w, s: graphc.tanh(w.T @ s),
    "a step of its own": lambda w, s: w - 0.1 * graphc.tanh(s @ w),
    "by rows": lambda w, s: graphc.softmax(s @ w),
    "both operands": lambda w, s: 1.5 * w - 0.5 * ((w @ w.T) @ w),
}


@pytest.mark.parametrize("name", OVERWRITTEN)
def test_no_epilogue_overwrites_what_other_blocks_read(name: str) -> None:
    w = graphc.parameter(weights(256, 256), name="w")
    s = graphc.placeholder((256, 256), name="s")
    both([graphc.assign(w, OVERWRITTEN[name](w, s))], {s: weights(256, 256, 1)}, [w])


def test_orthogonality_with_momentum() -> None:
    w = graphc.parameter(weights(256, 256), name="w")
    loss = graphc.sum(graphc.square(w @ w.T - graphc.eye(256)))
    both([loss, optim.Momentum(1e-4).minimize(loss)], {}, [w], runs=2)


def test_totals_read_a_parameter_before_it_is_overwritten() -> None:
    w, x = graphc.parameter(np.full((40, 64), 2, F32), name="w"), graphc.placeholder((40, 64), name="x")
    q = x / graphc.sum(x, 1, keepdims=True)
    both([graphc.sum(q * w, 0), graphc.assign(w, q)], {x: np.ones((40, 64), F32)}, [w])


def test_totals_read_a_product_before_its_memory_is_written() -> None:
    a, b, x = (graphc.placeholder(s, name=n) for n, s in (("a", (40, 32)), ("b", (32, 64)), ("x", (40, 64))))
    c = a @ b
    n = graphc.sum(c, 1, keepdims=True)
    feeds = {t: np.ones(t.shape, F32) for t in (a, b, x)}
    both([x / n, graphc.sum(c * graphc.sqrt(n), 0)], feeds, [])


@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_a_session_holds_what_its_keys_are_made_of(device: str) -> None:
    """Expanding the rule of ``f`` makes other tensors; those that were fetched must live as long as their step."""
    f = graphc.custom_gradient(lambda x: x * 2, lambda g, y, x: g)
    x = graphc.placeholder((3,), name="x")
    fed = {x: np.arange(3.0)}
    with graphc.Session(device=device) as session:
        y = f(x)
        session.run(y, fed)
        address = id(y)
        del y
        gc.collect()
        kept = [-x for _ in range(2000)]
        for z in kept:
            if id(z) == address:
                assert session.run(z, fed).tolist() == [0, -1, -2]


@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_extents_are_told_apart_by_name_not_by_order(device: str) -> None:
    y, z = graphc.placeholder(("b", "c"), name="y"), graphc.placeholder(("c", "b"), name="z")
    f = graphc.ones((y.shape[0], y.shape[1]))
    with graphc.Session(device=device) as session:
        for _ in range(2):
            assert session.run(f, {y: np.zeros((3, 5))}).shape == (3, 5)
            assert session.run(f, {z: np.zeros((3, 5))}).shape == (5, 3)


def test_extents_of_placeholders_that_are_gone() -> None:
    f = graphc.ones(graphc.placeholder(("b", "c")).shape)
    with graphc.Session() as session:
        for _ in range(20):
            fresh = [graphc.placeholder(("b", "c")) for _ in range(20)]
            assert all(session.run(f, {p: np.zeros((3, 5))}).shape == (3, 5) for p in fresh)
            del fresh
            gc.collect()
            turned = [graphc.placeholder(("c", "b")) for _ in range(20)]
            assert all(session.run(f, {p: np.zeros((3, 5))}).shape == (5, 3) for p in turned)
            del turned
            gc.collect()


def test_what_is_fed_for_its_extents_is_needed_every_time() -> None:
    y, x = graphc.placeholder(("b",), name="y"), graphc.placeholder((3,), name="x")
    fetches = [x * 2, graphc.ones((y.shape[0],))]
    ones = np.ones(3, F32)
    with graphc.Session() as session:
        assert session.run(fetches, {x: ones, y: np.zeros(5)})[1].shape == (5,)
        with pytest.raises(FeedError):
            session.run(fetches, {x: ones})
        assert session.run(fetches, {x: ones, y: np.zeros(2)})[1].shape == (2,)
        with pytest.raises(FeedError):
            session.compile(fetches, feeds=[x])(ones)


def test_the_memory_report_is_that_of_the_steps_own_last_run() -> None:
    a, b = graphc.placeholder(("n", 4), name="a"), graphc.placeholder(("n", 4), name="b")
    fetch = graphc.cumulative_sum(a * b, axis=0) + 1.0
    with graphc.Session() as session:
        first, second = session.compile(fetch, feeds=[a, b]), session.compile(fetch, feeds=[b, a])
        small, large = np.ones((2, 4), F32), np.ones((512, 4), F32)
        first(small, small)
        second(large, large)
        first(large, large)
        assert first.memory_report().arena == second.memory_report().arena


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_a_rate_of_zero_hides_no_nan(rate: float) -> None:
    w, u = graphc.parameter(np.ones((40, 40), F32), name="w"), graphc.placeholder((40, 7), name="u")
    fed = np.ones((40, 7), F32)
    fed[3, 2] = np.nan
    known, given = graphc.constant(np.float32(rate)), graphc.placeholder((), name="rate")
    for factor in (known, given):
        both([graphc.assign(w, w - factor * (u @ u.T))], {u: fed, given: rate} if factor is given else {u: fed}, [w])
