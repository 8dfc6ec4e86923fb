"""``step.repeat``: the same as so many calls, natively; interrupted, it has done whole steps and says how many."""

from __future__ import annotations

import gc
import re
import signal
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import optim
from graphc.errors import FeedError, IndexRangeError, NumericsError, SessionError
from runtime.cpu import frame

Python = Callable[..., str]
F32 = np.float32


@pytest.fixture(params=["cpu", "reference"])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def counter(start: int = 0) -> tuple[graphc.Tensor, graphc.Update]:
    """A parameter that counts the runs."""
    n = graphc.parameter(np.int64(start), name="n")
    return n, graphc.assign(n, n + 1)


def classifier() -> tuple[list[Any], list[graphc.Tensor]]:
    """A training step with in-place updates, a check of labels, random numbers, and a fetched gradient."""
    x, labels = graphc.placeholder((None, 6), name="x"), graphc.placeholder((None,), "int64", name="labels")
    w = graphc.parameter(graphc.init.he_normal(), shape=(6, 4), name="w")
    b = graphc.parameter(graphc.init.zeros(), shape=(4,), name="b")
    noise = graphc.random.uniform((6, 4), -0.1, 0.1)
    loss = graphc.nn.cross_entropy(x @ (w + noise) + b, labels)
    fetches = [loss, graphc.gradients(loss, b), noise, optim.Adam(0.01).minimize(loss)]
    return fetches, [x, labels]


def batch(size: int = 9) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.normal(size=(size, 6)).astype(F32), rng.integers(0, 4, size)


# The same as calls.


def test_repeat_is_so_many_calls(device: str) -> None:
    """To the bit: what the last run fetches, every parameter and optimiser slot, the run counter."""
    fetches, feeds = classifier()
    data = batch()
    found = []
    for repeated in (False, True):
        with graphc.Session(device=device, seed=3) as session:
            step = session.compile(fetches, feeds=feeds)
            results: list[Any] = []
            for n in (1, 2, 7, 30):
                if repeated:
                    results.append(step.repeat(n, *data))
                else:
                    results.append([step(*data) for _ in range(n)][-1])
            held = [session.get(p) for p in session._store]
            counts = (session._store.run_counter, step.runs, session.stats()["runs"])
        found.append((counts, [np.asarray(a).tobytes() for r in results for a in r if a is not None], held))
    assert found[0][0] == found[1][0] == (40, 40, 40)
    assert found[0][1] == found[1][1]
    assert len(found[0][2]) >= 6
    assert all(a.tobytes() == b.tobytes() for a, b in zip(found[0][2], found[1][2], strict=True))
    noises = found[1][1][2::3]
    assert len(set(noises)) == len(noises)  # every run drew its own


def test_only_steps_with_updates_advance_the_run_counter(device: str) -> None:
    n, _ = counter(5)
    with graphc.Session(device=device) as session:
        step = session.compile([n, graphc.random.uniform((3,))])
        value, first = step.repeat(100)
        assert value == 5
        assert (step()[1] == first).all()
        assert (session._store.run_counter, step.runs) == (0, 101)


def test_python_is_left_for_many_steps_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    n, count = counter()
    with graphc.Session() as session:
        step = session.compile([n, count])
        native, launched = step.program._run, []

        def counted(*args: int) -> int:
            launched.append(step.program.runs)
            return native(*args)

        monkeypatch.setattr(step.program, "_run", counted)
        assert step.repeat(200_000)[0] == 199_999
        assert launched == sorted(set(launched))
        assert step.program.runs == 200_000
        assert len(launched) < 200
        assert session.get(n) == 200_000


def test_results_are_the_callers_own(device: str) -> None:
    x = graphc.placeholder((None,), name="x")
    w = graphc.parameter(np.zeros(1000), name="w")
    with graphc.Session(device=device) as session:
        step = session.compile([w, x, graphc.assign(w, w + 1.0)], feeds=[x])
        fed = np.ones(3, F32)
        first, echo, _ = step.repeat(4, fed)
        second, *_ = step.repeat(4, fed)
        assert (first == 3).all()
        assert (second == 7).all()
        first[...] = echo[...] = -1
        assert (fed == 1).all()
        assert (session.get(w) == 8).all()


@pytest.mark.parametrize("wrong", [0, -3, True, 2.0, "4", None, np.ones(3)])
def test_the_number_of_steps_is_checked(wrong: Any, device: str) -> None:
    x = graphc.placeholder((None,), name="x")
    with graphc.Session(device=device) as session:
        step = session.compile(x * 2.0, feeds=[x])
        with pytest.raises(SessionError, match=r"repeat: the first argument is the number of runs.*; got"):
            step.repeat(wrong, [1.0])
        with pytest.raises(FeedError, match=r"takes 1 arrays \(x\), got 0"):
            step.repeat(3)
        assert step.repeat(np.int32(2), [1.0]).tolist() == [2.0]
        assert step.runs == 2


