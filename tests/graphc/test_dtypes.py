"""dtypes: promotion against NumPy's, weak scalars, the float32 default, and what is refused."""

from __future__ import annotations

import itertools
import operator
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import graphc
from graphc.dtypes import SUPPORTED, as_dtype
from graphc.errors import DTypeError, PrecisionWarning, ShapeError

NAMES = [str(d) for d in SUPPORTED]
NUMERIC = [n for n in NAMES if n != "bool"]
INTEGERS = [n for n in NUMERIC if "float" not in n]


def tensor(dtype: str) -> graphc.Tensor:
    return graphc.placeholder((2,), dtype=dtype)


@pytest.mark.parametrize(("a", "b"), list(itertools.product(NUMERIC, NUMERIC)))
def test_tensors_meet_as_in_numpy(a: str, b: str) -> None:
    assert (tensor(a) * tensor(b)).dtype == np.promote_types(a, b)
    assert (tensor(a) < tensor(b)).dtype == bool


@pytest.mark.parametrize(("a", "b"), list(itertools.product(INTEGERS, INTEGERS)))
def test_true_division_of_integers_gives_float32(a: str, b: str) -> None:
    meet = np.promote_types(a, b)
    assert (tensor(a) / tensor(b)).dtype == (np.float64 if meet == np.float64 else np.float32)


@pytest.mark.parametrize("dtype", NUMERIC)
@pytest.mark.parametrize("function", [operator.add, operator.mul, operator.sub])
@pytest.mark.parametrize("number", [3, np.int64(3), np.uint8(3), True])
def test_an_integer_takes_the_tensors_dtype(dtype: str, function: Callable[..., Any], number: Any) -> None:
    for result in (function(tensor(dtype), number), function(number, tensor(dtype))):
        assert result.dtype == dtype


@pytest.mark.parametrize("dtype", NUMERIC)
@pytest.mark.parametrize("number", [0.5, np.float64(0.5), np.float32(0.5)])
def test_a_float_beside_integers_gives_float32(dtype: str, number: Any) -> None:
    expected = dtype if dtype.startswith("float") else "float32"
    for result in (tensor(dtype) * number, number * tensor(dtype), tensor(dtype) / number, tensor(dtype) < number):
        assert result.dtype in (np.dtype(expected), np.dtype(bool))
        assert {i.dtype for i in result.node.inputs} == {np.dtype(expected)}


def test_scalars_are_weak_beside_bools() -> None:
    flag = tensor("bool")
    assert graphc.where(flag, 1, 2).dtype == np.int64
    assert graphc.where(flag, 1.0, 2).dtype == np.float32
    assert graphc.where(flag, tensor("int8"), 2).dtype == np.int8
    assert (flag == True).dtype == bool  # noqa: E712
    assert graphc.sum(flag).dtype == np.int64
    assert graphc.mean(flag).dtype == np.float32


def test_two_scalars() -> None:
    assert graphc.add(1, 2).dtype == np.int64
    assert graphc.add(1.0, 2).dtype == np.float32
    assert graphc.add(1, 2.0).dtype == np.float32


@pytest.mark.parametrize(
    ("dtype", "number"), [("int8", 128), ("uint8", -1), ("uint8", 256), ("int32", 2**31), ("int64", 2**63)]
)
def test_a_python_int_that_does_not_fit(dtype: str, number: int) -> None:
    info = np.iinfo(dtype)
    with pytest.raises(
        DTypeError, match=f"{number} does not fit {dtype}, whose values go from {info.min} to {info.max}"
    ):
        tensor(dtype) + number


def test_the_ends_fit() -> None:
    for dtype in INTEGERS:
        info = np.iinfo(dtype)
        assert (tensor(dtype) + info.max).dtype == dtype
        assert (tensor(dtype) + info.min).dtype == dtype


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (1, "int64"), (1.0, "float32"), (True, "bool"), ([1, 2], "int64"), ([1.0, 2], "float32"), ([[True]], "bool"),
        ([], "float32"), (np.float64(1), "float64"), (np.int8(1), "int8"), (np.zeros(2), "float64"),
        (np.zeros(2, "uint16"), "uint16"), (np.zeros(2, ">f4"), "float32"), (np.zeros(2, ">i8"), "int64"),
    ],
)  # fmt: skip
def test_constants_and_parameters(value: Any, dtype: str) -> None:
    whole_list = (
        isinstance(value, list) and dtype == "int64"
    )  # a list gives a parameter float32, so that it can be trained
    for made, expected in (
        (graphc.constant(value), dtype),
        (graphc.parameter(value), "float32" if whole_list else dtype),
    ):
        assert made.dtype == np.dtype(expected)
        assert made.dtype.isnative
        assert made.shape == np.shape(value)
    assert graphc.constant(value, dtype="float64").dtype == np.float64


def test_a_dtype_asked_for_holds_the_values() -> None:
    with pytest.raises(DTypeError, match=r"constant: values from -1 to 300 do not fit int8 \(-128 to 127\)"):
        graphc.constant([300, -1], dtype="int8")
    with pytest.raises(DTypeError, match=r"parameter 'p': values from -1 to -1 do not fit uint8"):
        graphc.parameter(-1, dtype="uint8", name="p")
    with graphc.Session(device="reference") as session:
        assert session.run(graphc.constant([1.7, np.nan, -np.inf], dtype="int8")).tolist() == [1, 0, -128]


@pytest.mark.parametrize("value", [0.1, [0.1]])
def test_a_dtype_asked_for_loses_nothing_on_the_way(value: Any) -> None:
    with graphc.Session(device="reference") as session:
        for made in (graphc.constant(value, dtype="float64"), graphc.parameter(value, dtype="float64")):
            assert np.array_equal(session.run(made), np.asarray(value))


