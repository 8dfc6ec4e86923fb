"""Kernels written by hand, called by themselves: every dtype, shapes that make many blocks, blocks in any order."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np
import pytest
from numba import cfunc

from graphc.dtypes import SUPPORTED
from graphc.opdef import OPS, Kind
from runtime.cpu.machine_code import KERNEL_TYPE
from runtime.cpu.routines import ROUTINES, RoutineGrid

Array = np.ndarray[Any, Any]
DTYPES = [str(d) for d in SUPPORTED if d.kind != "b"]
CALL = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)
# (outer, n, inner): nothing, one element, odd sizes, and sizes that are cut along each of the axes.
SHAPES = [
    (0, 3, 2), (2, 0, 3), (2, 3, 0), (1, 1, 1), (3, 7, 1), (2, 5, 9), (900, 40, 1), (3, 70, 300), (1, 30_000, 1),
    (1, 90, 700), (2, 1000, 65),
]  # fmt: skip


@cache
def compiled(name: str, dtype: str) -> Any:
    label, text = ROUTINES[name].source(np.dtype(dtype))
    namespace: dict[str, Any] = {}
    exec(text.replace("{name}", label), namespace)
    return cfunc(KERNEL_TYPE, error_model="numpy")(namespace[label])


def run(name: str, dtype: str, sizes: tuple[int, ...], operands: list[Array], parts: int) -> RoutineGrid:
    """Call the kernel on its blocks, in ``parts`` pieces, the last one first."""
    grid = ROUTINES[name].grid(sizes)
    words = np.array([*sizes, *grid.words, *(a.ctypes.data for a in operands)], np.int64)
    function = CALL(compiled(name, dtype).address)
    for part in reversed(range(parts)):
        low, high = (grid.blocks * p // parts for p in (part, part + 1))
        if low < high:
            function(words.ctypes.data, 0, low, high)
    return grid


def same(found: Array, expected: Array) -> bool:
    return found.dtype == expected.dtype and np.array_equal(found, expected, equal_nan=found.dtype.kind == "f")


def drawn(shape: tuple[int, ...], dtype: str, seed: int) -> Array:
    values = np.random.default_rng(seed).uniform(-3, 3, shape)
    return (np.abs(values) if dtype.startswith("u") else values).astype(dtype)


def garbage(shape: tuple[int, ...], dtype: str) -> Array:
    """What memory holds before a kernel fills it."""
    return np.full(shape, 77, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reverse", [0, 1])
def test_running_sums_and_recurrences(dtype: str, reverse: int) -> None:
    for shape in SHAPES:
        a, b = drawn(shape, dtype, 1), drawn(shape, dtype, 2)
        order = slice(None, None, -1 if reverse else 1)
        with np.errstate(all="ignore"):
            sums = np.cumsum(b[:, order], axis=1, dtype=dtype)[:, order]
            recurrence = garbage(shape, dtype)
            for i in range(shape[1])[order]:
                before = i + (1 if reverse else -1)
                inside = 0 <= before < shape[1]
                recurrence[:, i] = a[:, i] * recurrence[:, before] + b[:, i] if inside else b[:, i]
        for parts in (1, 2, 7):
            found = garbage(shape, dtype)
            run("cumulative_sum", dtype, (*shape, reverse), [b, found], parts)
            assert same(found, sums), (shape, parts)
            found = garbage(shape, dtype)
            run("linear_recurrence", dtype, (*shape, reverse), [a, b, found], parts)
            assert same(found, recurrence), (shape, parts)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("per_row", [0, 1])
def test_scatter_adds_in_the_order_of_the_updates(dtype: str, per_row: int) -> None:
    rng = np.random.default_rng(3)
    for shape in SHAPES:
        outer, count, inner = shape
        updates = drawn(shape, dtype, 4)
        for extent in (1, 5, 3000 if shape[0] * shape[2] < 100 else 40):
            at = rng.integers(0, extent, shape if per_row else count)
            expected = np.zeros((outer, extent, inner), dtype)
            places = np.ogrid[tuple(slice(e) for e in shape)]
            np.add.at(expected, (places[0], at if per_row else at[:, None], places[2]), updates)
            for parts in (1, 2, 7):
                found = garbage(expected.shape, dtype)
                run("scatter_add", dtype, (outer, extent, inner, count, per_row), [at, updates, found], parts)
                assert same(found, expected), (shape, extent, parts)


@pytest.mark.parametrize("per_row", [0, 1])
def test_scatter_writes_nothing_outside_its_result(per_row: int) -> None:
    """Whatever the indices are; the check before it reports them."""
    at = np.array([-1, 3, 2**62, -(2**62), 1], np.int64)
    fence = np.full((3, 3), 7.0)
    run("scatter_add", "float64", (1, 3, 1, 5, per_row), [at, np.ones(5), fence[1]], 1)
    assert np.array_equal(fence, [[7, 7, 7], [0, 1, 0], [7, 7, 7]])


def test_special_values() -> None:
    """NaN and infinities go where they belong and nowhere else."""
    x = np.array([[1, np.nan, 2], [np.inf, -np.inf, 1], [-0.0, -0.0, 0.0]])
    found = garbage((3, 3), "float64")
    run("cumulative_sum", "float64", (3, 3, 1, 0), [x, found], 1)
    assert same(found, np.array([[1, np.nan, np.nan], [np.inf, np.nan, np.nan], [-0.0, -0.0, 0.0]]))
    assert np.array_equal(np.signbit(found[2]), [True, True, False])
    at = np.array([2, 0, 2])
    run("scatter_add", "float64", (1, 3, 3, 3, 0), [at, x, found], 1)
    assert same(found, np.array([[np.inf, -np.inf, 1], [0, 0, 0], [1, np.nan, 2]]))


@pytest.mark.parametrize("name", ["cumulative_sum", "linear_recurrence", "scatter_add"])
def test_large_calls_have_blocks_for_several_threads(name: str) -> None:
    wide = {
        "scatter_add": [(64, 500, 64, 500, 0), (1, 10**5, 64, 10**5, 0), (1, 10**6, 1, 10**6, 0), (1, 500, 5000, 40, 1)]
    }
    for sizes in wide.get(name, [(1000, 1000, 1, 0), (1, 500, 5000, 0), (8, 300, 200, 1)]):
        grid = ROUTINES[name].grid(sizes)
        assert 4 <= grid.blocks <= 10_000
        assert grid.work > 0
        small = ROUTINES[name].grid(tuple(min(s, 3) for s in sizes))
        assert small.blocks == 1


def test_every_routine_of_an_op_exists() -> None:
    """By the names that the ops give, on samples of their own."""
    names = {"cumulative_sum", "linear_recurrence", "scatter_add", "permutation"}
    assert {op.name for op in OPS.values() if op.kind is Kind.ROUTINE} == names == set(ROUTINES)
