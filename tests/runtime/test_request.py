"""Runs again with arrays that the runner checks itself: what fits, what must be converted first, what is refused."""

import signal
import sys
import threading
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.dims import Symbol
from graphc.errors import FeedError

F32 = np.float32


def doubled() -> tuple[Any, Any]:
    x = graphc.placeholder((None, 3), name="x")
    return x, x * 2.0


ODD: dict[str, Any] = {
    "read-only": np.lib.stride_tricks.as_strided(np.arange(6, dtype=F32).reshape(2, 3), writeable=False),
    "transposed": np.arange(6, dtype=F32).reshape(3, 2).T,
    "every other": np.arange(12, dtype=F32).reshape(2, 6)[:, ::2],
    "zero strides": np.broadcast_to(F32(3), (2, 3)),
    "reversed": np.arange(6, dtype=F32).reshape(2, 3)[::-1],
    "unaligned": np.frombuffer(b"\0" + np.arange(6, dtype=F32).tobytes(), F32, offset=1).reshape(2, 3),
    "byte-swapped": np.arange(6, dtype=F32).reshape(2, 3).astype(">f4"),
    "float64": np.arange(6.0).reshape(2, 3),
    "integers": np.arange(6).reshape(2, 3),
    "a dtype with metadata": np.arange(6, dtype=np.dtype(F32, metadata={"unit": "m"})).reshape(2, 3),
    "a list": [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]],
    "a subclass": np.arange(6, dtype=F32).reshape(2, 3).view(np.recarray),
    "other rows": np.arange(9, dtype=F32).reshape(3, 3),
    "no rows": np.zeros((0, 3), F32),
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("how", ["step", "run"])
def test_whatever_is_fed_between_runs(kind: str, how: str) -> None:
    x, y = doubled()
    plain, odd = np.arange(6, dtype=F32).reshape(2, 3), ODD[kind]
    with graphc.Session() as session:
        step = session.compile(y, feeds=[x])

        def run(value: Any) -> Any:
            return step(value) if how == "step" else session.run(y, {x: value})

        for fed in (plain, odd, odd, plain, odd, plain):
            np.testing.assert_array_equal(run(fed), np.asarray(fed, F32) * 2, strict=True)
        assert session.stats()["runs"] == 6


@pytest.mark.parametrize("wrong", [np.zeros((2, 4), F32), np.zeros(3, F32), np.zeros((2, 3, 1), F32), None, "x", 1j])
def test_what_is_refused_is_refused_after_a_run_as_before(wrong: Any) -> None:
    x, y = doubled()
    good = np.ones((2, 3), F32)
    with graphc.Session() as session:
        step = session.compile(y, feeds=[x])
        messages = []
        for _ in range(2):
            with pytest.raises(FeedError) as caught:
                step(wrong)
            messages.append(str(caught.value))
            step(good)
        assert messages[0] == messages[1]
        for feeds in ({}, {x: good, "y": good}, {"z": good}):
            with pytest.raises(FeedError):
                session.run(y, feeds)
        with pytest.raises(FeedError, match="takes 1 arrays"):
            step(good, good)
        assert step.runs == 2


def test_feeds_of_no_interest_are_checked_after_a_run_as_before() -> None:
    x, y = doubled()
    other = graphc.placeholder((2,), name="other")
    with graphc.Session() as session:
        step = session.compile(y, feeds=[other, x])
        for _ in range(2):
            assert step(np.zeros(2, F32), np.ones((1, 3), F32)).sum() == 6
            with pytest.raises(FeedError, match="other"):
                step(np.zeros(3, F32), np.ones((1, 3), F32))


def test_feeds_in_another_order() -> None:
    a, b = graphc.placeholder((2,), name="a"), graphc.placeholder((2,), name="b")
    with graphc.Session() as session:
        step = session.compile(a - b, feeds=[b, a])
        for _ in range(3):
            assert step(np.full(2, 1, F32), np.full(2, 5, F32)).tolist() == [4, 4]


def test_shapes_that_take_turns_use_plans_they_have() -> None:
    x, y = doubled()
    with graphc.Session() as session:
        step = session.compile([y, graphc.sum(y)], feeds=[x])
        for _ in range(3):
            for rows in (1, 4, 2):
                values, total = step(np.ones((rows, 3), F32))
                assert values.shape == (rows, 3)
                assert total == 6 * rows
        assert len(step.program._requests) == 3


def test_a_larger_program_of_the_session_moves_the_arena_in_between() -> None:
    x, _ = doubled()
    small, large = (graphc.sum(graphc.cumulative_sum(x * k, axis=0) * 2.0) for k in (1.0, 2.0))
    with graphc.Session() as session:
        one, other = session.compile(small, feeds=[x]), session.compile(large, feeds=[x])
        for rows in (2, 20, 2000, 200_000):
            assert one(np.ones((2, 3), F32)) == 18
            assert np.isfinite(other(np.ones((rows, 3), F32)))


