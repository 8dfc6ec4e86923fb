"""Feeds: what is taken, in which shape of memory, and what is refused with which words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import graphc
from graphc.errors import FeedError

F32 = np.float32


@pytest.fixture(params=["reference", "cpu"])
def session(request: pytest.FixtureRequest) -> Iterator[graphc.Session]:
    with graphc.Session(device=request.param) as opened:
        yield opened


def echo(session: graphc.Session, value: Any, shape: tuple[Any, ...], dtype: str = "float32") -> Any:
    """``value`` fed to a placeholder, and read back through a kernel."""
    x = graphc.placeholder(shape, dtype, name="x")
    return session.run(x == x if dtype == "bool" else x * 1, {x: value})


# What is taken.


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        ([1, 2], "float32"), ([True, False], "int8"), ([True, False], "float64"), ((1.5, 2), "float32"),
        (np.array([1.5, 2], np.float16), "float32"), (np.array([1, 2], np.longdouble), "float64"),
        (np.array([1, 255], np.int64), "uint8"), (np.array([2**63 - 1], np.uint64), "int64"),
        (range(3), "int32"), (memoryview(np.arange(3.0)), "float32"), ([], "int64"), ([], "float32"),
        (np.zeros(0, object).astype(float), "int32"),
    ],
)  # fmt: skip
def test_kinds_that_widen_are_converted(value: Any, dtype: str, session: graphc.Session) -> None:
    got = echo(session, value, (None,), dtype)
    np.testing.assert_array_equal(got, np.asarray(value).astype(dtype))
    assert got.dtype == dtype


def test_float64_beyond_float32_becomes_infinite(session: graphc.Session) -> None:
    assert echo(session, [1e300, -1e300, 1e-300], (3,)).tolist() == [np.inf, -np.inf, 0]


BASE = np.arange(24, dtype=F32).reshape(4, 6)


def unaligned(array: np.ndarray) -> np.ndarray:
    raw = np.zeros(array.nbytes + 1, np.uint8)[1:]
    found = raw.view(array.dtype).reshape(array.shape)
    found[...] = array
    return found


def readonly(array: np.ndarray) -> np.ndarray:
    found = array.copy()
    found.flags.writeable = False
    return found


class Subclass(np.ndarray):
    pass


@pytest.mark.parametrize(
    "array",
    [
        BASE.T, BASE[::2, ::3], BASE[::-1, ::-1], np.asfortranarray(BASE), np.broadcast_to(BASE[:1], (4, 6)),
        np.broadcast_to(F32(3), (5, 5)), readonly(BASE), BASE.astype(">f4"), BASE.T.astype(">f8"), unaligned(BASE),
        unaligned(BASE).T, BASE[:0], BASE[:, :0], BASE[:, 2:3], BASE.view(Subclass), BASE[1:2, ::2],
        np.lib.stride_tricks.as_strided(BASE, (3, 4), (4, 4)), np.lib.stride_tricks.as_strided(BASE, (1, 6), (400, 4)),
    ],
    ids=str,
)  # fmt: skip
def test_arrays_of_any_layout_are_read_right(array: np.ndarray, session: graphc.Session) -> None:
    before = np.array(array)
    got = echo(session, array, (None, None))
    np.testing.assert_array_equal(got, before.astype(F32))
    np.testing.assert_array_equal(array, before)
    step = session.compile(graphc.placeholder((None, None), name="y").T * 1)
    np.testing.assert_array_equal(step(array), before.astype(F32).T)


@pytest.mark.parametrize("value", [3, 3.0, np.float64(3), np.array(3), np.array(3, ">f4"), readonly(np.array(F32(3)))])
def test_zero_dimensional_feeds(value: Any, session: graphc.Session) -> None:
    assert echo(session, value, ()) == 3


@pytest.fixture(scope="module")
def double() -> Iterator[Callable[[Any], Any]]:
    with graphc.Session() as opened:
        yield opened.compile(graphc.placeholder((None, None, None), name="z") * 2.0)


@given(data=st.data())
def test_any_view_of_any_array(double: Callable[[Any], Any], data: st.DataObject) -> None:
    """Slices with steps, moved axes and byte orders, against NumPy."""
    shape = data.draw(st.lists(st.integers(0, 5), min_size=3, max_size=3))
    array = np.arange(np.prod(shape), dtype=data.draw(st.sampled_from(["<f4", ">f4", "<f8", ">i2"]))).reshape(shape)
    steps = data.draw(st.lists(st.sampled_from([-2, -1, 1, 2]), min_size=3, max_size=3))
    view = array[tuple(slice(None, None, s) for s in steps)].transpose(data.draw(st.permutations(range(3))))
    np.testing.assert_array_equal(double(view), np.array(view, F32) * 2)


def test_feeds_by_name(session: graphc.Session) -> None:
    x, y = graphc.placeholder((None,), name="x"), graphc.placeholder((None,), name="y")
    assert session.run(x - y, {"x": [3], y: [1]}).tolist() == [2]
    with pytest.raises(FeedError, match="'x' is fed twice, by itself and by its name"):
        session.run(x - y, {"x": [3], x: [3], y: [1]})


def test_fed_and_not_needed_is_checked_and_ignored(session: graphc.Session) -> None:
    x, y = graphc.placeholder((None,), name="x"), graphc.placeholder((2,), "int32", name="y")
    assert session.run(x * 2.0, {x: [3], y: [1, 2]}).tolist() == [6]
    with pytest.raises(FeedError, match="placeholder 'y': axis 0 must have extent 2"):
        session.run(x * 2.0, {x: [3], y: [1]})
    with pytest.raises(FeedError, match="placeholder 'y': float64 values cannot be fed to int32"):
        session.run(x * 2.0, {x: [3], y: [1.5, 2]})


def test_nothing_needed_takes_nothing(session: graphc.Session) -> None:
    assert session.run(graphc.constant(2.0) * 3.0) == 6
    assert session.run(graphc.constant(2.0) * 3.0, {}) == 6


# What is refused.


REFUSED: list[tuple[str, tuple[Any, ...], str, Any, str]] = [
    ("rank", (None, 3), "float32", [1, 2, 3], r"expected rank 2 \(float32\[\?.*, 3\]\), got rank 1, shape \(3,\)"),
    ("scalar for a vector", (None,), "float32", 1.0, r"expected rank 1 .*, got rank 0, shape \(\)"),
    ("vector for a scalar", (), "float32", [1.0], r"expected rank 0 .*, got rank 1, shape \(1,\)"),
    ("extent", (None, 3), "float32", np.ones((2, 4)), r"axis 1 must have extent 3 .*, got 4, shape \(2, 4\)"),
    ("one is not broadcast", (2,), "float32", [1.0], r"axis 0 must have extent 2 .*, got 1"),
    ("float to int", (None,), "int32", [1.0], r"float64 values cannot be fed to int32 .*\.astype\('int32'\)"),
    ("float to bool", (None,), "bool", [1.0], "float64 values cannot be fed to bool"),
    ("int to bool", (None,), "bool", [1], "int64 values cannot be fed to bool"),
    ("ragged", (None, None), "float32", [[1], [1, 2]], "the nested list is ragged"),
    ("object", (None,), "float32", np.array([1, None], object), "cannot feed an array of dtype object"),
    ("text", (None,), "float32", ["1"], "cannot feed an array of dtype <U1"),
    ("complex", (None,), "float32", [1j], "cannot feed an array of dtype complex128"),
    ("dates", (None,), "int64", np.array(["2020-01-01"], "M8[D]"), r"cannot feed an array of dtype datetime64\[D\]"),
    ("records", (None,), "int64", np.zeros(2, [("a", "i4")]), "cannot feed an array of dtype"),
    ("too large", (None,), "int8", [1, 128], r"values from 1 to 128 do not fit int8 \(-128 to 127\)"),
    ("negative", (None,), "uint64", [-1, 5], "values from -1 to 5 do not fit uint64"),
    ("unsigned too large", (None,), "int64", np.array([2**63], np.uint64), "values .* do not fit int64"),
    ("beyond 64 bits", (None,), "int64", [2**70], "cannot feed an array of dtype object"),
    ("beyond unsigned", (None,), "uint64", [2**64], "cannot feed an array of dtype object"),
]


@pytest.mark.parametrize(("what", "shape", "dtype", "value", "message"), REFUSED, ids=[r[0] for r in REFUSED])
def test_unfit_feeds_are_refused(
    what: str, shape: tuple[Any, ...], dtype: str, value: Any, message: str, session: graphc.Session
) -> None:
    """By run and by a compiled step, with the placeholder's name and what was wrong."""
    x = graphc.placeholder(shape, dtype, name="x")
    y = x == x
    with pytest.raises(FeedError, match=f"^placeholder 'x': {message}"):
        session.run(y, {x: value})
    with pytest.raises(FeedError, match=f"^placeholder 'x': {message}"):
        session.compile(y)(value)


