"""Random numbers in sessions: what they depend on, and what they do not."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import ops, random
from graphc.errors import IndexRangeError
from graphc.ops.philox import stream_key

F32 = np.float32


@pytest.fixture(params=["reference", "cpu"])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def draws(seed: int | None = None) -> list[graphc.Tensor]:
    """One of each kind whose bits are the same everywhere."""
    logits = graphc.constant(np.zeros(5, F32))
    return [
        random.bits((3, 5), "uint64", seed=seed), random.uniform((7, 2), seed=seed),
        random.uniform((4,), -1, 3, "float64", seed=seed), random.bernoulli(0.4, (2, 3, 4), seed=seed),
        random.integers(-5, 90, (6,), seed=seed), random.integers(0, 2**60 + 1, (6,), seed=seed),
        random.permutation(9, seed=seed), random.categorical(logits, num=3, seed=seed),
    ]  # fmt: skip


def equal(left: Any, right: Any) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


def bump() -> graphc.Update:
    """An update, which advances the run counter."""
    return graphc.assign(graphc.parameter(0.0), 1.0)


# What the numbers depend on.


def test_devices_draw_the_same_bits() -> None:
    """Integers and uniforms to the bit; normals to what their logarithm and cosine differ by."""
    parts, z = draws(), random.normal((1000,))
    update = bump()
    found = []
    for device in ("reference", "cpu"):
        with graphc.Session(device=device, seed=5) as session:
            found.append([*session.run(parts), *session.run([*parts, update])[:-1], *session.run(parts)])
            normals = session.run(z)
        if device == "reference":
            expected = normals
    assert equal(*found)
    # log, sqrt and cos each within 4 units, as the kernels' bounds and NumPy's say; the angle is below 2 pi.
    assert np.abs(normals - expected).max() <= 16 * np.finfo(F32).eps * 7


def test_seed_and_stream_decide(device: str) -> None:
    parts = draws()
    found = []
    for seed in (1, 1, 2):
        with graphc.Session(device=device, seed=seed) as session:
            found.append(session.run(parts))
    assert equal(found[0], found[1])
    assert not any(np.array_equal(x, y) for x, y in zip(found[0], found[2], strict=True))


def test_runs_without_updates_repeat_and_updates_advance(device: str) -> None:
    parts, update = draws(), bump()
    with graphc.Session(device=device) as session:
        first = session.run(parts)
        assert equal(first, session.run(parts))
        during = session.run([*parts, update])[:-1]
        assert equal(first, during)  # the counter advances when the run has ended
        second = session.run(parts)
        assert not any(np.array_equal(x, y) for x, y in zip(first[:3], second[:3], strict=True))
        assert equal(second, session.run(parts))
        step = session.compile([*parts, update])
        seen = [step()[:-1] for _ in range(3)]
        assert equal(seen[0], second)
        assert not equal(seen[1], seen[2])


def test_a_run_that_raises_leaves_the_counter(device: str) -> None:
    labels = graphc.placeholder((2,), dtype="int64")
    checked, update, x = graphc.one_hot(labels, 3), bump(), random.uniform((4,))
    with graphc.Session(device=device) as session:
        before = session.run(x)
        with pytest.raises(IndexRangeError):
            session.run([checked, x, update], {labels: [0, 5]})
        assert session.run(random.run_counter()) == 0
        assert equal([before], [session.run(x)])
        session.run([checked, update], {labels: [0, 2]})
        assert session.run(random.run_counter()) == 1


def test_the_counter_of_a_run_is_that_from_before(device: str) -> None:
    count = random.run_counter()
    kept = graphc.parameter(np.uint64(99))
    with graphc.Session(device=device) as session:
        for expected in range(3):
            assert session.run([count, graphc.assign(kept, count)])[0] == expected
            assert session.get(kept) == expected
        assert session.run(count).dtype == np.uint64


def test_repeated_runs_draw_anew_each_time(device: str) -> None:
    """As single runs do: the counter advances between the steps of a repeat."""
    total = graphc.parameter(np.zeros(6, F32))
    noise = random.uniform((6,))
    fetches = [noise, graphc.assign(total, total + noise)]
    with graphc.Session(device=device) as session:
        step = session.compile(fetches)
        last = [step()[0] for _ in range(5)][-1]
        expected = session.get(total)
    with graphc.Session(device=device) as session:
        assert np.array_equal(session.compile(fetches).repeat(5)[0], last)
        assert np.array_equal(session.get(total), expected)
        assert session.run(random.run_counter()) == 5


def test_streams_are_numbered_as_they_are_met(device: str) -> None:
    """Fetching more changes nothing; neither does the order in which one fetch lists them."""
    early, late, between = random.uniform((5,)), random.uniform((5,)), random.uniform((5,))
    with graphc.Session(device=device) as session:
        first = session.run(late)
        assert equal([first], session.run([late, early])[:1])
        assert equal([first], session.run([between, early, late])[2:])
    with graphc.Session(device=device) as session:
        a, b = session.run([late, early])  # met together, so numbered in the order in which they were written
        assert not np.array_equal(first, a)
        assert np.array_equal(first, b)
    with graphc.Session(device=device) as session:
        assert equal([b, a], session.run([early, late]))


def test_key_values(device: str) -> None:
    keys = [ops.random_key(), ops.random_key(7), ops.random_key(), ops.random_key(7)]
    with graphc.Session(device=device, seed=3) as session:
        found = [int(k) for k in session.run(keys)]
    expected = [stream_key(3, n, explicit=e) for n, e in ((0, False), (7, True), (1, False), (7, True))]
    assert found == expected


def test_an_explicit_stream_is_shared(device: str) -> None:
    a, b = random.uniform((4,), seed=11), random.uniform((4,), seed=11)
    other, own = random.uniform((4,), seed=12), random.uniform((4,))
    with graphc.Session(device=device) as session:
        found = session.run([a, b, other, own])
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])
    assert not np.array_equal(found[0], found[3])


def test_two_calls_are_two_draws_and_one_call_is_one(device: str) -> None:
    """Equal calls are not merged, and a tensor used twice has one value, in whatever kernels it is computed."""
    a, b = random.uniform((100,)), random.uniform((100,))
    with graphc.Session(device=device) as session:
        difference, same, total, square = session.run([a - b, a - a * 1.0, a.sum(), a * a])
        value = session.run(a)
    assert np.abs(difference).min() > 0
    assert not same.any()
    assert np.isclose(total, value.sum(), rtol=1e-5)
    assert np.array_equal(square, value * value)


# What they do not depend on.


def test_layout_fusion_and_threads_change_nothing() -> None:
    """The same draw alone, under views, inside sums, as a matrix product's operand, and on any number of threads."""
    x = random.uniform((64, 48), seed=1)
    ones = graphc.constant(np.ones((48, 1), F32))
    forms = [x, x.T, x.T.reshape(48 * 64), x + 0.0, x @ ones, x.sum(0), x.sum(1, keepdims=True), (x * 2 - x).T * 1.0]
    expected = None
    for threads in (1, 2, 3):
        with graphc.Session(threads=threads, seed=9) as session:
            alone = [session.run(form) for form in forms]
            together = session.run(forms)
        assert equal(alone[:4], together[:4])
        assert np.array_equal(together[1], together[0].T)
        assert np.array_equal(together[7], together[0].T)
        expected = alone if expected is None else expected
        assert equal(alone, expected)
    with graphc.Session(device="reference", seed=9) as session:
        assert equal(session.run(forms[:4]), expected[:4])


