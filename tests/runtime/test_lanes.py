"""Reductions along rows of any length: each element in its lane, lanes in one tree, nothing read or written beside the
row.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import sys
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import pytest
from numba import cfunc

import graphc
from runtime.cpu import intrinsics, lanes
from runtime.cpu.intrinsics import stack
from runtime.cpu.lanes import copy_first_lanes, copy_lanes, load_first_lanes
from runtime.cpu.machine_code import FLAGS, KERNEL_TYPE
from runtime.cpu.scalars import LANES

Array = np.ndarray[Any, Any]
F32 = np.float32
WIDTHS = (*range(70), 79, 80, 81, 127, 128, 129, 191, 192, 193, 1000, 1023)
DTYPES = ("int8", "uint8", "int16", "int64", "uint64", "float32", "float64")


def in_lanes(row: Array, combine: Callable[[Array, Array], Array], identity: float) -> Any:
    """A row reduced as kernels do: element ``j`` into lane ``j % LANES``, then the upper half into the lower half."""
    found = np.full(LANES, identity, row.dtype)
    for first in range(0, len(row), LANES):
        part = row[first : first + LANES]
        found[: len(part)] = combine(found[: len(part)], part)
    while len(found) > 1:
        half = len(found) // 2
        found = combine(found[:half], found[half:])
    return found[0]


def reduced(form: Callable[[graphc.Tensor], Any], x: Array) -> list[Array]:
    tensor = graphc.placeholder((None, None), x.dtype, name="x")
    with graphc.Session() as session:
        return [np.asarray(v) for v in session.run(form(tensor), {tensor: x})]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("width", WIDTHS)
def test_sums_have_the_bits_of_the_tree(width: int, dtype: str) -> None:
    x = np.random.default_rng(width).standard_normal((5, width)).astype(dtype)
    (alone,) = reduced(lambda t: [graphc.sum(t, 1)], x)
    scaled, elements = reduced(lambda t: [graphc.sum(t * 3, 1), t * 3], x)
    for k, row in enumerate(x):
        assert alone[k] == in_lanes(row, np.add, 0)
        assert scaled[k] == in_lanes(row * x.dtype.type(3), np.add, 0)
    assert (elements == x * x.dtype.type(3)).all()


@pytest.mark.parametrize("width", [w for w in WIDTHS if w])
def test_extrema_of_every_length(width: int) -> None:
    x = np.random.default_rng(width).standard_normal((width + 1, width)).astype(F32)
    x[np.arange(width), np.arange(width)] = np.nan  # at each place in turn
    largest, smallest, first = reduced(lambda t: [t.max(1), t.min(1), graphc.argmax(t, 1)], x)
    assert np.isnan(largest[:-1]).all()
    assert np.isnan(smallest[:-1]).all()
    assert largest[-1] == x[-1].max()
    assert smallest[-1] == x[-1].min()
    assert (first == np.argmax(x, 1)).all()
    x = -np.abs(x[-1:]) - 1  # what pads a row, 0, must not be the largest
    assert reduced(lambda t: [t.max(1)], x)[0] == x.max()


@pytest.mark.parametrize("width", [1, 10, 16, 63, 64, 65, 100, 129])
def test_rows_in_which_padding_would_be_seen(width: int) -> None:
    """Of 0, the quotient is infinite, the logarithm too, the product 0, and ``any`` of a negation true."""
    x = (1 + np.random.default_rng(width).random((40, width))).astype(np.float64)
    quotients, logarithms, products, some, every = reduced(
        lambda t: [(1 / t).sum(1), graphc.log(t).sum(1), graphc.prod(t, 1), (t < 1).any(1), (t >= 1).all(1)], x
    )
    within = 1e-15 * (width + 4)  # a rounding for each operation, of values with one sign
    np.testing.assert_allclose(quotients, (1 / x).sum(1), rtol=within)
    np.testing.assert_allclose(logarithms, np.log(x).sum(1), rtol=within)
    np.testing.assert_allclose(products, x.prod(1), rtol=within)
    assert not some.any()
    assert every.all()


def copier(dtype: str) -> Any:
    """``given`` elements from the second array to the first, through lanes that were all ones; then all lanes to the
    third.
    """
    element = getattr(numba, dtype)
    pointer = getattr(intrinsics, f"ptr_{dtype}")
    words = intrinsics.ptr_int64

    def copy(args, scratch, lo, hi):  # type: ignore[no-untyped-def]
        w = words(args)
        found = stack(element(0), 64)
        for k in range(64):
            found[k] = element(1)
        load_first_lanes(found, pointer(w[1]), w[3], 64)
        copy_first_lanes(pointer(w[0]), found, w[3], 64)
        copy_lanes(pointer(w[2]), found, 64)

    return cfunc(KERNEL_TYPE, **FLAGS)(copy)


def copied(function: Any, *arrays: Array, given: int) -> None:
    words = np.array([*(a.ctypes.data for a in arrays), given], np.int64)
    function.ctypes(words.ctypes.data, 0, 0, 0)


@functools.cache
def copiers() -> dict[tuple[str, bool], Any]:
    """By dtype, and whether the machine is said to have masks."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        for dtype in DTYPES:
            found[dtype, True] = copier(dtype)
        patch.setattr(lanes, "_masked_at_once", lambda itemsize: False)
        for dtype in DTYPES:
            found[dtype, False] = copier(dtype)
    return found


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_first_lanes_and_no_others(dtype: str, masks: bool) -> None:
    copy = copiers()[dtype, masks]
    for given in range(LANES + 1):
        source = np.random.default_rng(given).integers(1, 100, LANES).astype(dtype)
        target, seen = np.full(LANES + 8, 77, dtype), np.full(LANES, 77, dtype)
        copied(copy, target[4:], source, seen, given=given)
        assert (target[4 : 4 + given] == source[:given]).all()
        assert (target[:4] == 77).all()
        assert (target[4 + given :] == 77).all()
        assert (seen == np.where(np.arange(LANES) < given, source, 0)).all()


@pytest.mark.skipif(sys.platform != "linux", reason="protects a page of memory with Linux's own call")
@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_nothing_beyond_the_last_page_is_touched(dtype: str, masks: bool) -> None:
    page = mmap.PAGESIZE
    with mmap.mmap(-1, 2 * page) as memory:
        whole = np.frombuffer(memory, np.uint8)
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        second = ctypes.c_void_p(whole.ctypes.data + page)
        assert protect(second, ctypes.c_size_t(page), 0) == 0
        try:
            last = whole[:page].view(dtype)
            for given in (0, 1, 7, 16, 17, 63, 64):
                row = last[len(last) - given :] if given else last[:0]
                row[:] = np.arange(given) + 1
                seen = np.zeros(LANES, dtype)
                copied(copiers()[dtype, masks], row, row, seen, given=given)
                assert (row == np.arange(given) + 1).all()
                assert (seen[:given] == row).all()
        finally:
            assert protect(second, ctypes.c_size_t(page), 3) == 0
            del whole, last, row