def test_symbolic_feeds_are_refused(session: graphc.Session) -> None:
    x = graphc.placeholder((None,), name="x")
    with pytest.raises(FeedError, match="placeholder 'x': a feed is an array, got the symbolic tensor"):
        session.run(x * 2.0, {x: graphc.constant([1.0])})
    with pytest.raises(graphc.GraphcError, match="symbolic"):
        session.run(x * 2.0, {x: [graphc.constant(1.0)]})


def test_missing_feeds_are_listed(session: graphc.Session) -> None:
    x, y, z = (graphc.placeholder((None,), name=n) for n in "xyz")
    with pytest.raises(FeedError, match=r"needs? placeholders that were not fed") as error:
        session.run(x + y + z, {y: [1]})
    assert str(x.node.where) in str(error.value)
    assert "z: " in str(error.value)
    assert "y: " not in str(error.value)


def test_wrong_keys_are_refused(session: graphc.Session) -> None:
    x, other = graphc.placeholder((None,), name="x"), graphc.placeholder((None,), name="other")
    w = graphc.parameter(np.ones(2, F32), name="w")
    y = x * w
    with pytest.raises(FeedError, match="no placeholder named 'X' is needed by these fetches; they need: x"):
        session.run(y, {"X": [1, 2]})
    with pytest.raises(FeedError, match="no placeholder named 'other'"):
        session.run(y, {x: [1, 2], "other": [1]})
    for wrong in (w, y, graphc.constant(1.0)):
        with pytest.raises(FeedError, match="only placeholders can be fed, got "):
            session.run(y, {x: [1, 2], wrong: [1, 2]})
    for key in (3, None, ("x",)):
        with pytest.raises(FeedError, match="a feed's key is a placeholder or its name, got"):
            session.run(y, {x: [1, 2], key: [1]})
    twin = graphc.placeholder((None,), name="x")
    with pytest.raises(FeedError, match="'x' is shared by several placeholders; feed them by tensor"):
        session.run(x + twin, {"x": [1]})
    assert other.name == "other"


