"""graphc's own kernel for matrix products: every edge of its tiles, every form of operands, the same bits however a
result is cut, and nothing touched outside.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pytest

import graphc
from runtime.cpu import blas, cache, fixed_kernels, microkernel
from runtime.cpu.fixed_kernels import (
    GEMM_WORDS,
    MOST_OF_K,
    PANEL_BYTES,
    RESULT_BYTES,
    SCRATCH_BYTES,
    SHARED_BYTES,
    gemm_source,
)
from runtime.cpu.grid import SMALL_CALL
from runtime.cpu.products import DEEP_WORK, DIRECT, Product, Split, blocks_of, gemm_words, usual_split

Python = Callable[..., str]
OWN = blas.Library(blas.OWN, 0, 0)
KINDS = ["float32", "float64"]
GUARD = 77.0
Machine = tuple[int, int, bool]
MACHINES: list[Machine] = [(64, 32, True), (32, 16, True), (16, 32, True), (16, 16, False)]


def kernel(dtype: str) -> int:
    label, text = gemm_source(np.dtype(dtype))
    name = cache.kernel_name(label, text)
    return cache.kernel_cache.get(name, lambda: text.replace("{name}", name), cache.Counters()).address


@pytest.fixture(params=[None, *MACHINES], ids=str)
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Machine | None:
    """This machine, and tiles of other shapes: bytes of a register, registers, whether they multiply and add."""
    if request.param is not None:
        monkeypatch.setattr(microkernel, "_machine", lambda: request.param)
    return request.param


class Stored:
    """A matrix among guards, stored as it is or transposed, its rows ``gap`` elements further apart than need be."""

    def __init__(self, values: np.ndarray, transposed: bool = False, gap: int = 0) -> None:
        kept = values.T if transposed else values
        self.leading = kept.shape[1] + gap
        self.memory = np.full(64 + kept.shape[0] * self.leading + 64, GUARD, values.dtype)
        self.rows = self.memory[64 : 64 + kept.shape[0] * self.leading].reshape(kept.shape[0], self.leading)
        self.rows[:, : kept.shape[1]] = kept
        self.width = kept.shape[1]
        self.address = self.memory.ctypes.data + 64 * values.dtype.itemsize

    @property
    def values(self) -> np.ndarray:
        return self.rows[:, : self.width]

    def is_guarded(self) -> bool:
        outside = np.concatenate([self.memory[:64], self.memory[-64:], self.rows[:, self.width :].ravel()])
        return bool((outside == GUARD).all())


def multiply(
    a: np.ndarray, b: np.ndarray, c: np.ndarray, *, trans: tuple[bool, bool] = (False, False), gap: int = 0,
    factors: tuple[float, float] = (1.0, 0.0), by_columns: bool = False, parts: int = 1,
    cuts: tuple[float, ...] = (0.0, 1.0), together: int | None = None, along_k: bool = False, backwards: bool = False,
) -> np.ndarray:  # fmt: skip
    """``alpha * a @ b + beta * c`` through the kernel, each stretch between ``cuts`` of the blocks by a call; the last
    stretch first if ``backwards``.
    """
    (m, k), n = a.shape, b.shape[1]
    left, right, result = Stored(a, trans[0], gap), Stored(b, trans[1], gap), Stored(c)
    product = Product(a.dtype, m, n, k, 1, trans)
    split = Split(blas.OWN, by_columns, parts, along_k)
    blocks = blocks_of(product, split)
    words = gemm_words(product, split, blocks, OWN, (left.leading, right.leading), [])
    scalars = np.array(factors, a.dtype)
    for name, value in {
        "a": left.address, "b": right.address, "c": result.address, "alpha": scalars.ctypes.data,
        "beta": scalars.ctypes.data + a.dtype.itemsize,
    }.items():  # fmt: skip
        words[GEMM_WORDS.index(name)] = value
    if together is not None:
        words[GEMM_WORDS.index("together")] = together
    filled = np.array(words, np.int64)
    scratch = np.full(SCRATCH_BYTES + 64, 0xFF, np.uint8)  # NaN, if anything were read before it is written
    shared = np.full(SHARED_BYTES + 64, 0xFF, np.uint8)
    shared[:8] = 0
    scratch[PANEL_BYTES:][:8].view(np.int64)[0] = shared.ctypes.data
    run = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)(kernel(str(a.dtype)))
    stretches = list(itertools.pairwise(round(cut * blocks.calls) for cut in cuts))
    for lo, hi in reversed(stretches) if backwards else stretches:
        run(filled.ctypes.data, scratch.ctypes.data, lo, hi)
    assert all(matrix.is_guarded() for matrix in (left, right, result))
    assert (scratch[SCRATCH_BYTES:] == 0xFF).all()
    assert (shared[SHARED_BYTES:] == 0xFF).all()
    assert (shared[:8] == 0).all()  # for the next one
    return result.values.copy()


def drawn(m: int, n: int, k: int, dtype: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(m + 100 * n + 10_000 * k)
    a, b, c = (rng.uniform(-1, 1, shape).astype(dtype) for shape in ((m, k), (k, n), (m, n)))
    return a, b, c


def extents(dtype: str) -> Iterator[tuple[int, int, int]]:
    """Around every edge: of tiles' rows, of vectors, of panels and their groups, of the pieces of ``k``."""
    item = np.dtype(dtype).itemsize
    rows, lanes = microkernel.tile_rows(), microkernel.vector_length(item)
    wide = microkernel.VECTORS * lanes
    broad, deep = fixed_kernels.BROAD_BYTES // item // wide * wide, fixed_kernels.DEEP_BYTES // item
    yield from itertools.product(range(1, 2 * rows + 2), (1, lanes, wide + 1), (1, lanes + 1))
    yield from ((rows + 1, n, 3) for n in range(1, 2 * wide + 2))
    yield from itertools.product((rows - 1, 2 * rows), (broad - 1, broad + 1, 2 * broad + lanes), (2, lanes))
    yield from itertools.product((3, rows), (2, wide), (deep - 1, deep, deep + 1, 2 * deep + 1))
    yield from ((5, 7, 0), (33, 47, 385))


