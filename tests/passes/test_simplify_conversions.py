"""Simplified chains of conversions; and that nothing is dropped which can fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from rewrite_checks import applied, evaluated, graph_of, ops_in, run, same_bits, special

import graphc as gc
from graphc import ops
from graphc.errors import IndexRangeError
from graphc.node import Tensor
from passes.simplify import simplify

# Conversions: every chain of three dtypes, by exhaustion.


@pytest.mark.parametrize("first", ["bool", "int8", "uint8", "int32", "uint32", "int64", "uint64", "float32", "float64"])
def test_conversions(first: str) -> None:
    """A chain that is shortened gives the same bits; one that is not would have given others, or mixes kinds."""
    names = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"]
    values = special(first)
    if first == "float64":
        values = np.concatenate([values, [1 + 2.0**-40, 300.7, -1.2, 2.0**31, 2.0**63, 1e300]])
    elif np.dtype(first).itemsize == 8:
        values = np.concatenate([values, np.array([2**24 + 1, 2**53 + 1, 2**31, 300], first)])
    x = gc.placeholder((len(values),), first, name="x")
    needed = 0
    for between in names:
        for last in names:
            y = x.astype(between).astype(last)
            graph, fired = applied(simplify, y)
            kept = ops_in(graph_of(y))["astype"] == ops_in(graph)["astype"]
            assert kept != bool(fired)
            if not kept:
                same_bits(*evaluated(graph, {x: values}), *evaluated(graph_of(y), {x: values}))
            else:
                needed += ops_in(graph)["astype"] == 2
    assert (needed == 0) == (first == "bool"), "some chains lose something"


@pytest.mark.parametrize(
    ("first", "between", "last"),
    [
        ("float32", "int32", "float32"), ("int64", "float64", "int64"), ("int32", "float32", "int32"),
        ("float64", "float32", "float64"), ("int8", "uint8", "int16"), ("int16", "int8", "int16"),
        ("int8", "float32", "uint8"), ("int64", "bool", "int64"), ("uint8", "int8", "float32"),
    ],
)  # fmt: skip
def test_conversions_that_lose_something_stay(first: str, between: str, last: str) -> None:
    x = gc.placeholder((3,), first, name="x")
    assert applied(simplify, x.astype(between).astype(last))[1] == {}


@pytest.mark.parametrize(
    ("first", "between", "last", "left"),
    [
        ("bool", "int8", "bool", 0), ("int8", "int64", "int8", 0), ("int8", "uint8", "int8", 0),
        ("float32", "float64", "float32", 0), ("int16", "float32", "int16", 0), ("int64", "int32", "int8", 1),
        ("int8", "int32", "uint16", 1), ("bool", "float32", "int8", 1), ("float32", "float64", "int8", 1),
        ("int32", "float64", "float32", 1), ("int32", "int64", "float32", 1),
    ],
)  # fmt: skip
def test_conversions_that_lose_nothing_go(first: str, between: str, last: str, left: int) -> None:
    x = gc.placeholder((3,), first, name="x")
    graph, fired = applied(simplify, x.astype(between).astype(last))
    assert fired == {"conversion_of_conversion": 1}
    assert ops_in(graph)["astype"] == left


# What can fail is not dropped.


def _inner_choice(condition: Tensor, i: Tensor) -> Tensor:
    return gc.where(condition, gc.where(condition, gc.zeros_like(i), i), gc.ones_like(i))


DROPPED: dict[str, Callable[[Tensor], Tensor]] = {
    "i * 0": lambda i: i * 0,
    "i - i": lambda i: i - i,
    "i == i": lambda i: i == i,
    "i < i": lambda i: i < i,
    "i & 0": lambda i: ops.bitwise_and(i, 0),
    "b and False": lambda i: gc.logical_and(i > 0, False),
    "where(True, x, i)": lambda i: gc.where(gc.constant(True), gc.zeros_like(i), i),
    "where(i > 0, x, x)": lambda i: gc.where(i > 0, *[gc.placeholder((2,), "int64", name="other")] * 2),
    "where(c, where(c, x, i), y)": lambda i: _inner_choice(gc.placeholder((2,), "int64", name="other") > 0, i),
    "behind a reduction": lambda i: gc.sum(i) * 0,
}  # fmt: skip


@pytest.mark.parametrize("name", DROPPED)
@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_an_index_out_of_range_is_found_though_nothing_needs_it(name: str, device: str) -> None:
    x = gc.placeholder((2,), "int64", name="x")
    y = DROPPED[name](ops.check_index(x, 3))
    feeds: dict[Any, Any] = {x: [0, 7]}
    if any(n.name == "other" for n in graph_of(y).nodes):
        feeds["other"] = [1, 0]
    with pytest.raises(IndexRangeError):
        run(y, feeds, device)


def test_one_hot_checks_its_indices_before_it_is_decomposed() -> None:
    x = gc.placeholder((2,), "int64", name="x")
    with pytest.raises(IndexRangeError):
        run(gc.one_hot(x, 3, "int32") * 0, {x: [0, 7]})
