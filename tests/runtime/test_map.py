"""``step.map``: the same as a call for each batch, natively where batches are alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import optim
from graphc.errors import FeedError, GraphcError, IndexRangeError, SessionError
from runtime import batches
from runtime.batches import grouped

F32 = np.float32


@pytest.fixture(params=["cpu", "reference"])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def classifier() -> tuple[list[Any], list[graphc.Tensor]]:
    """A training step with in-place updates, a check of labels, random numbers, and a fetched gradient."""
    x, labels = graphc.placeholder((None, 6), name="x"), graphc.placeholder((None,), "int64", name="labels")
    w = graphc.parameter(graphc.init.he_normal(), shape=(6, 4), name="w")
    noise = graphc.random.uniform((6, 4), -0.1, 0.1)
    loss = graphc.nn.cross_entropy(x @ (w + noise), labels)
    return [loss, graphc.gradients(loss, w), noise, optim.Adam(0.01).minimize(loss)], [x, labels]


def data(sizes: list[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(1)
    return [(rng.normal(size=(n, 6)).astype(F32), rng.integers(0, 4, n)) for n in sizes]


def same(a: Any, b: Any) -> bool:
    return all(x is y is None or np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("sizes", [[], [5], [5] * 40, [5] * 20 + [3] + [5] * 7 + [3, 2, 2]])
def test_map_is_a_call_for_each_batch(device: str, sizes: list[int]) -> None:
    """To the bit: what every run fetches, parameters, slots, and the run counter."""
    fetches, feeds = classifier()
    found = []
    for mapped in (False, True):
        with graphc.Session(device=device, seed=3) as session:
            step = session.compile(fetches, feeds=feeds)
            results = step.map(iter(data(sizes))) if mapped else [step(*batch) for batch in data(sizes)]
            held = [session.get(p) for p in session._store]
            found.append((results, held, (session._store.run_counter, step.runs, session.stats()["runs"])))
    assert len(found[1][0]) == len(sizes)
    assert all(same(a, b) for a, b in zip(found[0][0], found[1][0], strict=True))
    assert same(found[0][1], found[1][1])
    assert found[0][2] == found[1][2] == (len(sizes),) * 3


def test_batches_that_fit_run_in_one_native_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "PAUSE", 1e9)
    fetches, feeds = classifier()
    with graphc.Session() as session:
        step = session.compile(fetches, feeds=feeds)
        given = data([4] * 74)
        step(*given[0])
        request = step._request
        assert request is not None
        groups: list[int] = []
        run_each = request.run_each
        monkeypatch.setattr(type(request), "run_each", lambda self, feeds: groups.append(len(feeds)) or run_each(feeds))
        step.map(given[1:])
    assert groups == [1, 8, 64]


def test_results_are_arrays_of_their_own() -> None:
    x = graphc.placeholder((3,), name="x")
    with graphc.Session() as session:
        step = session.compile(x * 2, feeds=[x])
        given = [np.full(3, k, F32) for k in range(30)]
        found = step.map(given)
        assert [list(f) for f in found] == [[2.0 * k] * 3 for k in range(30)]
        assert len({f.ctypes.data for f in found}) == 30


def test_other_forms_are_converted_as_in_a_call(device: str) -> None:
    """Lists, other dtypes, strides: each as the call would take it, between batches that fit as they are."""
    x, y = graphc.placeholder((None,), name="x"), graphc.placeholder((None,), name="y")
    with graphc.Session(device=device) as session:
        step = session.compile(x + y, feeds=[y, x])
        fits = (np.ones(2, F32), np.ones(2, F32))
        mixed = [fits, fits, ([1, 2], [3, 4]), fits, (np.arange(4.0)[::2], np.ones(2)), [np.ones(2, F32), 1 * fits[0]]]
        assert [list(f) for f in step.map(mixed)] == [[2, 2], [2, 2], [4, 6], [2, 2], [1, 3], [2, 2]]


def test_a_batch_that_fails_leaves_those_before_it(device: str) -> None:
    fetches, feeds = classifier()
    with graphc.Session(device=device, seed=1) as session, graphc.Session(device=device, seed=1) as other:
        step, calls = (s.compile(fetches, feeds=feeds) for s in (session, other))
        given = data([5] * 30)
        given[20] = (given[20][0], np.array([0, 1, 9, 1, 0]))
        with pytest.raises(IndexRangeError, match="9"):
            step.map(given)
        for batch in given[:20]:
            calls(*batch)
        assert step.runs == 20
        assert same([session.get(p) for p in session._store], [other.get(p) for p in other._store])
        step(*given[0])


def test_an_iterator_that_raises_leaves_what_it_gave_done(device: str) -> None:
    n = graphc.parameter(np.int64(0), name="n")
    x = graphc.placeholder((2,), name="x")

    def given(count: int) -> Iterator[np.ndarray]:
        yield from [np.ones(2, F32)] * count
        raise OSError("the disk is gone")

    with graphc.Session(device=device) as session:
        step = session.compile([graphc.sum(x), graphc.assign(n, n + 1)], feeds=[x])
        for count in (0, 1, 13):
            before = int(session.get(n))
            with pytest.raises(OSError, match="the disk"):
                step.map(given(count))
            assert int(session.get(n)) == before + count


def test_bad_batches(device: str) -> None:
    x, y = graphc.placeholder((2,), name="x"), graphc.placeholder((2,), name="y")
    good = (np.ones(2, F32), np.ones(2, F32))
    with graphc.Session(device=device) as session:
        step = session.compile(x + y, feeds=[x, y])
        with pytest.raises(FeedError, match=r"tuple of 2 arrays \(x, y\), got an array of shape \(2,\)"):
            step.map([good, np.ones(2)])
        with pytest.raises(FeedError, match="takes 2 arrays"):
            step.map([good, good[:1]])
        with pytest.raises(FeedError, match="another iterable, got 3"):
            step.map(3)  # type: ignore[arg-type]
        with pytest.raises(GraphcError, match="3"):
            step.map([good, good, (np.ones(3, F32), np.ones(3, F32))])
        assert step.runs == 4
    with pytest.raises(SessionError, match="closed"):
        step.map([good])


def test_groups_follow_the_time_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10**6))
    monkeypatch.setattr(batches, "PAUSE", 1.0)
    monkeypatch.setattr(batches.time, "perf_counter", lambda: next(clock) / 4)
    sizes = [len(group) for group in grouped(range(100), lambda b: (b,))]
    assert sizes == [1, 4, 16, 64, 15]
    monkeypatch.setattr(batches.time, "perf_counter", lambda: next(clock) * 4)
    assert {len(group) for group in grouped(range(20), lambda b: (b,))} == {1}