# Failures.


def test_a_failure_leaves_the_steps_before_it(device: str) -> None:
    """The index grows with every step, and leaves the table in step 6 of 100."""
    n, count = counter()
    table, total = graphc.constant(np.arange(5.0, dtype=F32)), graphc.parameter(np.zeros(3, F32), name="total")
    picked = graphc.take(table, graphc.reshape(n, (1,)))
    with graphc.Session(device=device) as session:
        step = session.compile([picked, count, graphc.assign(total, total + picked)])
        with pytest.raises(IndexRangeError) as error:
            step.repeat(100)
        assert error.value.__notes__ == ["repeat: 5 of 100 runs were done, and their updates hold"]
        assert session.get(n) == 5
        assert session.get(total).tolist() == [10.0] * 3
        assert (session._store.run_counter, step.runs) == (5, 5)
        with pytest.raises(IndexRangeError) as error:
            step.repeat(2)
        assert error.value.__notes__ == ["repeat: 0 of 2 runs were done, and their updates hold"]
        with pytest.raises(IndexRangeError) as plain:
            step()
        assert not hasattr(plain.value, "__notes__")
        session.set(n, 0)
        assert step.repeat(3)[0] == 2.0
        assert (session._store.run_counter, step.runs) == (8, 8)


def test_checked_numerics_stop_at_the_step_that_overflows(device: str) -> None:
    w, count = graphc.parameter(F32([1.0]), name="w"), counter()
    with graphc.Session(device=device, check_numerics=True) as session:
        step = session.compile([graphc.assign(w, w * 1e10), count[1]])
        with pytest.raises(NumericsError) as error:
            step.repeat(50)
        assert "3 of 50 runs were done" in error.value.__notes__[0]
        assert session.get(count[0]) == session._store.run_counter == step.runs == 3
        assert session.get(w) == F32(1e10) * F32(1e10) * F32(1e10)


# Interrupted.

INTERRUPTED = """
import os, signal, sys, threading, time, numpy as np, graphc
from graphc import optim
x = graphc.placeholder((None, 64), name="x")
n = graphc.parameter(np.int64(0), name="n")
w = graphc.parameter(np.zeros((64, 64), np.float32), name="w")
big = graphc.parameter(np.zeros(300_000), name="big")
copy = graphc.parameter(np.zeros(300_000), name="copy")
loss = graphc.mean(graphc.square(x @ w - 1.0))
train = [loss, optim.Adam(1e-3).minimize(loss), graphc.assign(n, n + 1), graphc.assign(big, big + 1.0),
         graphc.assign(copy, big)]
data = np.random.default_rng(0).normal(size=(ROWS, 64)).astype(np.float32)
with graphc.Session(device=DEVICE, threads=2) as session:
    step = session.compile(train, feeds=[x])
    session.run([n, w])
    worst = 0.0
    for round in range(4):
        sent = []
        def interrupt():
            time.sleep(0.15 + 0.1 * round)
            sent.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)
        before, sender = session._store.run_counter, threading.Thread(target=interrupt)
        sender.start()
        try:
            step.repeat(10**12, data)
            raise SystemExit("not interrupted")
        except KeyboardInterrupt as error:
            worst = max(worst, time.monotonic() - sent[0])
            done = int(error.__notes__[0].split()[1])
        sender.join()
        k = session._store.run_counter
        assert k == before + done, (k, before, done)
        assert session.get(n) == k, (session.get(n), k)
        assert (session.get(big) == k).all()
        assert (session.get(copy) == max(k - 1, 0)).all()
        assert step.runs == k
    with graphc.Session(device=DEVICE, threads=2) as fresh:  # as if nobody had interrupted
        again = fresh.compile(train, feeds=[x])
        again.repeat(k, data)
        assert fresh.get(w).tobytes() == session.get(w).tobytes()
    step.repeat(3, data)
    assert session.get(n) == k + 3
assert worst < 1.0, worst
print("done")
"""


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="needs POSIX signals")
@pytest.mark.parametrize(("where", "rows"), [("cpu", 4), ("cpu", 4096), ("reference", 64)])
def test_ctrl_c_stops_within_a_second_after_whole_steps(where: str, rows: int, python: Python) -> None:
    """Short and long steps, four times each; then the parameters are those of as many steps, to the bit."""
    assert python(f"DEVICE, ROWS = {where!r}, {rows}\n{INTERRUPTED}").strip() == "done"


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="needs POSIX signals")
def test_ctrl_c_during_compilation_leaves_the_session_usable(python: Python) -> None:
    code = """
import os, signal, threading, time, graphc, numpy as np
x = graphc.placeholder((None,), name="x")
ys = [graphc.exp(graphc.sqrt(x + float(i)) * 2.0) - graphc.tanh(x) ** (i % 3 + 1) for i in range(12)]
def interrupt(delay):
    time.sleep(delay)
    os.kill(os.getpid(), signal.SIGINT)
interrupted = 0
with graphc.Session() as session:
    session.run(x, {x: [1.0]})
    for i, y in enumerate(ys):
        sender = threading.Thread(target=interrupt, args=(0.03 * i,))
        try:
            sender.start()
            session.run([y, graphc.sum(y)], {x: [1.0, 2.0]})
            sender.join()
            time.sleep(0.01)
        except KeyboardInterrupt:
            interrupted += 1
        sender.join()
    with graphc.Session(device="reference") as reference:
        for found, expected in zip(session.run(ys, {x: [1.0, 2.0]}), reference.run(ys, {x: [1.0, 2.0]})):
            np.testing.assert_allclose(found, expected, rtol=1e-4)
print("done" if interrupted else "never interrupted")
"""
    assert python(code).strip() == "done"


