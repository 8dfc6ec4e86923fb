"""Reductions along rows of any length: each element in its lane, lanes in one tree, nothing read or written beside the
row.
"""

from __future__ import annotations

import ctypes
import functools
import json
import mmap
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from numba import cfunc

import graphc
from passes.program import LoopCall
from runtime.cpu import intrinsics, lanes
from runtime.cpu.intrinsics import stack
from runtime.cpu.lanes import copy_first_lanes, copy_lanes, load_first_lanes
from runtime.cpu.machine_code import FLAGS, KERNEL_TYPE
from runtime.cpu.printer import kernel_source
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
    x = np.abs(x[-1:]) + 1  # what pads a row, 0, must be neither the smallest nor the largest
    assert reduced(lambda t: [t.min(1), (-t).max(1)], x) == [x.min(), -x.min()]


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


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int16", "int32", "int64", "uint64"])
def test_integers_in_rows_of_every_length(dtype: str) -> None:
    """Where padding would be divided by, or be the least factor."""
    for width in (1, 2, 15, 16, 17, 31, 33, 63, 64, 65, 100, 130):
        x = np.random.default_rng(width).integers(0 if dtype == "bool" else 1, 2 if dtype == "bool" else 4, (9, width))
        x = x.astype(dtype)
        expected = [x.sum(1), x.prod(1), x.any(1), x.all(1)]
        found = reduced(lambda t: [t.sum(1), graphc.prod(t, 1), t.any(1), t.all(1)], x)
        if dtype != "bool":
            expected += [x.min(1), x.max(1), (7 // x).sum(1), (x**3 % 5).max(1), np.argmin(x, 1)]
            found += reduced(lambda t: [t.min(1), t.max(1), (7 // t).sum(1), (t**3 % 5).max(1), graphc.argmin(t, 1)], x)
        for mine, right in zip(found, expected, strict=True):
            assert (mine == right).all()


PADDED: dict[str, tuple[Callable[[graphc.Tensor], Any], bool]] = {
    "straight": (lambda x: graphc.exp(x).sum(1), True),
    "with the elements": (lambda x: [graphc.exp(x).sum(1), graphc.exp(x)], True),
    "a library's remainder": (lambda x: (x % 3).sum(1), False),
    "a loop": (lambda x: graphc.pow(x.astype("int64"), x.astype("uint8").astype("int64")).sum(1), False),
    "strided": (lambda x: x[:, ::2].sum(1), False),
    "gathered": (lambda x: x[:, np.array([0, 2, 1])].sum(1), False),
}  # fmt: skip


@pytest.mark.parametrize("form", PADDED)
def test_what_is_padded(form: str) -> None:
    x = graphc.placeholder((None, 6), name="x")
    rule, padded = PADDED[form]
    with graphc.Session() as session:
        calls = session.compile(rule(x), [x]).kernels
    sources = [kernel_source(c.kernel, "k") for c in calls if isinstance(c, LoopCall)]
    assert any("load_first_lanes" in s for s in sources) == padded


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 255, 256, 257, 4096, 5000])
def test_one_long_row(size: int) -> None:
    x = np.random.default_rng(size).standard_normal(size).astype(F32)
    tensor = graphc.placeholder((None,), name="x")
    with graphc.Session() as session:
        assert session.run(graphc.sum(tensor), {tensor: x}) == in_lanes(x, np.add, 0)


SUMS = """
import numpy as np, graphc, json
from runtime.cpu import host
found = [sorted(host.features())]
for dtype in ("float32", "float64", "int8"):
    for width in (1, 10, 16, 63, 64, 65, 100, 130):
        x = (np.random.default_rng(width).standard_normal((5, width)) * 9).astype(dtype)
        t = graphc.placeholder((None, None), dtype, name="x")
        scaled = t * 3
        with graphc.Session() as session:
            found += [np.asarray(v).tobytes().hex() for v in session.run([scaled.sum(1), scaled, t.max(1)], {t: x})]
print(json.dumps(found))
"""


def test_a_machine_without_masks_has_the_same_bits(tmp_path: Path) -> None:
    """It copies what is left of rows byte by byte, and its vectors are shorter."""
    found = []
    for name, settings in (
        ("this", {}),
        ("plain", {"NUMBA_ENABLE_AVX": "0"}),
        ("other", {"NUMBA_CPU_NAME": "generic"}),
    ):
        environment = {**os.environ, "GRAPHC_CACHE_DIR": str(tmp_path / name), **settings}
        run = subprocess.run([sys.executable, "-c", SUMS], env=environment, capture_output=True, text=True, check=True)
        found.append(json.loads(run.stdout))
    assert found[0][1:] == found[1][1:] == found[2][1:]
    assert found[1][0] == found[2][0] == []


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


def copied(function: Any, *places: Array | int, given: int) -> None:
    """``places`` are arrays or addresses."""
    words = np.array([*(p if isinstance(p, int) else p.ctypes.data for p in places), given], np.int64)
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


masks_or_not = pytest.mark.parametrize("masks", [True, False])  # the same where the machine has none


@masks_or_not
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
@masks_or_not
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_nothing_beyond_the_last_page_is_touched(dtype: str, masks: bool) -> None:
    page = mmap.PAGESIZE
    with mmap.mmap(-1, 2 * page) as memory:
        whole = np.frombuffer(memory, np.uint8)
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        second = ctypes.c_void_p(whole.ctypes.data + page)
        assert protect(second, ctypes.c_size_t(page), 0) == 0
        last = whole[:page].view(dtype)
        try:
            for given in (0, 1, 7, 16, 17, 63, 64):
                last[:] = np.arange(len(last)) % 100
                source, seen = last[-given:].copy(), np.zeros(LANES, dtype)
                at = whole.ctypes.data + page - given * last.itemsize
                copied(copiers()[dtype, masks], at, at, seen, given=given)
                assert (last == np.arange(len(last)) % 100).all()
                assert (seen[:given] == source[:given]).all()
                copied(copiers()[dtype, masks], at, source[::-1].copy(), seen, given=given)
                assert (last[len(last) - given :] == source[:given][::-1]).all()
        finally:
            assert protect(second, ctypes.c_size_t(page), 3) == 0
            del whole, last