def test_big_draws_are_shared_among_threads_evenly() -> None:
    x = random.bits((1 << 20,), seed=4)
    with graphc.Session(threads=1) as one, graphc.Session(threads=4) as four:
        left, right = one.run(x), four.run(x)
    assert np.array_equal(left, right)
    with graphc.Session(device="reference") as session:
        assert np.array_equal(left, session.run(x))


def test_python_threads_and_sessions_side_by_side(device: str) -> None:
    parts = draws(seed=2)
    with graphc.Session(device=device) as session:
        expected = session.run(parts)
    results: list[Any] = [None] * 4

    def work(number: int) -> None:
        with graphc.Session(device=device) as session:
            results[number] = [session.run(parts) for _ in range(3)]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(equal(found, expected) for result in results for found in result)


def test_a_new_process_draws_the_same(python: Callable[..., str], device: str) -> None:
    code = (
        "import graphc\n"
        "x = [graphc.random.bits((4,)), graphc.random.integers(0, 2**40, (3,)), graphc.random.permutation(5)]\n"
        f"with graphc.Session(device={device!r}, seed=77) as s: print([a.tolist() for a in s.run(x)])\n"
    )
    one, two = python(code, PYTHONHASHSEED="1"), python(code, PYTHONHASHSEED="2")
    assert one == two
    x = [random.bits((4,)), random.integers(0, 2**40, (3,)), random.permutation(5)]
    with graphc.Session(device=device, seed=77) as session:
        assert str([a.tolist() for a in session.run(x)]) == one.strip()


