"""Parameters and updates: what they take, and the text of what they refuse."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import init
from graphc.errors import DTypeError, GraphcError, ShapeError, UpdateError
from graphc.state import is_parameter

HERE = "tests/graphc/test_state.py"


def test_parameters() -> None:
    array = np.arange(6.0).reshape(2, 3)
    w = graphc.parameter(array, name="w")
    assert (w.shape, w.dtype, w.name) == ((2, 3), np.dtype(np.float64), "w")
    assert graphc.parameter([1.0, 2.0]).dtype == np.float32
    assert graphc.parameter((1.0, 2)).shape == (2,)
    assert graphc.parameter((3, 4), shape=(2,)).shape == graphc.parameter([3, 4]).shape == (2,)
    assert graphc.parameter((True, False)).dtype == np.bool_
    assert graphc.parameter([1, 2], dtype="float64").dtype == np.float64
    assert graphc.parameter(array, shape=(2, 3)).shape == (2, 3)
    drawn = graphc.parameter(init.he_normal(), shape=(784, 128))
    assert (drawn.shape, drawn.dtype) == ((784, 128), np.dtype(np.float32))
    assert graphc.parameter(init.zeros(), shape=(), dtype="int32").dtype == np.int32
    assert is_parameter(w)
    assert not is_parameter(w + 1)
    assert not is_parameter(array)


def test_a_parameter_keeps_its_first_value() -> None:
    array = np.ones(3, np.float32)
    w = graphc.parameter(array)
    array[:] = 5
    with graphc.Session(device="reference") as session:
        assert np.array_equal(session.run(w), np.ones(3))


@pytest.mark.parametrize(
    ("build", "error", "text"),
    [
        (lambda: graphc.parameter(init.zeros(), name="w"), ShapeError, "parameter 'w': an initialiser needs shape="),
        (lambda: graphc.parameter([1.0, 2.0], shape=(3,)),
         ShapeError, "shape=(3,) was asked for, but the value has shape (2,)"),
        (lambda: graphc.parameter(init.zeros(), shape=(None, 3)),
         ShapeError, "parameter: extents must be numbers, got (?"),
        (lambda: graphc.parameter(init.zeros(), shape=("n",)), ShapeError, "extents must be numbers, got (n,)"),
        (lambda: graphc.parameter(init.zeros(), shape=3), ShapeError, "the shape must be a tuple, got 3; write (3,)"),
        (lambda: graphc.parameter(graphc.constant(1.0)), DTypeError, "the initial value cannot be a tensor"),
        (lambda: graphc.parameter(graphc.constant(1.0)), DTypeError, "use assign to set it from one"),
        (lambda: graphc.parameter("zeros", name="w"),
         DTypeError, "parameter 'w': an array of dtype <U5 holds no plain numbers"),
        (lambda: graphc.parameter([[1], [2, 3]]), ShapeError, "parameter: the nested list is ragged"),
        (lambda: graphc.parameter((3, 4)), ShapeError,
         "parameter(init, shape=(3, 4)) for a first value of that shape, or parameter([3, 4]) for these values"),
        (lambda: graphc.parameter(init.zeros(), np.zeros((5, 2))), ShapeError,
         "parameter: the shape is a tuple, got an array of shape (5, 2); write a.shape"),
        (lambda: graphc.placeholder(np.zeros((5, 784))), ShapeError,
         "placeholder: the shape is a tuple, got an array of shape (5, 784); write a.shape"),
        (lambda: graphc.parameter([1.0], dtype="float16"), DTypeError, "dtype float16 is not supported"),
    ],
)  # fmt: skip
def test_parameter_errors(build: Callable[[], Any], error: type[GraphcError], text: str) -> None:
    with pytest.raises(error, match=re.escape(text)):
        build()


def w(*shape: int, dtype: str = "float32", name: str = "w") -> graphc.Tensor:
    return graphc.parameter(np.zeros(shape, dtype), name=name)


@pytest.mark.parametrize(
    ("build", "error", "parts"),
    [
        (lambda: graphc.assign(graphc.constant(1.0), 2.0), UpdateError,
         ("only a parameter can be assigned, got", HERE)),
        (lambda: graphc.assign(3, 2.0), UpdateError, ("only a parameter can be assigned, got 3",)),
        (lambda: graphc.assign(w(2), np.zeros(3, np.float32)), ShapeError,
         ("assign: extents of axis 0 of parameter and value must be equal, got 2 and 3",
          "w: parameter float32[2]", HERE)),
        (lambda: graphc.assign(w(2), np.zeros((2, 2), np.float32)), ShapeError,
         ("assign: the value must have the parameter's shape (2,), got (2, 2)",)),
        (lambda: graphc.assign(w(2), np.zeros(2)), DTypeError,
         ("assign: the value must have the parameter's dtype float32, got float64; convert with .astype('float32')",
          "w: parameter float32[2]")),
        (lambda: graphc.assign(w(2, dtype="int8"), 300), DTypeError, ("300 does not fit int8",)),
        (lambda: graphc.assign(w(2, dtype="int32"), 0.5), DTypeError,
         ("0.5 is a float, and int32 holds none; convert it on purpose",)),
        (lambda: graphc.group(graphc.constant(1.0)), UpdateError,
         ("group: expected updates (from assign, group or minimize), got Tensor",)),
    ],
)  # fmt: skip
def test_update_errors(build: Callable[[], Any], error: type[GraphcError], parts: tuple[str, ...]) -> None:
    with pytest.raises(error) as found:
        build()
    for part in parts:
        assert part in str(found.value)


def test_two_updates_of_one_parameter() -> None:
    p = w(2)
    first = graphc.assign(p, p + 1)
    second = graphc.assign(p, p + 2)
    lines = [next(iter(u)).where for u in (first, second)]
    expected = (
        f"parameter 'w' is assigned twice in one run:\n    {lines[0]}\n    {lines[1]}\n"
        f"  combine the two values in one assign"
    )
    with pytest.raises(UpdateError, match=re.escape(expected)):
        graphc.group(first, second)
    with graphc.Session(device="reference") as session:
        with pytest.raises(UpdateError, match=re.escape(expected)):
            session.run([first, second])
        assert np.array_equal(session.get(p), [0, 0])


def test_group() -> None:
    a, b = w(2), w(3, name="v")
    one, two = graphc.assign(a, 1), graphc.assign(b, 2)
    both = graphc.group(one, two, graphc.group(one))
    assert len(list(both)) == 2
    assert repr(both) == "<Update of w, v>"
    assert repr(graphc.group()) == "<Update of nothing>"
    with graphc.Session(device="reference") as session:
        assert session.run([both, one]) == [None, None]
        assert np.array_equal(session.get(a), [1, 1])
        assert np.array_equal(session.get(b), [2, 2, 2])


@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_reads_see_the_values_from_before(device: str) -> None:
    a, b = graphc.parameter([1.0], name="a"), graphc.parameter([2.0], name="b")
    swap = graphc.group(graphc.assign(a, b), graphc.assign(b, a))
    with graphc.Session(device=device) as session:
        before, _, total = session.run([a, swap, a + 10 * b])
        assert (before, total) == ([1], [21])
        assert (session.get(a), session.get(b)) == ([2], [1])


def test_a_scalar_fills() -> None:
    p = graphc.parameter(np.zeros((2, 2)), name="p")
    with graphc.Session(device="reference") as session:
        for value in (3, graphc.constant(np.float64(4)), np.float32(5)):
            session.run(graphc.assign(p, value))
            assert len(set(session.get(p).ravel())) == 1


def test_lists_give_float32_and_arrays_keep_their_dtype() -> None:
    assert graphc.parameter([0, 0, 0]).dtype == "float32"
    assert graphc.parameter(np.array([1, 2])).dtype == "int64"
    assert graphc.parameter([1, 2], dtype="int32").dtype == "int32"


def test_an_initialiser_that_was_not_called_is_refused() -> None:
    with pytest.raises(graphc.errors.DTypeError, match=r"write graphc.init.zeros\(\)"):
        graphc.parameter(graphc.init.zeros, shape=(2,))