def test_closing_ends_a_repeat_of_another_thread(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside the native call, too: here it would not come back to Python for hours."""
    monkeypatch.setattr(frame, "PAUSE", 1e9)
    n, count = counter()
    session = graphc.Session(device=device)
    step = session.compile([n, count])
    errors: list[SessionError] = []
    started = threading.Event()

    def work() -> None:
        step()
        started.set()
        try:
            step.repeat(10**12)
        except SessionError as error:
            errors.append(error)

    worker = threading.Thread(target=work)
    worker.start()
    started.wait()
    while device == "cpu" and step.program.runs < 1000:
        pass
    session.close()
    worker.join(60)
    assert not worker.is_alive()
    (error,) = errors
    match = re.search(r"closed after (\d+) of 1000000000000 repeated runs|this session is closed", str(error))
    assert match
    done = int(match[1] or 0)
    assert int(session._store.array(n)) == session._store.run_counter == step.runs == done + 1


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="needs POSIX signals")
def test_a_run_inside_a_run_is_refused(device: str) -> None:
    """A signal handler may look at parameters between steps, and not run the session: its memory is in use."""
    n, count = counter()
    twin = graphc.parameter(np.zeros((), np.int64), name="twin")
    seen: list[tuple[int, int]] = []
    errors: list[str] = []

    def handler(*_: Any) -> None:
        seen.append((session.get(n), session.get(twin)))
        for use in (step, lambda: session.run(n), lambda: step.profile(1)):
            try:
                use()
            except graphc.GraphcError as error:
                errors.append(str(error))
        if len(seen) == 3:
            session.close()

    session = graphc.Session(device=device)
    step = session.compile([n, count, graphc.assign(twin, twin + 1)])
    step()
    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
    try:
        with pytest.raises(SessionError, match="the session was closed after"):
            step.repeat(10**12)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert all(a == b > 0 for a, b in seen)
    inside = [e for e in errors if "inside another of its runs" in e]
    assert len(inside) == (9 if device == "cpu" else 6)
    assert len(errors) == 9


def test_a_finaliser_that_runs_the_session_is_refused() -> None:
    """Collected while a run is prepared or ends, it would write over the run's addresses."""
    x = graphc.placeholder((None,), name="x")
    session = graphc.Session()
    step = session.compile(x * 2.0, feeds=[x])
    errors: list[BaseException] = []

    class Careless:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            try:
                step(np.zeros(1000, F32))
            except SessionError as error:
                errors.append(error)

    before = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        for i in range(200):
            Careless()
            assert (step(np.full(50, i, F32)) == 2 * i).all()
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert all("inside another of its runs" in str(e) for e in errors)
    session.close()


# Threads.


def test_threads_take_turns_at_repeating(device: str) -> None:
    """On one session: whole repeats, one after the other. On two: side by side."""
    n, count = counter()
    steps = 3000 if device == "cpu" else 60
    with graphc.Session(device=device) as shared, graphc.Session(device=device) as other:
        step, lonely = shared.compile([n, count]), other.compile([n, count])
        lasts: list[int] = []
        errors: list[BaseException] = []

        def work() -> None:
            try:
                for _ in range(10):
                    lasts.append(int(step.repeat(steps)[0]))
            except BaseException as error:
                errors.append(error)

        workers = [threading.Thread(target=work) for _ in range(3)]
        for worker in workers:
            worker.start()
        assert lonely.repeat(steps)[0] == steps - 1
        for worker in workers:
            worker.join()
        assert not errors
        assert sorted(lasts) == [steps * (i + 1) - 1 for i in range(30)]
        assert shared.get(n) == shared._store.run_counter == shared.stats()["runs"] == 30 * steps
        assert other.get(n) == steps
