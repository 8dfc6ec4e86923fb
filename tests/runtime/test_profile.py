"""``step.profile``: times of kernels, measured on copies, and the trace that a viewer opens."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import optim
from graphc.errors import DeviceError, FeedError, IndexRangeError, SessionError
from runtime.cpu import runner
from runtime.profile import Profile

F32 = np.float32


def training() -> tuple[list[Any], list[graphc.Tensor]]:
    """A step that changes parameters, optimiser slots, a counter, and draws random numbers."""
    x = graphc.placeholder(("batch", 20), name="x")
    labels = graphc.placeholder(("batch",), "int64", name="labels")
    w = graphc.parameter(graphc.init.he_normal(), shape=(20, 30), name="w")
    v = graphc.parameter(graphc.init.he_normal(), shape=(30, 5), name="v")
    n = graphc.parameter(np.int64(0), name="n")
    noise = graphc.random.normal((20,))
    loss = graphc.nn.cross_entropy(graphc.relu((x + noise) @ w) @ v, labels)
    return [loss, noise, optim.Adam(0.01).minimize(loss), graphc.assign(n, n + 1)], [x, labels]


def batch(size: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(size, 20)).astype(F32), rng.integers(0, 5, size)


def state(session: graphc.Session) -> list[bytes]:
    return [session.get(p).tobytes() for p in session._store]


def test_a_profile_changes_nothing(tmp_path: Path) -> None:
    """Not a bit of a parameter, the run counter, the numbers of runs, or what later runs give."""
    fetches, feeds = training()
    data = batch(7)
    losses = []
    for profiled in (False, True):
        with graphc.Session(seed=1) as session:
            step = session.compile(fetches, feeds=feeds)
            step(*data)
            before, counts = state(session), (step.runs, session.stats()["runs"], session._store.run_counter)
            if profiled:
                for n in (1, 25):
                    found = step.profile(n, *data)
                    assert len(found.seconds) == n
                assert state(session) == before
                assert (step.runs, session.stats()["runs"], session._store.run_counter) == counts == (1, 1, 1)
            losses.append([np.asarray(a).tobytes() for _ in range(5) for a in step(*data)[:2]])
    assert losses[0] == losses[1]


def test_times_add_up_and_say_where_they_come_from() -> None:
    fetches, feeds = training()
    with graphc.Session(threads=1) as session:
        step = session.compile(fetches, feeds=feeds)
        found = step.profile(30, *batch(64))
        explained = step.explain(*batch(64))
    assert [k.kernel for k in found.kernels] == list(explained.kernels)
    assert len(found.kernels) == len(step.kernels)
    assert {k.calls for k in found.kernels} == {30}
    assert {k.threads for k in found.kernels} == {1}
    total = np.sum([k.seconds for k in found.kernels], axis=0)
    np.testing.assert_allclose(total, found.seconds, rtol=1e-9)  # nothing lies between the kernels
    assert (found.seconds > 0).all()
    assert all((k.seconds >= 0).all() for k in found.kernels)
    assert sum(k.share for k in found.kernels) == pytest.approx(1)
    here = Path(__file__).name
    assert all(any(here in str(line) for line in k.kernel.lines) for k in found.kernels)


def test_rates_are_amounts_over_medians() -> None:
    x = graphc.placeholder((None, 40), name="x")
    w = graphc.constant(np.ones((40, 50), F32))
    with graphc.Session() as session:
        step = session.compile([x @ w], feeds=[x])
        (product,) = step.profile(9, np.ones((30, 40), F32)).kernels
    assert product.flops == 2 * 30 * 40 * 50
    assert product.bytes == 4 * (30 * 40 + 40 * 50 + 30 * 50)
    assert product.median == np.median(product.seconds)
    assert product.fastest == product.seconds.min()
    assert product.flops_per_second == product.flops / product.median
    assert product.bytes_per_second == product.bytes / product.median


def test_threads_of_a_kernel_are_told() -> None:
    x = graphc.placeholder((None,), name="x")
    with graphc.Session(threads=2) as session:
        step = session.compile(graphc.exp(x), feeds=[x])
        assert step.profile(2, np.zeros(10, F32)).kernels[0].threads == 1
        assert step.profile(2, np.zeros(1_000_000, F32)).kernels[0].threads == 2


def test_the_table_names_lines_and_is_sorted() -> None:
    fetches, feeds = training()
    with graphc.Session() as session:
        found = session.compile(fetches, feeds=feeds).profile(5, *batch(50))
    lines = str(found).splitlines()
    assert lines[0].startswith("5 runs at batch = 50")
    assert "median" in lines[1]
    assert len(lines) == 2 + len(found.kernels)
    shares = [float(line.split("%")[0]) for line in lines[2:]]
    assert shares == sorted(shares, reverse=True)
    assert all(Path(__file__).name in line for line in lines[2:])
    for kernel in found.kernels:
        assert sum(f"  {kernel.kernel.number} {kernel.kernel.label} (" in line for line in lines[2:]) == 1


@pytest.mark.parametrize("n", [1, 4])
def test_the_trace_is_what_viewers_open(n: int, tmp_path: Path) -> None:
    """The Trace Event Format's JSON object with complete events: times in microseconds, kernels inside their run."""
    fetches, feeds = training()
    file = tmp_path / "step.json"
    with graphc.Session() as session:
        found = session.compile(fetches, feeds=feeds).profile(n, *batch(50), trace=file)
    trace = json.loads(file.read_text())
    assert set(trace) == {"traceEvents", "displayTimeUnit"}
    assert trace["displayTimeUnit"] in ("ms", "ns")
    events = trace["traceEvents"]
    names = {e["name"]: e["args"]["name"] for e in events if e["ph"] == "M"}
    assert names == {"process_name": "graphc", "thread_name": "runner"}
    complete = [e for e in events if e["ph"] == "X"]
    assert len(complete) == n * (1 + len(found.kernels))
    for event in complete:
        assert {type(event[k]) for k in ("ts", "dur")} <= {int, float}
        assert {type(event[k]) for k in ("pid", "tid")} == {int}
        assert {type(event[k]) for k in ("name", "cat")} == {str}
        assert event["ts"] >= 0
        assert event["dur"] >= 0
    runs = [e for e in complete if e["cat"] == "run"]
    assert [e["name"] for e in runs] == [f"run {i}" for i in range(n)]
    kernels = [e for e in complete if e["cat"] != "run"]
    for i, event in enumerate(kernels):
        run, time = runs[i // len(found.kernels)], found.kernels[i % len(found.kernels)]
        assert run["ts"] <= event["ts"]
        assert event["ts"] + event["dur"] <= run["ts"] + run["dur"] + 1e-3  # a nanosecond, of the sum's rounding
        assert event["dur"] == pytest.approx(1e6 * time.seconds[i // len(found.kernels)], abs=1e-3)
        assert event["name"] == time.kernel.label
        assert event["args"]["kernel"] == time.kernel.number
        assert Path(__file__).name in event["args"]["lines"]
        assert event["args"]["ops"]
        assert all("[" in read for read in event["args"]["reads"] + event["args"]["writes"])  # with shapes
    again = tmp_path / "again.json"
    found.save_trace(str(again))
    assert again.read_text() == file.read_text()


def test_only_profiles_read_the_clock() -> None:
    """The word that switches it on is the profile's own: runs after it are as fast as before."""
    n = graphc.parameter(np.int64(0), name="n")
    with graphc.Session() as session:
        step = session.compile(graphc.assign(n, n + 1))
        words = step.program._frame.words
        before = list(words)
        step.profile(3)
        assert list(words) == before
        step.repeat(3)
        assert session.get(n) == 3


def test_failures_are_those_of_the_profiled_runs() -> None:
    """The index leaves the table in the fourth run, on the profile's copies; nothing has changed."""
    n = graphc.parameter(np.int64(0), name="n")
    picked = graphc.take(graphc.constant(np.arange(3.0)), graphc.reshape(n, (1,)))
    with graphc.Session() as session:
        step = session.compile([picked, graphc.assign(n, n + 1)])
        step.profile(2)
        with pytest.raises(IndexRangeError, match="3"):
            step.profile(10)
        assert session.get(n) == step.runs == session._store.run_counter == 0
        assert step()[0] == 0.0


def test_what_cannot_be_profiled_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    x = graphc.placeholder((None,), name="x")
    y = x * 2.0
    with graphc.Session(device="reference") as session, pytest.raises(DeviceError, match="no kernels to time"):
        session.compile(y, feeds=[x]).profile(3, [1.0])
    with graphc.Session() as session:
        step = session.compile(y, feeds=[x])
        with pytest.raises(SessionError, match=r"profile: the first argument is the number of runs.*shape \(2,\)"):
            step.profile([1.0, 2.0])  # type: ignore[arg-type]
        with pytest.raises(FeedError, match=r"takes 1 arrays \(x\), got 0"):
            step.profile()
        with pytest.raises(OSError, match="missing"):
            step.profile(1, [1.0], trace="/missing/step.json")
        assert len(step.profile(2, []).seconds) == 2  # nothing to do, and still measured
        monkeypatch.setattr(runner.ctypes, "CDLL", lambda _: object())
        with pytest.raises(DeviceError, match="clock_gettime"):
            step.profile(1, [1.0])
    with pytest.raises(SessionError, match="closed"):
        step.profile(1, [1.0])


def test_a_step_without_kernels_has_an_empty_profile() -> None:
    with graphc.Session() as session:
        found = session.compile([]).profile(3)
    assert found.kernels == ()
    assert len(found.seconds) == 3
    assert "3 runs" in str(found)


def test_checked_and_ordered_steps_are_profiled_too() -> None:
    fetches, feeds = training()
    data = batch(6)
    with graphc.Session(check_numerics=True) as session:
        step = session.compile(fetches, feeds=feeds[::-1])
        before = state(session)
        assert isinstance(step.profile(2, *data[::-1]), Profile)
        assert state(session) == before
        assert step.runs == session._store.run_counter == 0


def test_closing_ends_a_long_profile() -> None:
    x = graphc.placeholder((None,), name="x")
    session = graphc.Session()
    step = session.compile(graphc.exp(graphc.exp(x)), feeds=[x])
    errors: list[SessionError] = []

    def work() -> None:
        try:
            step.profile(1_000_000, np.zeros(1_000_000, F32))
        except SessionError as error:
            errors.append(error)

    worker = threading.Thread(target=work)
    worker.start()
    session.close()
    worker.join(60)
    assert not worker.is_alive()
    assert "closed" in str(errors[0])