@pytest.mark.parametrize("dtype", KINDS)
def test_every_edge(dtype: str, machine: Machine | None) -> None:
    """An element is off by at most k + 2 roundings of a sum of |a b|, and one each of alpha, beta and the result."""
    eps = float(np.finfo(dtype).eps)
    for m, n, k in extents(dtype):
        a, b, c = drawn(m, n, k, dtype)
        exact = a.astype(np.longdouble) @ b.astype(np.longdouble)
        size = np.abs(a).astype(np.longdouble) @ np.abs(b).astype(np.longdouble)
        for trans in itertools.product((False, True), repeat=2):
            for factors, gap in (((1.0, 0.0), 0), ((-0.5, 1.0), 3)):
                found = multiply(a, b, c, trans=trans, factors=factors, gap=gap)
                expected = factors[0] * exact + factors[1] * c
                limit = eps * ((k + 4) * abs(factors[0]) * size + 2 * np.abs(expected))
                assert (np.abs(found - expected) <= limit).all(), (m, n, k, trans, factors)


@pytest.mark.parametrize("dtype", KINDS)
def test_same_bits_however_it_is_cut(dtype: str, machine: Machine | None) -> None:
    """By rows and by columns, into few or many blocks, several together or one by one, among any number of threads."""
    for (m, n, k), trans in itertools.product(
        [(65, 130, 70), (40, 33, 1100), (7, 300, 20)], itertools.product((False, True), repeat=2)
    ):
        a, b, c = drawn(m, n, k, dtype)
        forms = {"trans": trans, "factors": (-1.5, 0.75)}
        whole = multiply(a, b, c, **forms).tobytes()
        for by_columns, parts, together in itertools.product((False, True), (2, 4, 16), (1, 3, 100)):
            cuts = (0.0, 0.2, 0.5, 1.0)
            found = multiply(a, b, c, by_columns=by_columns, parts=parts, together=together, cuts=cuts, **forms)
            assert found.tobytes() == whole, (m, n, k, trans, by_columns, parts, together)


