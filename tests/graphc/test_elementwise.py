"""What elementwise functions promise beyond their rows: weak limits, integer powers, decisions about special values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.errors import DTypeError

INF, NAN = math.inf, math.nan


@pytest.fixture(scope="module")
def session() -> Iterator[graphc.Session]:
    with graphc.Session(device="reference") as found:
        yield found


@pytest.fixture(scope="module")
def cpu() -> Iterator[graphc.Session]:
    with graphc.Session(device="cpu", threads=1) as found:
        yield found


# clip.


@pytest.mark.parametrize("dtype", ["float32", "int8", "uint64"])
@pytest.mark.parametrize(("low", "high"), [(2, 5), (None, 5), (2, None), (5, 2)])
def test_clip_as_numpy(session: graphc.Session, dtype: str, low: int | None, high: int | None) -> None:
    x = np.arange(9).astype(dtype)
    p = graphc.placeholder((9,), dtype=dtype)
    found = graphc.clip(p, low, high)
    assert found.dtype == dtype
    np.testing.assert_array_equal(session.run(found, {p: x}), np.clip(x, low, high))


def test_clip_without_limits_is_nothing() -> None:
    p = graphc.placeholder((3,))
    assert graphc.clip(p) is p


@pytest.mark.parametrize("low", [None, 0.0, NAN])
@pytest.mark.parametrize("high", [None, 1.0, NAN])
def test_clip_propagates_nan(session: graphc.Session, cpu: graphc.Session, low: Any, high: Any) -> None:
    x = np.array([NAN, -INF, INF, 0.5, -0.0], np.float32)
    p = graphc.placeholder((5,))
    expected = x if low is None and high is None else np.clip(x, low, high)
    for device in (session, cpu):
        np.testing.assert_array_equal(device.run(graphc.clip(p, low, high) + 0, {p: x}), expected)


def test_limits_of_clip_are_weak_and_broadcast(session: graphc.Session) -> None:
    p = graphc.placeholder((2, 3), dtype="float32")
    assert graphc.clip(p, 0, np.float64(1)).dtype == np.float32
    assert graphc.clip(graphc.placeholder((2,), dtype="int32"), 0.5).dtype == np.float32
    x = np.array([[-1, 0, 1], [2, 3, 4]], np.float32)
    low, high = np.array([[0.0], [2.5]], np.float32), np.array([0.5, 3.5, 3.5], np.float32)
    np.testing.assert_array_equal(session.run(graphc.clip(p, low, high), {p: x}), np.clip(x, low, high))
    with pytest.raises(DTypeError, match="-1 does not fit uint8"):
        graphc.clip(graphc.placeholder((2,), dtype="uint8"), -1)


def test_the_cotangent_of_clip(session: graphc.Session) -> None:
    x, low, high = (graphc.placeholder((5,), name=n) for n in ("x", "low", "high"))
    y = graphc.sum(graphc.clip(x, low, high) * [1.0, 2.0, 3.0, 4.0, 5.0])
    feeds = {x: [-1, 0, 0.5, 1, 2], low: np.zeros(5), high: np.ones(5)}
    found = session.run(graphc.gradients(y, [x, low, high]), feeds)
    np.testing.assert_array_equal(found, [[0, 2, 3, 4, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 5]])


# Powers.


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint8", "uint64"])
def test_integer_powers_wrap(session: graphc.Session, cpu: graphc.Session, dtype: str) -> None:
    info = np.iinfo(dtype)
    values = np.array([0, 1, 2, 3, 7, 100, info.max, info.min, info.min + 1], dtype)
    exponents = np.array([0, 1, 2, 3, 5, 31, 63, 64, 100, info.max], dtype)
    x, y = (grid.ravel() for grid in np.meshgrid(values, exponents))
    p, q = (graphc.placeholder(x.shape, dtype=dtype) for _ in range(2))
    expected = np.array([pow(int(a), int(b), 2**info.bits) for a, b in zip(x, y, strict=True)], object)
    expected = np.array([v - 2**info.bits if v > info.max else v for v in expected], dtype)
    for device in (session, cpu):
        np.testing.assert_array_equal(device.run(p**q, {p: x, q: y}), expected)


def test_negative_integer_exponents_leave_the_whole_part(session: graphc.Session, cpu: graphc.Session) -> None:
    x = np.array([0, 1, -1, -1, 2, -2, 100], np.int32)
    y = np.array([-1, -5, -4, -5, -1, -3, np.iinfo(np.int32).min], np.int32)
    p, q = (graphc.placeholder((7,), dtype="int32") for _ in range(2))
    for device in (session, cpu):
        np.testing.assert_array_equal(device.run(p**q, {p: x, q: y}), [0, 1, 1, -1, 0, 0, 0])


def test_a_negative_power_written_down_is_refused_for_integers() -> None:
    x = graphc.placeholder((2,), dtype="int32", name="x")
    with pytest.raises(
        DTypeError, match=r"pow: integers to the power -1 are fractions; got x: .*\.astype\('float32'\)"
    ):
        x**-1
    assert (x**-1.0).dtype == np.float32
    assert (2**x).dtype == (x**7).dtype == (x**x).dtype == np.int32


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (1.0, NAN, 1.0), (NAN, 0.0, 1.0), (-1.0, INF, 1.0), (-8.0, 1 / 3, NAN), (-2.0, 3.0, -8.0), (-0.0, -3.0, -INF),
        (-0.0, 3.0, -0.0), (0.0, -2.5, INF), (-INF, 3.0, -INF), (-INF, -3.0, -0.0), (0.5, -INF, INF), (2.0, -INF, 0.0),
    ],
)  # fmt: skip
def test_special_powers(cpu: graphc.Session, x: float, y: float, expected: float) -> None:
    for dtype in ("float32", "float64"):
        p, q = (graphc.placeholder((), dtype=dtype) for _ in range(2))
        found = cpu.run(p**q, {p: x, q: y})
        assert np.array_equal(found, expected, equal_nan=True)
        assert np.signbit(found) == np.signbit(expected) or math.isnan(expected)


# Kinds of numbers.


def test_questions_about_numbers(session: graphc.Session) -> None:
    x = np.array([NAN, INF, -INF, 1.0, -0.0, 0.0, -1.0], np.float32)
    p = graphc.placeholder((7,))
    for function, numpy in (
        (graphc.isnan, np.isnan), (graphc.isinf, np.isinf), (graphc.isfinite, np.isfinite), (graphc.signbit, np.signbit)
    ):  # fmt: skip
        found = function(p)
        assert found.dtype == bool
        np.testing.assert_array_equal(session.run(found, {p: x}), numpy(x))
    np.testing.assert_array_equal(session.run(graphc.copysign(3.0, p), {p: x}), np.copysign(np.float32(3), x))


def test_integers_become_float32() -> None:
    n = graphc.placeholder((2,), dtype="int64")
    unary = (
        graphc.exp2, graphc.log2, graphc.log10, graphc.erf, graphc.erfc, graphc.rsqrt, graphc.reciprocal, graphc.sin,
        graphc.tan, graphc.acos, graphc.sinh, graphc.atanh,
    )  # fmt: skip
    for function in unary:
        assert function(n).dtype == np.float32
    for binary in (graphc.hypot, graphc.atan2, graphc.logaddexp):
        assert binary(n, 1).dtype == binary(1, n).dtype == np.float32
    for rounding in (graphc.floor, graphc.ceil, graphc.trunc, graphc.round):
        assert rounding(n).dtype == np.int64


# A chain of integer primitives in one kernel, as random number generators use.


def test_wrapping_arithmetic_in_one_kernel(cpu: graphc.Session) -> None:
    rng = np.random.default_rng(1)
    x, y = (rng.integers(0, 2**32, 4096, dtype=np.uint32) for _ in range(2))
    p, q = (graphc.placeholder((4096,), dtype="uint32") for _ in range(2))

    def mix(a: Any, b: Any, wide: Callable[[Any], Any], narrow: Callable[[Any], Any]) -> Any:
        product = wide(a) * wide(b)
        high, low = narrow(product >> 32), narrow(product)
        a, b = high ^ b ^ 0x9E3779B9, low * 0xD2511F53
        turned = (a << 13) | (a >> 19)
        return (turned + ~b) ^ (b & 0xFFFF0000)

    step = cpu.compile(mix(p, q, lambda t: t.astype("uint64"), lambda t: t.astype("uint32")), feeds=[p, q])
    expected = mix(x, y, lambda t: t.astype(np.uint64), lambda t: t.astype(np.uint32))
    assert len(step.kernels) == 1
    np.testing.assert_array_equal(step(x, y), expected)