def test_the_numbers_themselves() -> None:
    """Drawn once: they may change on purpose only, because runs would no longer be repeated by their seeds."""
    x = [random.bits((3,)), random.uniform((3,)), random.integers(0, 100, (5,)), random.permutation(6)]
    with graphc.Session(device="reference", seed=0) as session:
        found = [a.tolist() for a in session.run(x)]
    assert found == [
        [3612573640, 1933469880, 1232264171], [0.7935073971748352, 0.43898463249206543, 0.3176906108856201],
        [48, 51, 11, 18, 60], [1, 5, 2, 0, 3, 4],
    ]  # fmt: skip


# Where the state is.


def test_a_resumed_run_goes_on_where_it_was_saved(device: str, tmp_path: Path) -> None:
    def program() -> tuple[graphc.Tensor, graphc.Update]:
        w = graphc.parameter(np.zeros(4, F32), name="w")
        noise = random.uniform((4,))
        return noise, graphc.assign(w, w + noise)

    noise, update = program()
    with graphc.Session(device=device, seed=6) as session:
        for _ in range(3):
            session.run(update)
        session.save(tmp_path / "a")
        expected = [session.run([noise, update])[0] for _ in range(3)]
    noise, update = program()
    with graphc.Session(device=device, seed=6) as session:
        session.load(tmp_path / "a")
        assert session.run(random.run_counter()) == 3
        assert equal([session.run([noise, update])[0] for _ in range(3)], expected)


def test_loading_reaches_a_compiled_step(tmp_path: Path) -> None:
    noise, update = random.uniform((4,)), bump()
    w = graphc.parameter(np.zeros(1, F32), name="w")
    with graphc.Session() as session:
        session.run(w)
        session.save(tmp_path / "a", [w])
        step = session.compile([noise, update])
        first, second = step()[0], step()[0]
        session.load(tmp_path / "a", strict=False)
        assert np.array_equal(step()[0], first)
        assert np.array_equal(step()[0], second)


def test_seeds_and_counters_are_not_in_kernels() -> None:
    """A new session, and other seeds, compile nothing."""
    x = [random.uniform((6, 2)), random.uniform((6, 2), seed=5), random.normal((3,), seed=5)]
    with graphc.Session(seed=1) as session:
        session.run(x)
    y = [random.uniform((6, 2)), random.uniform((6, 2), seed=8), random.normal((3,), seed=9)]
    with graphc.Session(seed=2) as session:
        session.run(y)
        assert session.stats()["kernels_compiled"] == 0
