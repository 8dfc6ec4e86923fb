"""What a run means: reads see the old values, updates take effect together, and a run that raises changes nothing."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.errors import DeviceError, FeedError, FetchError, IndexRangeError, SessionError, UpdateError

F32 = np.float32
Pair = namedtuple("Pair", "first second")


@pytest.fixture(params=["reference", "cpu"])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def session(device: str) -> Any:
    with graphc.Session(device=device) as opened:
        yield opened


def weight(*values: float, **more: Any) -> graphc.Tensor:
    return graphc.parameter(np.array(values, F32), **more)


# Updates.


def test_reads_see_the_values_from_before(session: graphc.Session) -> None:
    w = weight(1, 2, 3)
    update = graphc.assign(w, w * 2.0)
    before, total, _ = session.run([w, graphc.sum(w), update])
    assert before.tolist() == [1, 2, 3]
    assert total == 6
    assert session.get(w).tolist() == [2, 4, 6]


def test_updates_take_effect_together(session: graphc.Session) -> None:
    a, b, c = weight(1, 2), weight(10, 20), weight(100, 200)
    session.run(graphc.group(graphc.assign(a, b + c), graphc.assign(b, a + c), graphc.assign(c, a + b)))
    assert [session.get(p).tolist() for p in (a, b, c)] == [[110, 220], [101, 202], [11, 22]]


def test_two_parameters_swap(session: graphc.Session) -> None:
    a, b = weight(1, 2), weight(3, 4)
    swap = [graphc.assign(a, b), graphc.assign(b, a)]
    for i in range(3):
        session.run(swap)
        assert session.get(a).tolist() == ([3, 4] if i % 2 == 0 else [1, 2])
        assert session.get(b).tolist() == ([1, 2] if i % 2 == 0 else [3, 4])


def test_three_parameters_rotate_through_reshapes(session: graphc.Session) -> None:
    a, b, c = weight(1, 2), weight(3, 4), graphc.parameter(np.array([[5], [6]], F32))
    rotate = [graphc.assign(a, b), graphc.assign(b, graphc.reshape(c, (2,))), graphc.assign(c, a.reshape((2, 1)))]
    session.run(rotate)
    assert [session.get(p).ravel().tolist() for p in (a, b, c)] == [[3, 4], [5, 6], [1, 2]]


def test_parameter_assigned_to_itself_and_transposed(session: graphc.Session) -> None:
    a, b = graphc.parameter(np.arange(9, dtype=F32).reshape(3, 3)), weight(1, 2)
    session.run([graphc.assign(a, a.T), graphc.assign(b, b)])
    assert session.get(a).tolist() == np.arange(9).reshape(3, 3).T.tolist()
    assert session.get(b).tolist() == [1, 2]


def test_one_value_for_two_parameters(session: graphc.Session) -> None:
    """The value is written in place into the first; the second gets the new one too."""
    a, b, c = weight(1, 2), weight(0, 0), graphc.parameter(np.zeros((2, 1), F32))
    value = a + 1.0
    session.run([graphc.assign(a, value), graphc.assign(b, value), graphc.assign(c, graphc.reshape(value, (2, 1)))])
    assert [session.get(p).ravel().tolist() for p in (a, b, c)] == [[2, 3]] * 3


def test_updated_value_is_fetched_with_its_update(session: graphc.Session) -> None:
    a = weight(1, 2)
    value = a * 3.0
    old, new, _ = session.run([a, value, graphc.assign(a, value)])
    assert (old.tolist(), new.tolist(), session.get(a).tolist()) == ([1, 2], [3, 6], [3, 6])


def test_scalar_fills_a_parameter(session: graphc.Session) -> None:
    a = weight(1, 2)
    session.run(graphc.assign(a, 7))
    assert session.get(a).tolist() == [7, 7]


def test_parameter_assigned_twice_names_both_lines(session: graphc.Session) -> None:
    a = weight(1, 2, name="a")
    first = graphc.assign(a, a + 1.0)
    second = graphc.assign(a, a + 2.0)
    with pytest.raises(UpdateError, match="'a' is assigned twice") as error:
        session.run([first, second])
    for update in (first, second):
        assert str(update.assigns[0].where) in str(error.value)
    assert first.assigns[0].where != second.assigns[0].where
    session.run([first, [first]])  # one assignment, met twice
    assert session.get(a).tolist() == [2, 3]


def test_run_that_raises_changes_nothing(session: graphc.Session) -> None:
    """Even though every update of this step is planned in place."""
    labels = graphc.placeholder((None,), "int64", name="labels")
    x = graphc.placeholder((None, 3), name="x")
    w, b = graphc.parameter(graphc.init.normal(), shape=(3, 4)), weight(0, 0, 0, 0)
    steps = graphc.parameter(np.int64(0))
    loss = graphc.nn.cross_entropy(x @ w + b, labels)
    train = [loss, graphc.optim.Momentum(0.1).minimize(loss), graphc.assign(steps, steps + 1)]
    good = {x: np.ones((2, 3)), labels: [0, 3]}
    session.run(train, good)
    held = [*session._store]
    before = [session.get(p) for p in held]
    runs, counter = session.stats()["runs"], session._store.run_counter
    for bad in ([0, 4], [-5, 0], [2**40, 1]):
        with pytest.raises(IndexRangeError):
            session.run(train, {**good, labels: bad})
    assert (session.stats()["runs"], session._store.run_counter) == (runs, counter) == (1, 1)
    for parameter, value in zip(held, before, strict=True):
        np.testing.assert_array_equal(session.get(parameter), value)
    session.run(train, good)
    assert session.get(steps) == 2


def test_only_runs_with_updates_count(session: graphc.Session) -> None:
    a = weight(1)
    session.run(a)
    session.run([a * 2.0, graphc.assign(a, a)])
    assert session._store.run_counter == 1
    assert session.stats()["runs"] == 2


# Fetches.


def test_fetched_arrays_are_the_callers_own(session: graphc.Session) -> None:
    """Spoiling them changes no parameter, feed, constant, other fetch or later run."""
    x = graphc.placeholder((2, 2), name="x")
    w, c = graphc.parameter(np.arange(4, dtype=F32).reshape(2, 2)), graphc.constant(np.arange(4, dtype=F32))
    y = x + w
    fetches = [w, x, c, y, y, w.reshape((4,)), x.reshape((4,)), y.reshape((4,)), graphc.reshape(c, (2, 2)), w.T, w, x]
    fed = np.arange(4, dtype=F32).reshape(2, 2)
    expected = [np.array(v) for v in session.run(fetches, {x: fed})]
    for i in range(len(fetches)):
        values = session.run(fetches, {x: fed})
        values[i][...] = -1
        for j, value in enumerate(values):
            assert not np.shares_memory(value, fed)
            np.testing.assert_array_equal(value, np.full_like(value, -1) if i == j else expected[j])
        for a in range(len(values)):
            for b in range(a):
                assert not np.shares_memory(values[a], values[b])
    got = session.get(w)
    got[...] = -1
    assert session.get(w).tolist() == [[0, 1], [2, 3]]
    assert fed.tolist() == [[0, 1], [2, 3]]


def test_earlier_results_survive_later_runs(session: graphc.Session) -> None:
    x = graphc.placeholder((None,), name="x")
    step = session.compile([x * 2.0, graphc.sum(x, axis=0, keepdims=True)], feeds=[x])
    results = [step(np.full(1000, i, F32)) for i in range(5)]
    for i, (double, total) in enumerate(results):
        assert (double == 2 * i).all()
        assert total == [1000 * i]


def test_scalars_are_numpy_scalars(session: graphc.Session) -> None:
    x = graphc.placeholder((), "float32", name="x")
    w, flag = graphc.parameter(np.float64(2.5)), graphc.constant(True)
    values = session.run([x, w, graphc.constant(3), flag, x > 1.0, x.reshape((1,)).reshape(())], {x: 4})
    kinds = [np.float32, np.float64, np.int64, np.bool_, np.bool_, np.float32]
    assert [type(v) for v in values] == kinds
    assert values == [4, 2.5, 3, True, True, 4]
    assert type(session.get(w)) is np.float64
    session.set(w, 7)
    assert session.get(w) == 7.0


def test_nested_fetches_come_back_in_their_structure(session: graphc.Session) -> None:
    a = weight(1, 2)
    update = graphc.assign(a, a)
    nested = {"list": [a, (a, update)], 3: Pair(a, [update]), "empty": [], "none": {}, "o": OrderedDict(k=a)}
    value = session.run(nested)
    assert list(value) == ["list", 3, "empty", "none", "o"]
    assert type(value["list"]) is list
    assert type(value["list"][1]) is tuple
    assert value["list"][1][1] is None
    assert type(value[3]) is Pair
    assert value[3].second == [None]
    assert value["empty"] == []
    assert value["none"] == {}
    assert value["o"]["k"].tolist() == [1, 2]
    assert session.run([]) == []
    assert session.run(update) is None


def test_every_run_is_counted(session: graphc.Session) -> None:
    """By the session's run, by a step, and by a step with an order of its own."""
    x, y = graphc.placeholder((None,), name="x"), graphc.placeholder((None,), name="y")
    difference = x - y
    step = session.compile(difference)
    session.compile(difference, feeds=[y, x])([1], [2])
    step([1], [2])
    step([1], [2])
    session.run(difference, {x: [1], y: [2]})
    session.compile(x, feeds=[x])([1])
    assert session.stats()["runs"] == 5
    assert session.stats()["steps"] == 2
    assert step.runs == 3