# Symbolic extents.


def test_extents_that_disagree_name_both_placeholders(session: graphc.Session) -> None:
    x, y = graphc.placeholder(("batch", 2), name="x"), graphc.placeholder(("batch",), name="y")
    with pytest.raises(FeedError, match="batch") as error:
        session.run(graphc.sum(x) + graphc.sum(y), {x: np.ones((3, 2)), y: np.ones(4)})
    for part in ("'x'", "'y'", "must be 3, got 4"):
        assert part in str(error.value)


@pytest.mark.parametrize("sizes", [(3, 4), (1, 4), (4, 1), (0, 1)])
def test_anonymous_extents_that_meet_must_agree(sizes: tuple[int, int], session: graphc.Session) -> None:
    """A symbolic extent never broadcasts, even when it turns out to be 1."""
    x, y = graphc.placeholder((None,), name="first"), graphc.placeholder((None,), name="second")
    z = x + y
    with pytest.raises(FeedError, match=r"add at .* needs equal extents") as error:
        session.run(z, {x: np.ones(sizes[0]), y: np.ones(sizes[1])})
    assert "'first'" in str(error.value)
    assert "'second'" in str(error.value)
    assert str(z.node.where) in str(error.value)
    assert session.run(z, {x: [1], y: [1]}).tolist() == [2]


def test_extents_that_follow_from_others(session: graphc.Session) -> None:
    n = graphc.dim("n")
    x, y = graphc.placeholder((n,), name="x"), graphc.placeholder((2 * n + 1,), name="y")
    fetch = [graphc.sum(x), graphc.sum(y)]
    assert session.run(fetch, {x: np.ones(3), y: np.ones(7)}) == [3, 7]
    with pytest.raises(FeedError, match=r"'y' .*must be 7, got 6 \(n is 3 from axis 0 of 'x'"):
        session.run(fetch, {x: np.ones(3), y: np.ones(6)})
    for size, fits in ((7, True), (6, False), (0, False)):
        if fits:
            assert session.run(fetch[1], {y: np.ones(size)}) == size
        else:
            with pytest.raises(FeedError, match="'y'"):
                session.run(fetch[1], {y: np.ones(size)})


def test_extent_of_no_placeholder_is_refused(session: graphc.Session) -> None:
    """Whether a shape or a value needs it; any placeholder that is fed and has it will do."""
    n, unused = graphc.dim("n"), graphc.placeholder(("n",), name="unused")
    for fetch in (graphc.arange(n), graphc.sum(graphc.arange(n)), graphc.arange(2) + n):
        with pytest.raises(FeedError, match=r"the extent n, used by \w+ at .* is the extent of no placeholder"):
            session.run(fetch, {})
        assert session.run(fetch, {unused: [1, 2]}).sum() in (1, 5)
        assert session.run([fetch, unused], {unused: [1, 2]})[0].sum() in (1, 5)


def test_reshape_that_does_not_fit_is_refused_before_anything_runs(session: graphc.Session) -> None:
    x = graphc.placeholder((None,), name="x")
    w = graphc.parameter(np.ones(2, F32), name="w")
    fetch = [x.reshape((-1, 3)), graphc.assign(w, w + 1.0)]
    with pytest.raises(FeedError, match=r"reshape at .*(not exact|equal extents)"):
        session.run(fetch, {x: np.ones(7)})
    assert session.get(w).tolist() == [1, 1]
    assert session.run(fetch, {x: np.ones(6)})[0].shape == (2, 3)


