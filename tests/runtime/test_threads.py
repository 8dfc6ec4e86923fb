"""Threads: the same bits for every number of them, on every thread layer, and nothing left behind in BLAS."""

from __future__ import annotations

import gc
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg.cython_blas  # noqa: F401  # loads SciPy's BLAS, so that it can be asked for its threads
from threadpoolctl import ThreadpoolController

import graphc

Python = Callable[..., str]
SIZES = (0, 1, 255, 256, 257, 1000, 100_003)
THREADS = (1, 2, 5)
LAYERS = ("tbb", "omp", "workqueue")


def same_bits(a: Any, b: Any) -> bool:
    return np.asarray(a).tobytes() == np.asarray(b).tobytes() and np.shape(a) == np.shape(b)


# The same bits.


def reductions(x: graphc.Tensor) -> dict[str, graphc.Tensor]:
    """Sums and extrema of a matrix along rows, columns and both, and rows that wait for a reduction."""
    return {
        "rows": graphc.sum(x, axis=1),
        "columns": graphc.sum(x, axis=0),
        "all": graphc.sum(x),
        "row means": graphc.mean(graphc.square(x), axis=1),
        "shares": x / (1.0 + graphc.sum(x * x, axis=1, keepdims=True)),
        "centred": x - graphc.sum(x, axis=0, keepdims=True),
        "elementwise": graphc.exp(x) * 0.5 + graphc.tanh(x),
    }


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # the mean of nothing is NaN
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", SIZES)
def test_same_bits_for_every_thread_count(size: int, dtype: str) -> None:
    x = graphc.placeholder((None, None), dtype, name="x")
    fetches = reductions(x)
    shapes = [(1, size), (3, size), (size, 1), (size, 3), (600, size) if size < 2000 else (20, size)]
    data = [np.random.default_rng(0).normal(size=shape).astype(dtype) for shape in shapes]
    found = []
    for count in THREADS:
        with graphc.Session(threads=count) as session:
            found.append([session.run(fetches, {x: d}) for d in data])
    with graphc.Session(device="reference") as session:
        expected = [session.run(fetches, {x: d}) for d in data]
    for i, d in enumerate(data):
        for name in fetches:
            for other in found[1:]:
                assert same_bits(found[0][i][name], other[i][name]), f"{name} of shape {d.shape}"
            tolerance = {"rtol": 2e-5, "atol": 2e-5 * max(1.0, float(np.abs(d).sum()) ** 0.5)}
            np.testing.assert_allclose(found[0][i][name], expected[i][name], err_msg=f"{name} {d.shape}", **tolerance)


@pytest.mark.parametrize("size", [s for s in SIZES if s])
def test_extrema_have_the_same_bits_and_are_exact(size: int) -> None:
    x = graphc.placeholder((None, None), name="x")
    fetches = [graphc.max(x), graphc.min(x, axis=0), graphc.max(x, axis=1), graphc.argmax(x, axis=1)]
    d = np.random.default_rng(1).normal(size=(7, size)).astype(np.float32)
    d[3, size // 2] = np.nan
    expected = [d.max(), d.min(axis=0), d.max(axis=1), d.argmax(axis=1)]
    for count in THREADS:
        with graphc.Session(threads=count) as session:
            for got, wanted in zip(session.run(fetches, {x: d}), expected, strict=True):
                np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("shape", [(1, 1, 1), (300, 200, 5), (5, 200, 300), (129, 1025, 257), (1, 100_003, 3)])
def test_products_and_their_updates_have_the_same_bits(shape: tuple[int, int, int]) -> None:
    m, k, n = shape
    x, y = graphc.placeholder((None, k), name="x"), graphc.placeholder((None, n), name="y")
    w = graphc.parameter(graphc.init.normal(0.1), shape=(k, n))
    loss = graphc.mean(graphc.square(x @ w - y))
    train = graphc.optim.SGD(0.01).minimize(loss)
    rng = np.random.default_rng(2)
    feeds = {x: rng.normal(size=(m, k)), y: rng.normal(size=(m, n))}
    found = []
    for count in THREADS:
        with graphc.Session(threads=count) as session:
            losses = [session.run([loss, train], feeds)[0] for _ in range(3)]
            found.append((losses, session.get(w)))
    for losses, value in found[1:]:
        assert same_bits(losses, found[0][0])
        assert same_bits(value, found[0][1])


# Several Python threads.


def together(*work: Callable[[], None]) -> None:
    """Run every function in a thread of its own, all at once; raise the first error."""
    errors: list[BaseException] = []
    gate = threading.Barrier(len(work))

    def guarded(function: Callable[[], None]) -> None:
        gate.wait()
        try:
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(f,)) for f in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_two_threads_in_one_session_take_turns() -> None:
    """No update is lost, and no run sees half of another."""
    x = graphc.placeholder((None,), name="x")
    a = graphc.parameter(np.zeros(50_000, np.float32))
    b = graphc.parameter(np.zeros(50_000, np.float32))
    count = [graphc.assign(a, a + 1.0), graphc.assign(b, b + 1.0)]
    with graphc.Session(threads=2) as session:

        def work() -> None:
            for i in range(100):
                before, after, *_ = session.run([a, b, *count])
                assert (before == before[0]).all()
                assert (after == before[0]).all()
                n = i % 7 + 1
                assert session.run(graphc_sum, {x: np.ones(n)}) == n

        graphc_sum = graphc.sum(x)
        together(work, work)
        assert session.get(a)[0] == session.get(b)[0] == 200
        assert session.stats()["runs"] == 400


