"""A compiled step: one native call, nothing allocated beside the results, nothing compiled for another batch size."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import optim
from passes.program import CopyCall, GemmCall
from runtime.cpu.backend import BINDINGS
from runtime.cpu.runner_source import CHECK, MISFIT

F32 = np.float32


def mlp(optimizer: Any, wide: int = 128) -> tuple[list[Any], list[graphc.Tensor], list[graphc.Tensor]]:
    """Fetches, feeds and parameters of a training step of a two-layer classifier."""
    x = graphc.placeholder(("batch", 20), name="x")
    labels = graphc.placeholder(("batch",), "int64", name="labels")
    w1 = graphc.parameter(graphc.init.he_normal(), shape=(20, wide), name="w1")
    b1 = graphc.parameter(graphc.init.zeros(), shape=(wide,), name="b1")
    w2 = graphc.parameter(graphc.init.he_normal(), shape=(wide, 5), name="w2")
    b2 = graphc.parameter(graphc.init.zeros(), shape=(5,), name="b2")
    hidden = graphc.relu(x @ w1 + b1)
    loss = graphc.nn.cross_entropy(hidden @ w2 + b2, labels)
    return [loss, optimizer.minimize(loss)], [x, labels], [w1, b1, w2, b2]


def batch(size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(size, 20)).astype(F32), rng.integers(0, 5, size)


# What a run costs.


@pytest.mark.parametrize("optimizer", [optim.SGD(0.1), optim.Adam(0.01)], ids=["sgd", "adam"])
def test_a_run_is_one_native_call(optimizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fetches, feeds, _ = mlp(optimizer)
    with graphc.Session() as session:
        step = session.compile(fetches, feeds=feeds)
        native, calls = step.program._run, []

        def counted(*args: int) -> int:
            status: int = native(*args)
            if status != MISFIT:  # it looked at shapes, and ran nothing
                calls.append(args)
            return status

        monkeypatch.setattr(step.program, "_run", counted)
        for i in range(3):
            step(*batch(8))
            step(*batch(8))  # of the shapes of the last run
            session.run(fetches, dict(zip(feeds, batch(9), strict=True)))
            session.run(fetches, dict(zip(feeds, batch(9), strict=True)))
            assert len(calls) == 4 * (i + 1)
        assert all(type(request) is int for request, _, _ in calls)


def test_a_run_allocates_only_its_results() -> None:
    """The loss is a scalar; hundreds of kilobytes of temporaries live in the arena."""
    fetches, feeds, _ = mlp(optim.Adam(0.01), wide=256)
    data = batch(64)
    with graphc.Session() as session:
        step = session.compile(fetches, feeds=feeds)
        for _ in range(20):
            step(*data)
        (request,) = step.program._requests.values()
        assert request.bound.largest_live > 100_000
        tracemalloc.start()
        try:
            step(*data)
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            for _ in range(200):
                step(*data)
            after, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    # A run holds the lists, tuples and shapes of two feeds and one scalar result: some tens of small objects.
    assert peak - before < 8_000
    assert after - before < 2_000


def test_results_are_all_that_a_larger_fetch_adds() -> None:
    x = graphc.placeholder((None, 1000), name="x")
    y = graphc.tanh(x @ graphc.constant(np.eye(1000, dtype=F32))) * 2.0
    data = np.ones((100, 1000), F32)
    with graphc.Session() as session:
        step = session.compile([y, graphc.sum(y, axis=0)], feeds=[x])
        step(data)
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            step(data)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    results = data.nbytes + 4 * 1000
    assert results <= peak - before < results + 8_000


def test_another_batch_size_compiles_nothing() -> None:
    fetches, feeds, _ = mlp(optim.Adam(0.01))
    with graphc.Session() as session:
        step = session.compile(fetches, feeds=feeds)
        before = session.stats()
        for size in (1, 2, 7, 64, 1000, 0):
            step(*batch(size))
            session.run(fetches, dict(zip(feeds, batch(size), strict=True)))
        after = session.stats()
    same = ("kernels_compiled", "kernels_loaded", "steps")
    assert [after[k] for k in same] == [before[k] for k in same]


def test_many_batch_sizes_keep_memory_bounded() -> None:
    """500 sizes: the arena is that of the largest, and old bindings are let go and made again."""
    x = graphc.placeholder((None, 30), name="x")
    w = graphc.parameter(graphc.init.normal(), shape=(30, 10))
    with graphc.Session() as session:
        step = session.compile(graphc.sum(graphc.square(x @ w), axis=1), feeds=[x])
        data = np.random.default_rng(0).normal(size=(500, 30)).astype(F32)
        expected = step(data)
        largest = step.program._arena.memory.nbytes
        for size in [*range(500), *range(0, 500, 50)]:
            np.testing.assert_allclose(step(data[:size]), expected[:size], rtol=1e-5)
        assert len(step.program._requests) <= BINDINGS
        assert len(step._plan._bound) <= 1024
        assert step.program._arena.memory.nbytes == largest


def test_rebound_sizes_use_the_grown_arena() -> None:
    """A binding made while the arena was small still works after it has moved, also for another step's sake."""
    x = graphc.placeholder((None, 4), name="x")
    y = graphc.sum(graphc.exp(x) @ graphc.constant(np.ones((4, 4), F32)), axis=0)
    with graphc.Session() as session:
        small, large = session.compile(y, feeds=[x]), session.compile(y * 2.0, feeds=[x])
        for size in (1, 5, 5000, 1, 100_000, 5):
            np.testing.assert_allclose(small(np.zeros((size, 4))), [4 * size] * 4)
            np.testing.assert_allclose(large(np.zeros((2 * size, 4))), [16 * size] * 4)