@pytest.mark.parametrize("wrong", ["a", 3, None, np.ones(2), {"deep": [None]}, {1, 2}, lambda: None])
def test_unknown_fetches_are_refused(wrong: Any, session: graphc.Session) -> None:
    with pytest.raises(FetchError, match=r"^fetches.*can fetch tensors, updates and nestings of them"):
        session.run(wrong)


def test_fetch_error_says_where(session: graphc.Session) -> None:
    with pytest.raises(FetchError, match=r"fetches\['deep'\]\[1\].*str 'w'.*not their names"):
        session.run({"deep": [weight(1), "w"]})


def test_a_fetch_list_changed_between_runs_is_another_fetch(session: graphc.Session) -> None:
    """Steps are found again by identity: an Update that took the place of a dead one is not the dead one."""
    w = weight(1)
    up, down = graphc.assign(w, w + 1.0), graphc.assign(w, w * 10.0)
    fetch: list[Any] = [None]
    expected = 1.0
    for i in range(20):
        fetch[0] = None
        fetch[0] = graphc.group(down if i % 2 else up)  # likely at the address of the one before
        session.run(fetch)
        expected = expected * 10 if i % 2 else expected + 1
        if expected > 1e5:
            session.set(w, [1])
            expected = 1.0
        assert session.get(w)[0] == expected


