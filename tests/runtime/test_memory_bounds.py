"""Memory stays bounded, however long a process lives: steps, batch sizes, graphs. The bounds are stated here.

What may grow is what the user keeps: parameters, steps, and distinct kernels, whose machine code a process cannot give
back.
"""

from __future__ import annotations

import gc
import os
import tracemalloc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import optim
from runtime import session as sessions
from runtime.cpu import cache
from runtime.cpu.backend import BINDINGS
from runtime.cpu.layout import layout_of

F32 = np.float32
MB = 2**20
_STATM = Path("/proc/self/statm")
needs_rss = pytest.mark.skipif(not _STATM.exists(), reason="reads the resident memory from /proc")


def resident() -> int:
    """Bytes of memory that the process holds."""
    gc.collect()
    return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def training(width: int = 10) -> tuple[list[Any], list[graphc.Tensor]]:
    x = graphc.placeholder((None, 20), name="x")
    w = graphc.parameter(graphc.init.he_normal(), shape=(20, width))
    loss = graphc.mean(graphc.square(graphc.tanh(x @ w)))
    return [loss, optim.Momentum(0.01).minimize(loss)], [x]


# Steps.


@needs_rss
def test_a_million_steps_take_no_more_memory_than_a_thousand() -> None:
    """Bound: 4 MB."""
    fetches, feeds = training()
    data = np.ones((3, 20), F32)
    with graphc.Session() as session:
        step = session.compile(fetches, feeds=feeds)
        for _ in range(1000):
            step(data)
        before = resident()
        step.repeat(960_000, data)
        for _ in range(20_000):
            step(data)
            session.run(fetches, {"x": data})
        assert resident() - before < 4 * MB
        assert session.stats()["runs"] == session._store.run_counter == 1_001_000


def test_steps_leave_no_object_behind() -> None:
    """Bound: 2 kB of Python's own memory, after ten thousand calls and as many repeated runs."""
    fetches, feeds = training()
    data = np.ones((3, 20), F32)
    with graphc.Session() as session:
        step = session.compile(fetches, feeds=feeds)
        step.repeat(20, data)
        step.profile(3, data)
        gc.collect()
        tracemalloc.start()
        try:
            step(data)
            before, _ = tracemalloc.get_traced_memory()
            for _ in range(10_000):
                step(data)
            step.repeat(10_000, data)
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert after - before < 2_000


def test_profiles_leave_no_object_behind() -> None:
    """Bound: 50 bytes each, in the best of some hundreds: Python itself keeps frames and the like for later, fewer and
    fewer of them, and what stays behind does so every time.
    """
    fetches, feeds = training()
    data = np.ones((3, 20), F32)
    with graphc.Session() as session:
        step = session.compile(fetches, feeds=feeds)
        tracemalloc.start()
        try:
            sizes = [tracemalloc.get_traced_memory()[0]]
            for _ in range(8):
                for _ in range(100):
                    step.profile(3, data)
                gc.collect()
                sizes.append(tracemalloc.get_traced_memory()[0])
        finally:
            tracemalloc.stop()
    assert min(np.diff(sizes)) < 100 * 50


# Batch sizes.


@needs_rss
def test_five_thousand_batch_sizes() -> None:
    """Bound: BINDINGS plans a step, 1024 sets of extents, and an arena for the largest: 8 MB from the 1300th on."""
    x = graphc.placeholder((None, 20), name="x")
    w = graphc.parameter(graphc.init.normal(), shape=(20, 10))
    data = np.random.default_rng(0).normal(size=(5000, 20)).astype(F32)
    with graphc.Session() as session:
        step = session.compile(graphc.sum(graphc.tanh(x @ w), axis=1), feeds=[x])
        expected = step(data)
        for size in range(5000):
            if size == 1300:
                before = resident()
            found = step(data[:size])
            np.testing.assert_allclose(found[-1:], expected[:size][-1:], rtol=1e-5)
        assert resident() - before < 8 * MB
        assert len(step.program._requests) == BINDINGS
        assert len(step._plan._bound) == 1024
        assert session.stats()["steps"] == 1


# Graphs.