def test_contradictory_extents_are_refused_without_feeds(session: graphc.Session) -> None:
    x = graphc.placeholder((None,), name="x")
    both = x + graphc.constant([1.0, 2.0]), x + graphc.constant([1.0, 2.0, 3.0])
    with pytest.raises(FeedError, match=r"needs .* and other lines make them"):
        session.run(list(both), {x: [1.0, 2.0]})


def test_failed_feeds_bind_nothing(session: graphc.Session) -> None:
    """After an error the same step takes good feeds of the same and other sizes."""
    x, y = graphc.placeholder(("n",), name="x"), graphc.placeholder(("n",), name="y")
    step = session.compile(x * y)
    for n in (2, 5, 2):
        with pytest.raises(FeedError):
            step(np.ones(n), np.ones(n + 1))
        assert step(np.ones(n), np.ones(n)).tolist() == [1] * n


def test_masked_arrays_are_refused(session: graphc.Session) -> None:
    """Their masks would be lost."""
    with pytest.raises(FeedError, match="mask"):
        echo(session, np.ma.masked_array([1.0, 2.0], [True, False]), (None,), "float32")


@pytest.mark.parametrize("device", ["cpu", "reference"])
@pytest.mark.parametrize("function", ["max", "min", "argmax", "softmax", "logsumexp"])
def test_an_extremum_of_nothing_is_refused_before_the_run(device: str, function: str) -> None:
    """On every device alike, naming the placeholder."""
    x = graphc.placeholder((None, None), name="x")
    result = getattr(graphc, function)(x, axis=1)
    with graphc.Session(device=device) as session:
        assert session.run(result, {x: np.ones((2, 3))}).shape[0] == 2
        with pytest.raises(FeedError, match=r" at .*at least one element, .*make it 0 \(axis 1 of 'x'"):
            session.run(result, {x: np.zeros((2, 0))})


def test_a_placeholder_may_be_fed_for_its_extent_alone(session: graphc.Session) -> None:
    """Nothing reads its values; its extent is still what the result is made of."""
    x, y = graphc.placeholder((None,), name="x"), graphc.placeholder((2,), name="y")
    fetches = [graphc.zeros_like(x), graphc.constant(1.0) * x.shape[0], y * 2.0]
    feeds = {x: np.ones(3), y: np.ones(2)}
    zeros, count, doubled = session.run(fetches, feeds)
    assert (zeros.tolist(), count, doubled.tolist()) == ([0, 0, 0], 3, [2, 2])
    assert session.run(fetches, {**feeds, x: np.ones(5)})[1] == 5
    step = session.compile(fetches, feeds=[x, y])
    assert step(np.ones(4), np.ones(2))[0].tolist() == [0, 0, 0, 0]
    with pytest.raises(FeedError, match="feed one that has it"):
        session.run(fetches, {y: np.ones(2)})


@pytest.mark.parametrize("feeds", [np.ones(3), [np.ones(3)], "x"])
def test_feeds_that_are_no_mapping(feeds: Any, session: graphc.Session) -> None:
    x = graphc.placeholder((3,), name="x")
    with pytest.raises(FeedError, match=r"as in \{x: array\}"):
        session.run(x * 2.0, feeds)


def test_one_feed_needs_no_list(session: graphc.Session) -> None:
    x = graphc.placeholder((3,), name="x")
    assert session.compile(x * 2.0, feeds="x")(np.ones(3)).tolist() == [2, 2, 2]
    step = session.compile(x * 2.0, feeds=x)
    assert step(np.ones(3)).tolist() == [2, 2, 2]
    with pytest.raises(FeedError, match="called with arrays"):
        step({x: np.ones(3)})


def test_none_is_no_feed(session: graphc.Session) -> None:
    x = graphc.placeholder((), name="x")
    for run in (lambda: session.run(x * 2.0, {x: None}), lambda: session.compile(x * 2.0)(None)):
        with pytest.raises(FeedError, match=r"^placeholder 'x' was fed None$"):
            run()


def test_arrays_where_placeholders_are_listed(session: graphc.Session) -> None:
    """They are not printed."""
    x, y = (graphc.placeholder((None, 3), name=n) for n in "xy")
    array = np.ones((2, 3))
    for feeds in ([x, array], [array], array):
        with pytest.raises(FeedError, match=r"^compile: feeds= lists placeholders or names, got an array of") as e:
            session.compile(x + y, feeds)
        assert len(str(e.value)) < 100
    with pytest.raises(FeedError, match=r"^compile: feeds= lists placeholders, .* arrays go to step\("):
        session.compile(x + y, {x: array, y: array})
    with pytest.raises(FeedError, match="a step is called with arrays, in the order of its feeds"):
        session.compile(x + y)({x: array, y: array})