# In place.


def test_sgd_is_one_accumulating_product_into_the_parameter() -> None:
    x, y = graphc.placeholder((None, 6), name="x"), graphc.placeholder((None, 3), name="y")
    w = graphc.parameter(graphc.init.normal(), shape=(6, 3), name="w")
    loss = graphc.mean(graphc.square(x @ w - y))
    update = graphc.assign(w, w - 0.1 * graphc.gradients(loss, w))
    with graphc.Session() as session:
        step = session.compile([loss, update], feeds=[x, y])
        calls = step.program.program.calls
        into_w = [c for c in calls if any(b.kind == "parameter" for b in c.writes)]
        assert not any(isinstance(c, CopyCall) for c in calls)
        assert len(into_w) == 1
        (product,) = into_w
        assert isinstance(product, GemmCall)
        assert product.label == "gemm_add"
        assert product.beta == 1
        assert product.trans_a
        assert product.c.tensor is w
        address = session._store.array(w).ctypes.data
        step(np.ones((4, 6)), np.ones((4, 3)))
        assert session._store.array(w).ctypes.data == address


@pytest.mark.parametrize("optimizer", [optim.SGD(0.1), optim.Momentum(0.1), optim.Adam(0.01)])
def test_optimizers_copy_nothing(optimizer: Any) -> None:
    """Parameters and slots are written where their new values are made."""
    fetches, feeds, params = mlp(optimizer)
    with graphc.Session() as session:
        calls = session.compile(fetches, feeds=feeds).program.program.calls
    assert [c.label for c in calls if isinstance(c, CopyCall)] == []
    written = {b.tensor for c in calls for b in c.writes if b.kind == "parameter"}
    assert written >= set(params)


def test_checks_come_before_what_cannot_be_undone() -> None:
    """Updates that have nothing to do with the labels wait for the check of the labels, too."""
    fetches, feeds, _ = mlp(optim.Adam(0.01))
    n, v = graphc.parameter(np.int64(0), name="n"), graphc.parameter(np.zeros(1000, F32), name="v")
    with graphc.Session() as session:
        step = session.compile([graphc.assign(n, n + 1), graphc.assign(v, v + 1.0), fetches], feeds=feeds)
        x, labels = batch(4)
        step(x, labels)
        (request,) = step.program._requests.values()
        checks = np.flatnonzero(request.bound.table[:, CHECK])
        writes = [i for i, c in enumerate(step.kernels) if any(b.kind == "parameter" for b in c.writes)]
        assert len(checks)
        assert max(checks) < min(writes)
        with pytest.raises(graphc.errors.IndexRangeError):
            step(x, labels + 5)
        assert session.get(n) == 1
        assert (session.get(v) == 1).all()