@pytest.mark.parametrize("dtype", KINDS)
def test_blocks_of_k(dtype: str, machine: Machine | None) -> None:
    """The same bits whoever makes which block, and whoever is last."""
    eps = float(np.finfo(dtype).eps)
    for (m, n, k), trans in itertools.product(
        [(8, 8, 3000), (3, 5, 40_001), (19, 50, 1700), (1, 7, 999), (2, 1, 17)],
        itertools.product((False, True), repeat=2),
    ):
        a, b, c = drawn(m, n, k, dtype)
        size = np.abs(a).astype(np.longdouble) @ np.abs(b).astype(np.longdouble)
        for factors in ((1.0, 0.0), (-1.5, 0.75)):
            forms = {"trans": trans, "factors": factors, "along_k": True, "gap": 3}
            expected = factors[0] * (a.astype(np.longdouble) @ b) + factors[1] * c
            for parts in (1, 3, MOST_OF_K):
                whole = multiply(a, b, c, parts=parts, **forms)
                limit = eps * ((k + 4) * abs(factors[0]) * size + 2 * np.abs(expected) + np.abs(c))
                assert (np.abs(whole - expected) <= limit).all(), (m, n, k, trans, factors, parts)
                for backwards in (False, True):
                    cuts = (0.0, 0.3, 0.31, 0.9, 1.0)
                    found = multiply(a, b, c, parts=parts, cuts=cuts, backwards=backwards, **forms)
                    assert found.tobytes() == whole.tobytes(), (m, n, k, trans, parts, backwards)