def test_a_constant_is_the_callers_no_more() -> None:
    array = np.ones(3, np.float32)
    made = graphc.constant(array)
    array[:] = 7
    with graphc.Session(device="reference") as session:
        assert np.array_equal(session.run(made), np.ones(3))
    with pytest.raises(ValueError, match="read-only"):
        made.node.attrs["value"][0] = 2


@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16])
def test_narrow_floats_are_refused_with_advice(dtype: Any) -> None:
    with pytest.raises(
        DTypeError, match=r"is not supported; use one of bool, int8.*convert the data with .astype\('float32'\)"
    ):
        graphc.placeholder((2,), dtype=dtype)


@pytest.mark.parametrize("dtype", ["complex64", "datetime64[s]", "U3", object, "longdouble"])
def test_other_dtypes_are_refused(dtype: Any) -> None:
    with pytest.raises(DTypeError, match=r"^dtype .* is not supported; use one of bool, "):
        as_dtype(dtype)


@pytest.mark.parametrize("dtype", ["flaot32", 7, [1, 2]])
def test_what_is_no_dtype(dtype: Any) -> None:
    with pytest.raises(DTypeError, match="is not a dtype; use one of bool"):
        as_dtype(dtype)


@pytest.mark.parametrize("value", ["text", [None], np.array([object()]), 1j, np.array(["a"])])
def test_values_that_are_no_numbers(value: Any) -> None:
    with pytest.raises(DTypeError, match=r"constant: an array of dtype .* holds no plain numbers"):
        graphc.constant(value)


def test_a_ragged_list() -> None:
    with pytest.raises(ShapeError, match="constant: the nested list is ragged"):
        graphc.constant([[1, 2], [3]])


def test_complex_numbers_beside_tensors() -> None:
    with pytest.raises(DTypeError, match="graphc computes with real numbers only"):
        tensor("float32") * 1j


@pytest.mark.parametrize("function", [graphc.logical_and, graphc.logical_or])
def test_logic_takes_bools(function: Callable[..., Any]) -> None:
    with pytest.raises(DTypeError, match="operands of a logical op must be bool, got int32"):
        function(tensor("int32"), tensor("int32"))


def test_arithmetic_refuses_bools() -> None:
    with pytest.raises(DTypeError, match="add: operands must be float or signed integer or unsigned integer, got bool"):
        tensor("bool") + tensor("bool")


def test_integer_powers() -> None:
    assert (tensor("int32") ** 3).dtype == np.int32
    assert (tensor("int32") ** 0).dtype == np.int32
    assert (tensor("int32") ** 0.5).dtype == np.float32
    assert (tensor("int32") ** 5).dtype == (5 ** tensor("int32")).dtype == np.int32
    assert (tensor("int8") ** tensor("int32")).dtype == np.int32
    with pytest.raises(DTypeError, match="pow: operands must be float or signed integer or unsigned integer, got bool"):
        tensor("bool") ** tensor("bool")


@pytest.mark.parametrize("function", [operator.and_, operator.or_, operator.xor, operator.floordiv, operator.mod])
@pytest.mark.parametrize(("a", "b"), [("int8", "int16"), ("uint8", "int8"), ("uint32", "int32"), ("uint8", "uint64")])
def test_integer_operators_meet_as_in_numpy(function: Callable[..., Any], a: str, b: str) -> None:
    assert function(tensor(a), tensor(b)).dtype == np.promote_types(a, b)
    assert function(tensor(a), 1).dtype == function(1, tensor(a)).dtype == a


def test_bits_of_a_bool_and_an_integer() -> None:
    assert (tensor("bool") & tensor("int16")).dtype == np.int16
    assert (tensor("bool") | 1).dtype == np.int64
    assert (tensor("bool") ^ True).dtype == bool
    with pytest.raises(DTypeError, match="bitwise_and: operands must be signed integer or unsigned integer"):
        tensor("int64") & tensor("uint64")  # they meet in float64


def test_functions_of_integers_give_float32() -> None:
    for function in (graphc.exp, graphc.log, graphc.sqrt, graphc.tanh, graphc.mean, graphc.softmax):
        assert function(tensor("int64")).dtype == np.float32


# float64 out of float32.


def caught(build: Callable[[], object]) -> list[warnings.WarningMessage]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        build()
    return [w for w in found if w.category is PrecisionWarning]


def test_float64_out_of_float32_warns_once_a_line() -> None:
    def build() -> None:
        for _ in range(3):
            tensor("float32") * tensor("float64")

    found = caught(build)
    assert len(found) == 1
    text = str(found[0].message)
    line = build.__code__.co_firstlineno + 2
    assert f"float32 and float64 meet in float64 at {Path('tests/graphc/test_dtypes.py')}:{line} in build" in text
    assert "use .astype('float32')" in text
    assert (found[0].filename, found[0].lineno) == (__file__, line)
    assert len(caught(lambda: tensor("float32") * np.zeros(2))) == 1


def test_what_does_not_warn() -> None:
    assert not caught(lambda: tensor("float32") * 2.5)
    assert not caught(lambda: tensor("float32") * np.float64(2.5))
    assert not caught(lambda: tensor("float64") * tensor("int32"))
    assert not caught(lambda: tensor("float32").astype("float64") * tensor("float64"))
    assert not caught(lambda: tensor("float32") * [1.0, 2.0])


def test_a_warning_made_an_error_is_raised_every_time() -> None:
    def build() -> None:
        tensor("float32") * tensor("float64")

    with warnings.catch_warnings():
        warnings.simplefilter("error", PrecisionWarning)
        for _ in range(2):
            with pytest.raises(PrecisionWarning):
                build()