def fresh(number: int) -> tuple[graphc.Tensor, graphc.Tensor]:
    """A graph of its own lines, constants and placeholder; one of a few kernels."""
    x = graphc.placeholder((None, number % 5 + 1), name="x")
    return x, graphc.sum(graphc.exp(x * float(number)) * np.full(number % 5 + 1, number, F32), axis=number % 2)


@needs_rss
def test_a_thousand_graphs() -> None:
    """Bound: 16 MB from the 200th on, in one session and in as many; kernels are shared, so none are added."""
    with graphc.Session() as lasting:

        def use(number: int) -> None:
            x, y = fresh(number)
            data = np.zeros((2, number % 5 + 1), F32)
            expected = [2.0 * number] * (number % 5 + 1) if number % 2 == 0 else [number * (number % 5 + 1.0)] * 2
            assert lasting.run(y, {x: data}).tolist() == expected
            if number % 4 == 0:
                fetches, feeds = training(1 + number % 3)
                with graphc.Session() as passing:
                    passing.compile(fetches, feeds=feeds)(np.ones((2, 20), F32))

        for number in range(200):
            use(number)
        kernels, layouts = len(cache.kernel_cache.kernels), layout_of.cache_info().currsize
        before = resident()
        for number in range(200, 1000):
            use(number)
        assert resident() - before < 16 * MB
        assert len(cache.kernel_cache.kernels) == kernels
        assert layout_of.cache_info().currsize == layouts
        assert len(lasting._recent) == len(lasting._steps) == sessions.STEPS
        assert lasting.stats()["steps"] == 1000


def test_a_session_lets_go_of_steps_that_nobody_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """And finds those again that somebody does hold, under another order of feeds too."""
    monkeypatch.setattr(sessions, "STEPS", 4)
    x, z = graphc.placeholder((None,), name="x"), graphc.placeholder((None,), name="z")
    ys = [x * float(i) - z for i in range(12)]
    with graphc.Session(device="reference") as session:
        held = session.compile(ys[0], feeds=[x, z])
        turned = session.compile(ys[1], feeds=[z, x])
        dropped = weakref.ref(session.compile(ys[2]))
        for y in ys[3:]:
            session.run(y, {x: [1.0], z: [1.0]})
        gc.collect()
        assert dropped() is None
        assert len(session._steps) == 4 + 2
        compiled = session.stats()["steps"]
        assert session.compile(ys[0], feeds=[x, z]).program is held.program
        assert session.compile(ys[1]).program is turned.program
        assert session.stats()["steps"] == compiled == 12
        assert session.run(ys[2], {x: [3.0], z: [1.0]}) == 5.0  # compiled again
        assert session.stats()["steps"] == 13
        assert held([7.0], [1.0]) == -1.0
        assert turned([1.0], [7.0]) == 6.0
    with pytest.raises(graphc.errors.SessionError, match="closed"):
        held([7.0], [1.0])


def test_the_steps_used_last_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "STEPS", 3)
    x = graphc.placeholder((None,), name="x")
    ys = [x * float(i) for i in range(6)]
    with graphc.Session(device="reference") as session:
        for i in (0, 1, 2, 0, 3, 0, 4, 0, 5, 0):
            session.run(ys[i], {x: [1.0]})
        assert session.stats()["steps"] == 6  # the first was compiled once
        session.run(ys[4], {x: [1.0]})
        assert session.stats()["steps"] == 6
        session.run(ys[1], {x: [1.0]})
        assert session.stats()["steps"] == 7


def test_a_dropped_session_frees_its_memory() -> None:
    """Without close: parameters, constants and the arena go with it."""
    x = graphc.placeholder((None, 1000), name="x")
    w = graphc.parameter(np.ones((1000, 1000), F32), name="w")
    session = graphc.Session()
    step = session.compile([graphc.sum(graphc.exp(x) @ w), graphc.assign(w, w * 0.5)], feeds=[x])
    step(np.zeros((100, 1000), F32))
    memory = session._store.array(w).base
    gone = [weakref.ref(o) for o in (session, step, step.program, memory)]
    del session, step, memory
    gc.collect()
    assert [ref() for ref in gone] == [None] * 4