def test_two_threads_compile_in_one_session_and_two() -> None:
    x = graphc.placeholder((None,), name="x")

    def compiles(session: graphc.Session, offset: float) -> Callable[[], None]:
        def work() -> None:
            for i in range(5):
                value = session.run(graphc.sqrt(x * x + (offset + i)) - 0.25, {x: [0.0]})
                assert value[0] == np.float32(np.sqrt(np.float32(offset + i))) - np.float32(0.25)

        return work

    with graphc.Session() as first, graphc.Session() as second:
        together(compiles(first, 1), compiles(first, 100), compiles(second, 1), compiles(second, 50))


def test_closing_while_another_thread_runs() -> None:
    """Runs end well or find the session closed."""
    x = graphc.placeholder((None,), name="x")
    y = graphc.exp(x)
    session = graphc.Session()
    step = session.compile(y, feeds=[x])
    running = threading.Event()

    def forever() -> None:
        while True:
            assert (step(np.zeros(100_000, np.float32)) == 1).all()
            running.set()

    def work() -> None:
        with pytest.raises(graphc.errors.SessionError, match="closed"):
            forever()

    def close() -> None:
        running.wait()
        session.close()

    together(work, close)


LAYER = """
import sys, threading, numpy as np, graphc
from graphc.errors import SessionError
from runtime.cpu import threads
layer = sys.argv[1] if len(sys.argv) > 1 else LAYER
try:
    graphc.Session().run(graphc.constant(1.0) + 1.0)
except ValueError as error:
    if "threading layer" not in str(error).lower():
        raise
    print("ABSENT", error)
    raise SystemExit
assert threads.current_layer() == layer, threads.current_layer()
x = graphc.placeholder((None, None))
y = [graphc.sum(x, axis=1), graphc.sum(x), x @ graphc.permute_dims(x, (1, 0))]
data = np.random.default_rng(0).normal(size=(400, 1000)).astype(np.float32)
"""

SIDE_BY_SIDE = """
expected = graphc.Session(threads=1).run(y, {x: data})
errors = []
def work():
    try:
        with graphc.Session(threads=2) as s:
            step = s.compile(y, feeds=[x])
            for i in range(60):
                for a, b in zip(step.repeat(1 + i % 3, data), expected):
                    assert a.tobytes() == b.tobytes()
    except BaseException as error:
        errors.append(error)
workers = [threading.Thread(target=work) for _ in range(3)]
[w.start() for w in workers]; [w.join() for w in workers]
assert not errors, errors
print("done")
"""

FORK = """
import os
session = graphc.Session(threads=2)
before = session.run(y, {x: data})
pid = os.fork()
if not pid:
    status = 1
    try:
        for s in (session, graphc.Session(threads=2)):
            try:
                after = s.run(y, {x: data})
                assert layer == "tbb", "a fork of this layer cannot launch"
                assert all(a.tobytes() == b.tobytes() for a, b in zip(before, after))
            except SessionError as error:
                assert layer != "tbb", error
                assert "fork" in str(error) and "spawn" in str(error) and layer in str(error), error
        status = 0
    finally:
        sys.stderr.flush()
        os._exit(status)
_, status = os.waitpid(pid, 0)
assert status == 0, status
assert all(a.tobytes() == b.tobytes() for a, b in zip(session.run(y, {x: data}), before))
print("done")
"""

FORK_FIRST = """
import os, sys
import numpy as np, graphc
pid = os.fork()
a = graphc.placeholder((None,))
with graphc.Session(threads=2) as session:
    value = session.run(graphc.sum(a), {a: np.ones(200_000)})
assert value == 200_000
if not pid:
    sys.stdout.flush()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
print("done")
"""