def test_when_k_is_cut() -> None:
    """Where the result is too small to be cut, or each thread has its part of a weight in its cache."""
    assert DEEP_WORK >= SMALL_CALL
    own = [blas.Library(blas.OWN, 0, 0), blas.Library("scipy", 1, 1, direct=True)]
    float32 = np.dtype("float32")
    always, never, layer = {True}, {False}, {True, False}  # the latter where neither operand is transposed
    for m, n, k, expected in (
        (8, 8, 10**6, always), (1, 8, 10**6, always), (24, 48, 10**5, always), (8, 8, 1000, never),
        (8, 8, 16 * DEEP_WORK // 64 - 1, never), (8, 8, 16 * DEEP_WORK // 64, always), (32, 100, 1000, layer),
        (32, 100, 799, never), (64, 8, 10**6, layer), (8, 512, 4096, never), (64, 65, 10**4, never),
    ):  # fmt: skip
        found = {}
        for trans in itertools.product((False, True), repeat=2):
            product = Product(float32, m, n, k, 1, trans)
            split = usual_split(product, own)
            found[trans] = split.along_k
            assert split.suits(product)
            assert not split.along_k or blocks_of(product, split).calls == min(MOST_OF_K, -(-k // 512))
        assert set(found.values()) == expected, (m, n, k)
        assert expected is not layer or [trans for trans in found if found[trans]] == [(False, False)]
    assert not usual_split(Product(float32, 8, 8, 10**6, batch=2), own).along_k
    assert not Split(blas.OWN, False, 4, along_k=True).suits(Product(float32, 65, 64, 10**6))
    assert Split(blas.OWN, False, 4, along_k=True).suits(Product(float32, 64, 64, 10**6))
    assert not Split("scipy", False, 4, along_k=True).suits(Product(float32, 8, 8, 10**6))
    assert RESULT_BYTES == 64 * 64 * 4


def test_narrow_products_that_openblas_does_not_compute_directly() -> None:
    direct = [blas.Library(blas.OWN, 0, 0), blas.Library("scipy", 1, 1, direct=True)]
    other = [direct[0], blas.Library("scipy", 1, 1)]
    large, small = (Product(np.dtype("float32"), 784, 10, k, trans=(True, False)) for k in (60_000, 64))
    assert usual_split(large, direct).library == blas.OWN
    assert DIRECT > 784 * 10 * 64
    assert usual_split(small, direct).library == "scipy"
    assert [usual_split(product, other).library for product in (large, small)] == ["scipy", "scipy"]
    assert usual_split(Product(np.dtype("float32"), 1, 4096, 4096), direct).library == "scipy"


@pytest.mark.parametrize("dtype", KINDS)
def test_element_does_not_depend_on_its_neighbours(dtype: str) -> None:
    """A row of a batch has the bits that it has alone, in another place, or among other rows."""
    a, b, c = drawn(50, 70, 600, dtype)
    whole = multiply(a, b, c)
    for first, last in ((0, 1), (13, 14), (3, 49), (41, 50)):
        assert multiply(a[first:last], b, c[first:last]).tobytes() == whole[first:last].tobytes()
        assert multiply(a, b[:, first:last].copy(), c[:, first:last].copy()).tobytes() == whole[:, first:last].tobytes()


@pytest.mark.parametrize("dtype", KINDS)
def test_beta_of_zero_does_not_read_the_result(dtype: str) -> None:
    a, b, c = drawn(20, 50, 30, dtype)
    expected = multiply(a, b, c)
    assert multiply(a, b, np.full_like(c, np.nan)).tobytes() == expected.tobytes()
    nothing = multiply(a[:, :0], b[:0], np.full_like(c, np.nan))
    np.testing.assert_array_equal(nothing, np.zeros_like(c))
    np.testing.assert_array_equal(multiply(a[:, :0], b[:0], c, factors=(1.0, 2.0)), 2 * c)


@pytest.mark.parametrize("dtype", KINDS)
def test_what_is_not_finite_stays_in_its_row_and_column(dtype: str) -> None:
    """Padding of tiles multiplies nothing into their neighbours."""
    for trans in itertools.product((False, True), repeat=2):
        a, b, c = drawn(19, 53, 40, dtype)
        a[18, 3], b[7, 52] = np.nan, np.inf
        found = multiply(a, b, c, trans=trans)
        assert np.isnan(found[18]).all()
        assert not np.isfinite(found[:, 52]).any()
        assert np.isfinite(found[:18, :52]).all()


@pytest.mark.parametrize("dtype", KINDS)
def test_session_computes_with_it(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small integers, exactly; the kernel is what computed them, as a library would have been called otherwise."""
    monkeypatch.setenv("GRAPHC_BLAS", "graphc")
    monkeypatch.setattr(blas, "_scipy", lambda: blas.Library("none", 0, 0))
    rng = np.random.default_rng(1)
    x, y = rng.integers(-8, 9, (3, 70, 130)).astype(dtype), rng.integers(-8, 9, (130, 96)).astype(dtype)
    a, b = graphc.placeholder((None, None, 130), dtype, name="a"), graphc.placeholder((130, 96), dtype, name="b")
    fetches = [a @ b, graphc.nn.relu(a @ b), graphc.sum(a @ b, axis=-1)]
    for threads in (1, 2):
        with graphc.Session(threads=threads) as session:
            found = session.run(fetches, {a: x, b: y})
        for one, expected in zip(found, (x @ y, np.maximum(x @ y, 0), (x @ y).sum(-1)), strict=True):
            np.testing.assert_array_equal(one, expected)


def test_sessions_cut_k() -> None:
    """With what follows on the result, in every step of many, added to a parameter, and twice in one run."""
    x, y = graphc.placeholder(("n", 8), name="x"), graphc.placeholder(("n", 20), name="y")
    w = graphc.parameter(np.zeros((8, 20), np.float32), name="w")
    product = x.mT @ y
    moved = graphc.assign(w, w + 1e-3 * (x.mT @ y))
    fetches = [graphc.nn.softmax(product * 0.01), graphc.sum(product, axis=0), y.mT @ x, moved]
    rng = np.random.default_rng(0)
    data = [rng.uniform(-1, 1, (200_000, width)).astype(np.float32) for width in (8, 20)]
    exact = data[0].astype(np.float64).T @ data[1]
    bits = []
    for threads in (1, 2, 3):
        with graphc.Session(threads=threads) as session:
            step = session.compile(fetches, feeds=[x, y])
            found = step.repeat(5, *data)
            bits.append([np.asarray(v).tobytes() for v in (*found[:3], session.get(w))])
            np.testing.assert_allclose(found[2].T, exact, atol=1e-5 * 200_000**0.5)
            np.testing.assert_allclose(session.get(w), 5e-3 * exact, atol=1e-7 * 200_000**0.5)
    assert bits[0] == bits[1] == bits[2]


def test_more_threads_than_cores(python: Python) -> None:
    """Every thread has scratch memory of its own."""
    code = """
import numpy as np, graphc
x, y = graphc.placeholder((None, None), name="x"), graphc.placeholder((None, None), name="y")
rng = np.random.default_rng(0)
a, b = (rng.uniform(-1, 1, (300, 300)).astype(np.float32) for _ in range(2))
bits = set()
for threads in (1, 2, 4):
    with graphc.Session(threads=threads) as session:
        deep = graphc.reshape(x, (-1, 9)).T @ graphc.reshape(y, (-1, 9))
        step = session.compile([x @ y.T, x.T @ y, graphc.tanh(deep)], feeds=[x, y])
        for _ in range(20):
            bits.add(b"".join(one.tobytes() for one in step(a, b)))
print(len(bits))
"""
    assert python(code, NUMBA_NUM_THREADS="4", GRAPHC_BLAS="graphc").strip() == "1"