def test_threads_share_a_step() -> None:
    x, y = doubled()
    wrong: list[Any] = []
    with graphc.Session() as session:
        step = session.compile(y, feeds=[x])

        def work(value: int) -> None:
            fed = np.full((2, 3), value, F32)
            wrong.extend(found for _ in range(3000) if (found := step(fed)).tolist() != (fed * 2).tolist())

        workers = [threading.Thread(target=work, args=(k,)) for k in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert step.runs == 12_000
    assert not wrong


def test_a_failure_in_a_later_run_is_explained_and_changes_nothing() -> None:
    index = graphc.placeholder((2,), "int64", name="index")
    n = graphc.parameter(np.int64(0), name="n")
    picked = graphc.take(graphc.constant(np.arange(3.0)), index)
    with graphc.Session() as session:
        step = session.compile([picked, graphc.assign(n, n + 1)], feeds=[index])
        step(np.array([0, 2]))
        for _ in range(2):
            with pytest.raises(graphc.errors.IndexRangeError):
                step(np.array([0, 3]))
        assert step(np.array([2, 1]))[0].tolist() == [2, 1]
        assert session.get(n) == step.runs == 2


def test_a_run_within_a_run_is_refused() -> None:
    x, y = doubled()
    good = np.ones((1, 3), F32)
    with graphc.Session() as session:
        step = session.compile(y, feeds=[x])
        step(good)
        session._running = True  # as a signal's handler finds it
        with pytest.raises(graphc.errors.SessionError, match="inside another of its runs"):
            step(good)
        session._running = False
        assert step(good).sum() == 6
    with pytest.raises(graphc.errors.SessionError, match="closed"):
        step(good)


class HandlerError(Exception):
    """What a handler of signals raises."""


@pytest.mark.parametrize("function", ["acquire", "run", "release"])
@pytest.mark.parametrize("how", ["step", "run"])
def test_a_handler_that_raises_anywhere_in_a_run_leaves_the_session_free(function: str, how: str) -> None:
    """Called where Python calls handlers: when a function written in C returns, or one of Python's begins. A second one
    raises, too, before the first exception is dealt with. A run that was done is counted.
    """
    x, y = doubled()
    good = np.ones((2, 3), F32)

    def interrupt(frame: Any, event: str, called: Any) -> None:
        in_c = event == "c_return" and called.__name__ == function and frame.f_code.co_name == "quick"
        if in_c or (event == "call" and frame.f_back.f_code.co_name == "quick"):
            raise HandlerError

    with graphc.Session() as session:
        step = session.compile(y, feeds=[x])

        def run() -> Any:
            return step(good) if how == "step" else session.run(y, {x: good})

        expected = run()
        sys.setprofile(interrupt)
        try:
            with pytest.raises(HandlerError):
                run()
        finally:
            sys.setprofile(None)
        found: list[Any] = []
        other = threading.Thread(target=lambda: found.append(run()), daemon=True)
        other.start()
        other.join(10)
        assert not other.is_alive()
        np.testing.assert_array_equal(found[0], expected, strict=True)
        assert step.program.runs == session.stats()["runs"] == 2 + (function != "acquire")


def test_a_handler_may_run_the_step_before_and_after_the_native_call() -> None:
    x, y = doubled()
    n = graphc.parameter(np.int64(0), name="n")
    good, more, inner = np.ones((2, 3), F32), np.full((5, 3), 7, F32), []

    def handle(frame: Any, event: str, called: Any) -> None:
        if event == "c_return" and called.__name__ in ("acquire", "run") and frame.f_code.co_name == "quick":
            inner.append(step(more)[0])

    with graphc.Session() as session:
        step = session.compile([y, n, graphc.assign(n, n + 1)], feeds=[x])
        step(good)
        sys.setprofile(handle)
        try:
            found = step(good)
        finally:
            sys.setprofile(None)
        np.testing.assert_array_equal(found[0], good * 2, strict=True)
        assert [each.tolist() for each in inner] == [(more * 2).tolist()] * 2
        assert session.get(n) == step.runs == session.stats()["runs"] == 4


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX signals")
def test_a_run_that_waits_for_another_thread_can_be_interrupted() -> None:
    """The lock stays with who has it, and is free after that."""
    x, y = doubled()
    good = np.ones((2, 3), F32)

    def interrupt(*_: Any) -> None:
        raise HandlerError

    with graphc.Session() as session:
        step = session.compile(y, feeds=[x])
        step(good)
        held, done = threading.Event(), threading.Event()

        def hold() -> None:
            with session._lock:
                held.set()
                done.wait(30)

        holder = threading.Thread(target=hold)
        holder.start()
        held.wait(30)
        before = signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        try:
            with pytest.raises(HandlerError):
                step(good)
        finally:
            signal.signal(signal.SIGALRM, before)
            done.set()
            holder.join()
        assert step(good).sum() == 12
        assert step.runs == 2


def test_extents_that_blas_cannot_take_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_BLAS", "scipy")
    x = graphc.placeholder(("n", 2), name="x")
    fetch = graphc.sum(x.T @ x)
    with graphc.Session() as session:
        step = session.compile(fetch, feeds=[x])
        with pytest.raises(graphc.errors.DeviceError, match=r"test_request.py.*2147483648; BLAS takes 2147483647"):
            step.program.request({Symbol("n"): 2**31})