# More threads than cores, which Numba must be told before it starts: whole runs, repeated ones, and Ctrl-C.
CROWDED = """
import os, signal, threading, numba
assert numba.config.NUMBA_NUM_THREADS == 9
n = graphc.parameter(np.int64(0))
w = graphc.parameter(np.zeros((1000, 60), np.float32))
loss = graphc.mean(graphc.square(x @ w - 1.0))
train = [loss, *y, graphc.assign(w, w - 0.01 * graphc.gradients(loss, w)), graphc.assign(n, n + 1)]
found = []
for count in (1, 2, 9):
    with graphc.Session(threads=count) as s:
        step = s.compile(train, feeds=[x])
        step(data)
        last = step.repeat(20, data)
        ways = max(k.threads for k in step.profile(1, data).kernels)
        assert ways == count, (ways, count)
        sender = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        sender.start()
        try:
            step.repeat(10**12, data)
            raise SystemExit("not interrupted")
        except KeyboardInterrupt:
            pass
        sender.join()
        assert s.get(n) == s._store.run_counter == step.runs > 21
        found.append([a.tobytes() for a in last[:4]])
assert found[0] == found[1] == found[2]
print("done")
"""


def on_layer(python: Python, layer: str, code: str, **environment: str) -> None:
    out = python(LAYER.replace("LAYER", repr(layer)) + code, NUMBA_THREADING_LAYER=layer, **environment)
    if out.startswith("ABSENT"):
        pytest.skip(f"no {layer} thread layer here: {out}")
    assert out.strip() == "done"


@pytest.mark.parametrize("layer", LAYERS)
def test_sessions_side_by_side(layer: str, python: Python) -> None:
    """Three sessions in three threads, in parallel regions at once: no abort, the right bits."""
    on_layer(python, layer, SIDE_BY_SIDE)


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="needs POSIX signals")
@pytest.mark.parametrize("layer", LAYERS)
def test_more_threads_than_cores(layer: str, python: Python) -> None:
    """The same bits as with one, repeated steps included; Ctrl-C ends a repeat after whole steps."""
    on_layer(python, layer, CROWDED, NUMBA_NUM_THREADS="9")


@pytest.mark.parametrize("layer", LAYERS)
def test_fork_after_use_works_or_says_why_not(layer: str, python: Python) -> None:
    """The child runs on tbb; elsewhere it gets an error that says what to do. It never hangs and never dies."""
    on_layer(python, layer, FORK)


@pytest.mark.parametrize("layer", LAYERS)
def test_fork_before_first_use_works(layer: str, python: Python) -> None:
    assert python(FORK_FIRST, NUMBA_THREADING_LAYER=layer).strip() == "done"


# BLAS.


def blas_threads() -> dict[str, int]:
    controller = ThreadpoolController()
    return {i["filepath"]: i["num_threads"] for i in controller.info() if i["user_api"] == "blas"}


def test_blas_threads_are_restored_when_the_last_session_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    """SciPy's BLAS has one thread while a session is open; NumPy's is left alone."""
    gc.collect()  # sessions that other tests have dropped, and not closed
    monkeypatch.setenv("GRAPHC_BLAS", "scipy")
    with ThreadpoolController().limit(limits=2, user_api="blas"):
        before = blas_threads()
        a = np.random.default_rng(0).normal(size=(300, 300))
        product = a @ a
        first = graphc.Session()
        during = blas_threads()
        assert any(during[path] == 1 for path in during if "scipy" in Path(path).parent.name)
        assert all(during[path] == before[path] for path in during if "numpy" in Path(path).parent.name)
        second = graphc.Session()
        first.close()
        first.close()
        assert blas_threads() == during
        assert same_bits(a @ a, product)
        second.close()
        assert blas_threads() == before
        with graphc.Session():
            assert blas_threads() == during
        assert blas_threads() == before


def test_failed_session_leaves_blas_alone() -> None:
    before = blas_threads()
    for wrong in ({"seed": -1}, {"threads": 0}, {"device": "cuda"}, {"device": "nonsense"}):
        with pytest.raises(graphc.GraphcError):
            graphc.Session(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ZeroDivisionError), graphc.Session():
        raise ZeroDivisionError
    assert blas_threads() == before


def test_session_that_is_dropped_gives_blas_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without close, as in a notebook that makes session after session."""
    monkeypatch.setenv("GRAPHC_BLAS", "scipy")
    gc.collect()
    with ThreadpoolController().limit(limits=2, user_api="blas"):
        before = blas_threads()
        session = graphc.Session()
        session.run(graphc.constant(1.0) + 2.0)
        assert blas_threads() != before
        del session
        gc.collect()
        assert blas_threads() == before
