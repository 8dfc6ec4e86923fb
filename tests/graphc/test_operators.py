"""Python's operators on tensors: NumPy's values and dtypes, both ways round, and what a symbol refuses.

The kernels of the ops behind them are compared with the reference in tests/registry; here only shifts, by every count.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.errors import DTypeError, SymbolicError

ARITHMETIC = [operator.floordiv, operator.mod]
BITS = [operator.and_, operator.or_, operator.xor]
SHIFTS = [operator.lshift, operator.rshift]
INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]


@pytest.fixture(scope="module")
def session() -> Iterator[graphc.Session]:
    with graphc.Session(device="reference") as found:
        yield found


def numbers(dtype: str) -> np.ndarray:
    if dtype.startswith("float"):
        return np.array([7.5, -7.5, 0.0, -0.0, 2.0, np.inf, np.nan], dtype)
    info = np.iinfo(dtype)
    return np.array([7, 1, 0, 100, info.max, info.min, info.max - 1], dtype)


def check(session: graphc.Session, function: Callable[..., Any], *operands: Any) -> None:
    """``function`` of tensors is what it is of arrays; Python numbers stay what they are."""
    feeds = {}
    given = []
    for value in operands:
        if isinstance(value, np.ndarray):
            tensor = graphc.placeholder(value.shape, dtype=value.dtype)
            feeds[tensor] = value
            given.append(tensor)
        else:
            given.append(value)
    found = function(*given)
    with np.errstate(all="ignore"):
        expected = np.asarray(function(*operands))
    got = session.run(found, feeds)
    assert found.dtype == got.dtype == expected.dtype
    np.testing.assert_array_equal(got, expected)
    if expected.dtype.kind == "f":
        np.testing.assert_array_equal(np.signbit(got), np.signbit(expected))


@pytest.mark.parametrize("dtype", [*INTEGERS, "float32", "float64"])
@pytest.mark.parametrize("function", ARITHMETIC)
def test_division_with_remainder(session: graphc.Session, function: Callable[..., Any], dtype: str) -> None:
    x = numbers(dtype)
    check(session, function, x, x[::-1].copy())
    check(session, function, x, 3)
    check(session, function, 3, x)
    if dtype[0] != "u":
        check(session, function, x, -3)
        check(session, function, -3, x)


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("function", BITS + SHIFTS)
def test_bits(session: graphc.Session, function: Callable[..., Any], dtype: str) -> None:
    x = numbers(dtype)
    check(session, function, x, x[::-1].copy())
    check(session, function, x, 5)
    check(session, function, 5, x)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_every_shift(session: graphc.Session, dtype: str) -> None:
    info = np.iinfo(dtype)
    values, counts = np.meshgrid(np.array([1, info.max, info.min], dtype), np.arange(info.bits + 3).astype(dtype))
    with graphc.Session(device="cpu", threads=1) as cpu:
        for function in SHIFTS:
            for device in (session, cpu):
                check(device, function, values, counts)


@pytest.mark.parametrize("function", BITS)
def test_bools_are_logical(session: graphc.Session, function: Callable[..., Any]) -> None:
    x, y = np.array([True, True, False, False]), np.array([True, False, True, False])
    check(session, function, x, y)
    check(session, function, x, True)
    check(session, function, False, x)
    check(session, function, x, np.array([1, 2, 3, 4], np.int32))


@pytest.mark.parametrize("dtype", [*INTEGERS, "bool"])
def test_invert(session: graphc.Session, dtype: str) -> None:
    x = np.array([True, False]) if dtype == "bool" else numbers(dtype)
    check(session, operator.invert, x)


def test_divmod(session: graphc.Session) -> None:
    x = np.array([7.5, -7.5, 3.0], np.float32)
    for left, right in ((x, 2.0), (2.0, x), (x, x[::-1].copy())):
        check(session, lambda a, b: divmod(a, b)[0], left, right)
        check(session, lambda a, b: divmod(a, b)[1], left, right)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "uint8"])
def test_rounding(session: graphc.Session, dtype: str) -> None:
    x = numbers(dtype) if dtype[0] != "f" else np.array([0.5, 1.5, 2.5, -0.5, -1.5, 1e30, np.nan, -np.inf], dtype)
    tensor = graphc.placeholder(x.shape, dtype=dtype)
    found = session.run([round(tensor), math.floor(tensor), math.ceil(tensor), math.trunc(tensor)], {tensor: x})
    for got, numpy in zip(found, (np.round, np.floor, np.ceil, np.trunc), strict=True):
        expected = numpy(x) if dtype[0] == "f" else x
        assert got.dtype == x.dtype
        np.testing.assert_array_equal(got, expected)
        assert (np.signbit(got) == np.signbit(expected)).all()


def test_rounding_to_digits_is_refused() -> None:
    with pytest.raises(DTypeError, match=r"round: to whole numbers only, got 2 digits; write round\(x \* 10\*\*2\)"):
        round(graphc.placeholder((2,)), 2)


@pytest.mark.parametrize("function", BITS + SHIFTS)
def test_floats_have_no_bits(function: Callable[..., Any]) -> None:
    name = {"and_": "and", "or_": "or", "lshift": "left_shift", "rshift": "right_shift"}.get(
        function.__name__, function.__name__
    )
    with pytest.raises(DTypeError, match=rf"bitwise_{name}: operands must be signed integer or unsigned integer"):
        function(graphc.placeholder((2,)), 1)
    with pytest.raises(DTypeError, match=r"bitwise_invert: operands must be .*; compare first for a mask"):
        ~graphc.placeholder((2,))


@pytest.mark.parametrize("function", ARITHMETIC)
def test_bools_have_no_quotient(function: Callable[..., Any]) -> None:
    flag = graphc.placeholder((2,), dtype=bool)
    with pytest.raises(DTypeError, match="operands must be float or signed integer or unsigned integer, got bool"):
        function(flag, flag)


# What asks a symbol for its value.


def test_a_format_needs_a_value() -> None:
    x = graphc.placeholder((), name="x")
    with pytest.raises(SymbolicError, match=r"the format '\.3f' needs a value, and x: .* is symbolic"):
        f"{x:.3f}"
    assert f"{x}" == str(x)


@pytest.mark.parametrize(
    ("call", "advice"),
    [
        (np.sum, r"numpy\.sum\(\) needs a value.*Use graphc\.sum\(\)"),
        (lambda x: np.concatenate([x, x]), r"numpy\.concatenate\(\) needs a value.*Use graphc\.concat\(\)"),
        (lambda x: np.where(x > 0, x, 0), r"numpy\.where\(\) needs a value.*Use graphc\.where\(\)"),
        (np.linalg.norm, r"numpy\.linalg\.norm\(\) needs a value.*Compose it of graphc's functions"),
    ],
)
def test_functions_of_numpy_name_ours(call: Callable[..., Any], advice: str) -> None:
    with pytest.raises(SymbolicError, match=f"(?s){advice}"):
        call(graphc.placeholder((3,)))


def test_shapes_need_no_value() -> None:
    x = graphc.placeholder((3, 4))
    assert np.shape(x) == (3, 4)
    assert np.ndim(x) == 2


@pytest.mark.parametrize("ufunc", [np.exp, np.add, np.isnan])
def test_ufuncs_refuse_tensors_and_arrays_multiply_them(ufunc: Any) -> None:
    x = graphc.placeholder((3,))
    with pytest.raises(TypeError, match="does not support ufuncs"):
        ufunc(*(x for _ in range(ufunc.nin)))
    for built in (np.ones(3, np.float32) * x, np.float32(2) // x, np.ones(3, np.float32) % x):
        assert isinstance(built, graphc.Tensor)
        assert built.dtype == np.float32