# Compiled steps.


def test_step_takes_arrays_in_the_order_asked_for(session: graphc.Session) -> None:
    x, y, unused = (graphc.placeholder((None,), name=n) for n in ("x", "y", "unused"))
    assert session.compile(x - y)([3], [1]).tolist() == [2]
    assert session.compile(x - y, feeds=["y", x])([3], [1]).tolist() == [-2]
    assert session.compile(x - y, feeds=[unused, y, x])([9, 9], [3], [1]).tolist() == [-2]
    with pytest.raises(FeedError, match="'x' appears twice"):
        session.compile(x - y, feeds=[x, y, "x"])
    with pytest.raises(FeedError, match=r"does not list:\n.*y"):
        session.compile(x - y, feeds=[x])
    with pytest.raises(FeedError, match=r"takes 2 arrays \(x, y\), got 1"):
        session.compile(x - y)([1])


# Seeds, and life.


def test_same_seed_gives_same_first_values(device: str) -> None:
    def values(seed: int) -> list[bytes]:
        a = graphc.parameter(graphc.init.normal(), shape=(5, 5))
        b = graphc.parameter(graphc.init.he_normal(), shape=(5, 5))
        with graphc.Session(device=device, seed=seed) as s:
            return [v.tobytes() for v in s.run([b, a])]

    assert values(3) == values(3)
    assert values(3) != values(4)
    b, a = values(2**63 - 1)
    assert a != b


@pytest.mark.parametrize("seed", [-1, 2**63, 1.0, True, "1", None])
def test_wrong_seeds_are_refused(seed: Any) -> None:
    with pytest.raises(SessionError, match="seed must be an int"):
        graphc.Session(seed=seed)


@pytest.mark.parametrize("threads", [0, -2, 1.5, True, "2"])
def test_wrong_thread_counts_are_refused(threads: Any) -> None:
    with pytest.raises(SessionError, match="threads must be an int of at least 1"):
        graphc.Session(threads=threads)


def test_unknown_devices_are_refused() -> None:
    with pytest.raises(DeviceError, match="unknown device 'gpu'"):
        graphc.Session(device="gpu")


def test_closed_session_refuses_everything(device: str) -> None:
    x, w = graphc.placeholder((None,), name="x"), weight(1, name="w")
    session = graphc.Session(device=device)
    step = session.compile(x + w, feeds=[x])
    session.close()
    session.close()
    uses = [
        lambda: session.run(w), lambda: step([1]), lambda: session.compile(w), lambda: session.get(w),
        lambda: session.set(w, [1]), lambda: session.save("x"), lambda: session.load("x"), session.__enter__,
    ]  # fmt: skip
    for use in uses:
        with pytest.raises(SessionError, match="this session is closed"):
            use()
    assert "closed" in repr(session)


def test_two_parameters_of_one_name_name_both_lines(session: graphc.Session) -> None:
    first = weight(1, name="same")
    second = weight(2, name="same")
    with pytest.raises(SessionError, match="two parameters are named 'same'") as error:
        session.run([first, second])
    for parameter in (first, second):
        assert str(parameter.node.where) in str(error.value)
    assert session.run(second)[0] == 2  # the failed run met neither
    with pytest.raises(SessionError, match="two parameters"):
        session.get(first)
    assert session.get("same")[0] == 2


def test_failing_initialiser_leaves_the_session_usable(session: graphc.Session) -> None:
    good = weight(1, name="good")
    wrong = graphc.parameter(lambda shape, dtype, rng: np.zeros(7), shape=(2,), name="wrong")
    with pytest.raises(SessionError, match=r"returned shape \(7,\), expected \(2,\)"):
        session.run([good, wrong])
    with pytest.raises(SessionError, match="met no parameter named 'good'"):
        session.get("good")
    assert session.run(good)[0] == 1


def test_set_checks_like_a_feed(session: graphc.Session) -> None:
    w, n = weight(1, 2, name="w"), graphc.parameter(np.zeros(2, np.int32), name="n")
    session.set(w, [3, True])
    assert session.get("w").tolist() == [3, 1]
    with pytest.raises(FeedError, match="parameter 'w': axis 0 must have extent 2"):
        session.set("w", [1, 2, 3])
    with pytest.raises(FeedError, match="parameter 'n': float64 values cannot be fed to int32"):
        session.set(n, [0.5, 1])
    with pytest.raises(SessionError, match="expected a parameter or its name, got"):
        session.set(w + 1.0, [1, 2])
