"""Random numbers: the generator against published vectors, every distribution against its own, and bad arguments.

All draws are of fixed seeds, so a test passes always or never. Statistics are held to five standard errors, or to the
level 1e-6 of their test: a correct generator had one chance in a million to fail when the seed was chosen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import ops, random
from graphc.dtypes import float32, float64
from graphc.errors import ArgumentError, DTypeError, FeedError, ShapeError
from graphc.expr import NumpyBuilder
from graphc.ops.philox import mix, numpy_philox, philox, stream_key
from graphc.random import _multiply_high, _scaled, _scaled_wide

Array = np.ndarray[Any, Any]
N = 100_000
# Known answers of philox4x32_10: file kat_vectors of Random123 (D. E. Shaw Research).
KNOWN = [
    ([0, 0, 0, 0], [0, 0], [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@pytest.fixture(scope="module")
def session() -> Iterator[graphc.Session]:
    with graphc.Session(device="reference", seed=1) as opened:
        yield opened


def kolmogorov_smirnov(values: Array, distribution: Any) -> None:
    """The values come from the distribution, at the level 1e-6 of the asymptotic test."""
    ordered = np.sort(values.astype(np.float64).ravel())
    n = ordered.size
    below = distribution(ordered)
    steps = np.arange(n + 1) / n
    distance = max(np.max(steps[1:] - below), np.max(below - steps[:-1]))
    assert distance < math.sqrt(-math.log(1e-6 / 2) / (2 * n))


def uncorrelated(x: Array, y: Array) -> None:
    """Of independent samples the correlation has the standard deviation 1 / sqrt(n)."""
    assert abs(np.corrcoef(x.ravel().astype(np.float64), y.ravel().astype(np.float64))[0, 1]) < 5 / math.sqrt(x.size)


def evenly(counts: Array) -> None:
    """Counts of equally likely classes, by the chi-square statistic in the approximation of Wilson and Hilferty."""
    expected = counts.sum() / counts.size
    assert expected >= 5
    freedom = counts.size - 1
    chi2 = float(np.sum((counts - expected) ** 2) / expected)
    z = ((chi2 / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / math.sqrt(2 / (9 * freedom))
    assert abs(z) < 5


def normal_cdf(x: Array) -> Array:
    return np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in x])


# The generator.


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_known_answers(counter: list[int], key: list[int], expected: list[int]) -> None:
    b = NumpyBuilder((), {})
    words = philox(b, [np.uint32(c) for c in counter], [np.uint32(k) for k in key])
    assert [int(w) for w in words] == expected
    assert all(w.dtype == np.uint32 for w in words)
    reference = numpy_philox([np.uint64(c) for c in counter], [np.uint64(k) for k in key])
    assert [int(w) for w in reference] == expected


@pytest.mark.parametrize(("dtype", "word"), [("uint32", 0), ("uint32", 3), ("uint64", 0), ("uint64", 1)])
def test_bits_are_the_words_at_each_index(session: graphc.Session, dtype: str, word: int) -> None:
    """The counter is (index, run counter), each as two words, low first; uint64 takes two words, low first."""
    key, runs = (graphc.placeholder((), dtype="uint64") for _ in range(2))
    x = ops.random_bits(key, runs, (2, 3), np.dtype(dtype), word)
    k, c = 0x299F31D0A4093822, 0x0370734413198A2E
    found = session.run(x, {key: np.uint64(k), runs: np.uint64(c)})
    assert found.dtype == np.dtype(dtype)
    for index, value in enumerate(found.ravel()):
        counter = [index, 0, c % 2**32, c >> 32]
        words = [
            int(w) for w in numpy_philox([np.uint64(v) for v in counter], [np.uint64(k % 2**32), np.uint64(k >> 32)])
        ]
        pairs = [words[0] | words[1] << 32, words[2] | words[3] << 32]
        assert int(value) == (words if dtype == "uint32" else pairs)[word]


def test_splitmix_and_keys() -> None:
    # The first outputs of SplitMix64 from state 1234567 (S. Vigna's reference implementation).
    state, golden = 1234567, 0x9E3779B97F4A7C15
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [mix((state + (i + 1) * golden) % 2**64) for i in range(3)] == expected
    keys = {stream_key(s, n, explicit=e) for s in range(20) for n in range(500) for e in (False, True)}
    assert len(keys) == 20 * 500 * 2
    assert stream_key(2**63 - 1, 2**63 - 1, explicit=True) < 2**64


def test_every_bit_is_even_and_independent(session: graphc.Session) -> None:
    found = session.run(random.bits((N,), "uint64"))
    bits = np.unpackbits(found.view(np.uint8)).reshape(N, 64)
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 5 * 0.5 / math.sqrt(N)
    neighbours = bits[1:] ^ bits[:-1]
    assert np.abs(neighbours.mean(axis=0) - 0.5).max() < 5 * 0.5 / math.sqrt(N - 1)
    evenly(np.bincount((found >> np.uint64(52)).astype(np.int64), minlength=4096))


def test_streams_and_runs_are_independent() -> None:
    """Neighbouring seeds, streams and run counters, and neighbouring elements."""
    a, b, c = random.uniform((N,)), random.uniform((N,), seed=0), random.uniform((N,), seed=1)
    state = graphc.parameter(0.0)
    with graphc.Session(device="reference", seed=0) as first, graphc.Session(device="reference", seed=1) as second:
        draws = [*first.run([a, b, c]), *second.run([a, b, c])]
        first.run(graphc.assign(state, 1.0))
        draws += first.run([a, b, c])
    for i, x in enumerate(draws):
        uncorrelated(x[1:], x[:-1])
        for y in draws[:i]:
            uncorrelated(x, y)


# Distributions.


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_uniform(session: graphc.Session, dtype: str) -> None:
    found = session.run(random.uniform((N // 100, 100), dtype=dtype))
    assert found.dtype == np.dtype(dtype)
    assert found.shape == (N // 100, 100)
    assert found.min() >= 0
    assert found.max() < 1
    digits = np.finfo(found.dtype).nmant + 1
    assert (found * 2.0**digits % 1 == 0).all()
    assert abs(found.mean(dtype=np.float64) - 0.5) < 5 * math.sqrt(1 / 12 / N)
    assert abs(found.var(dtype=np.float64) - 1 / 12) < 5 * math.sqrt(1 / 180 / N)
    kolmogorov_smirnov(found, lambda x: x)


def test_uniform_between(session: graphc.Session) -> None:
    found = session.run(random.uniform((N,), -3, 5))
    assert found.min() >= -3
    assert found.max() < 5
    kolmogorov_smirnov(found, lambda x: (x + 3) / 8)


def test_uniform_never_reaches_high(session: graphc.Session) -> None:
    """Around 2**24 float32 has no fractions: of five floats four are in the range, each drawn equally often."""
    low = 2.0**24
    found = session.run(random.uniform((N,), low, low + 8))
    assert sorted(set(found.tolist())) == [low, low + 2, low + 4, low + 6]
    evenly(np.bincount(((found - low) / 2).astype(np.int64)))
    assert set(session.run(random.uniform((9,), 3.0, 3.0)).tolist()) == {3.0}


def test_uniform_of_tensors(session: graphc.Session) -> None:
    low = graphc.placeholder((3,), dtype="float64")
    high = graphc.placeholder(())
    x = random.uniform((N // 10, 3), low, high.astype("float64"))
    assert x.dtype == float64
    found = session.run(x, {low: [0.0, -1.0, 2.0], high: 4.0})
    for column, start in enumerate((0.0, -1.0, 2.0)):
        kolmogorov_smirnov(found[:, column], lambda v, s=start: (v - s) / (4 - s))
    assert np.isnan(session.run(random.uniform((4,), 0.0, graphc.constant(np.float32(np.nan))))).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_normal(session: graphc.Session, dtype: str) -> None:
    found = session.run(random.normal((N,), dtype=dtype))
    assert found.dtype == np.dtype(dtype)
    wide = found.astype(np.float64)
    assert abs(wide.mean()) < 5 / math.sqrt(N)
    assert abs(wide.var() - 1) < 5 * math.sqrt(2 / N)
    assert abs((wide**3).mean()) < 5 * math.sqrt(15 / N)
    assert abs((wide**4).mean() - 3) < 5 * math.sqrt(96 / N)
    kolmogorov_smirnov(wide, normal_cdf)
    uncorrelated(wide[1:], wide[:-1])
    uncorrelated(wide[1:] ** 2, wide[:-1] ** 2)


@pytest.mark.parametrize("dtype", [float32, float64])
def test_normal_has_no_infinities(dtype: np.dtype[Any]) -> None:
    """At the least and the largest words, where the logarithm and the angle are at their ends."""
    word = np.uint32 if dtype == float32 else np.uint64
    scale = 2.0 ** (-8 * np.dtype(word).itemsize)
    ends = np.array([0, 1, np.iinfo(word).max], word).astype(dtype)
    radius = np.sqrt(-2 * np.log((ends * dtype.type(scale) + dtype.type(scale / 2)).astype(dtype)))
    assert np.isfinite(radius).all()
    assert (radius >= 0).all()
    assert radius.max() == pytest.approx(math.sqrt(-2 * math.log(scale / 2)), rel=1e-6)
    assert radius.max() < (6.8 if dtype == float32 else 9.5)


def test_normal_with_mean_and_std(session: graphc.Session) -> None:
    found = session.run(random.normal((N,), 100.0, 0.5)).astype(np.float64)
    assert abs(found.mean() - 100) < 5 * 0.5 / math.sqrt(N)
    assert abs(found.std() - 0.5) < 5 * 0.5 * math.sqrt(0.5 / N)
    assert set(session.run(random.normal((5,), 2.0, 0)).tolist()) == {2.0}


def test_gradients_flow_to_the_parameters(session: graphc.Session) -> None:
    """x = low + (high - low) * u and x = mean + std * z: the derivatives are 1 - u, u, 1 and z."""
    low, high, mean, std = (graphc.placeholder(()) for _ in range(4))
    x, u = random.uniform((50,), low, high, seed=3), random.uniform((50,), seed=3)
    y, z = random.normal((50,), mean, std, seed=3), random.normal((50,), seed=3)
    grads = graphc.gradients([x.sum(), y.sum()], [low, high, mean, std], grad_ys=[graphc.constant(1.0)] * 2)
    feeds = {low: 1.0, high: 3.0, mean: 0.5, std: 2.0}
    found = session.run([*grads, (1 - u).sum(), u.sum(), z.sum()], feeds)
    np.testing.assert_allclose(found[:4], [found[4], found[5], 50.0, found[6]], rtol=1e-5)
    with pytest.raises(graphc.errors.GradientError, match="no differentiable path"):
        graphc.gradients(random.bernoulli(mean, dtype="float32"), mean)


@pytest.mark.parametrize("p", [0.0, 1e-3, 0.3, 0.5, 1.0])
def test_bernoulli(session: graphc.Session, p: float) -> None:
    found = session.run(random.bernoulli(p, (N,)))
    assert found.dtype == np.bool_
    assert abs(found.mean() - p) <= 5 * math.sqrt(p * (1 - p) / N)


def test_bernoulli_of_tensors(session: graphc.Session) -> None:
    p = graphc.constant(np.array([0.0, 0.25, 1.0]))
    each = random.bernoulli(p)
    assert each.shape == (3,)
    found = session.run(random.bernoulli(p, (N // 10, 3), dtype="int8"))
    assert found.dtype == np.int8
    assert found[:, 0].sum() == 0
    assert found[:, 2].sum() == N // 10
    assert abs(found[:, 1].mean() - 0.25) < 5 * math.sqrt(0.1875 / (N // 10))


@pytest.mark.parametrize(("low", "high"), [(0, 7), (-3, 4), (5, 6), (-128, 128), (0, 1000)])
def test_integers(session: graphc.Session, low: int, high: int) -> None:
    dtype = "int8" if high <= 128 else "int64"
    found = session.run(random.integers(low, high, (N,), dtype))
    assert found.dtype == np.dtype(dtype)
    if high - low == 1:
        assert (found == low).all()
    else:
        evenly(np.bincount(found.astype(np.int64) - low, minlength=high - low))


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [
        (0, 2**32, "int64"), (0, 2**32 + 1, "int64"), (-(2**63), 2**63, "int64"), (0, 2**64, "uint64"),
        (-(2**62), 2**63 - 5, "int64"), (3 * 2**61, 2**63, "uint64"), (0, 3 * 2**62, "uint64"),
    ],
)  # fmt: skip
def test_wide_integers(session: graphc.Session, low: int, high: int, dtype: str) -> None:
    """Sixteen equal parts of the range hold equally many. 3 * 2**62 would show a bias of 64 bits taken modulo."""
    found = [int(v) for v in session.run(random.integers(low, high, (N // 10,), dtype))]
    assert min(found) >= low
    assert max(found) < high
    evenly(np.bincount([(v - low) * 16 // (high - low) for v in found], minlength=16))


def test_integers_up_to_a_symbolic_extent(session: graphc.Session) -> None:
    rows = graphc.placeholder(("rows", 2))
    x = random.integers(0, rows.shape[0], (N,))
    found = session.run(x, {rows: np.zeros((7, 2), np.float32)})
    evenly(np.bincount(found, minlength=7))
    with pytest.raises(FeedError, match="rows"):
        session.run(x, {rows: np.zeros((0, 2), np.float32)})


def test_scaling_is_exact(session: graphc.Session) -> None:
    """Against Python's integers, at the ends of 64 bits."""
    ends = [0, 1, 2, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1, 0x123456789ABCDEF0]
    x = graphc.placeholder((len(ends),), dtype="uint64")
    y = graphc.placeholder((len(ends), 1), dtype="uint64")
    row = np.array(ends, np.uint64)
    column = row[:, None]
    for size in (1, 2, 3, 1000, 2**31 + 1, 2**32 - 1, 2**32):
        assert [int(v) for v in session.run(_scaled(x, size), {x: row})] == [v * size >> 64 for v in ends]
    products = session.run(_multiply_high(x, y), {x: row, y: column})
    assert [[int(v) for v in line] for line in products] == [[a * b >> 64 for a in ends] for b in ends]
    for size in (2**32 + 1, 3 * 2**62, 2**64 - 1):
        found = session.run(_scaled_wide(x, y, size), {x: row, y: column})
        expected = [[((a << 64) + b) * size >> 128 for a in ends] for b in ends]
        assert [[int(v) for v in line] for line in found] == expected


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_categorical(session: graphc.Session, dtype: str) -> None:
    chances = np.array([0.5, 0.01, 0.0, 0.29, 0.2])
    with np.errstate(divide="ignore"):
        logits = graphc.constant(np.log(chances).astype(dtype) + 1e3)
    found = session.run(random.categorical(logits, num=N))
    assert found.dtype == np.int64
    assert found.shape == (N,)
    counts = np.bincount(found, minlength=5)
    assert (np.abs(counts / N - chances) <= 5 * np.sqrt(chances * (1 - chances) / N)).all()


def test_categorical_along_an_axis(session: graphc.Session) -> None:
    logits = np.full((3, 4, 5), -np.inf, np.float32)
    for i, j in np.ndindex(3, 5):
        logits[i, (i + j) % 4, j] = -1e30
    expected = (np.arange(3)[:, None] + np.arange(5)) % 4
    assert (session.run(random.categorical(logits, axis=1)) == expected).all()
    several = session.run(random.categorical(logits, axis=-2, num=2))
    assert several.shape == (3, 5, 2)
    assert (several == expected[..., None]).all()
    assert session.run(random.categorical(logits, axis=1, num=0)).shape == (3, 5, 0)
    assert session.run(random.categorical([[-np.inf, -np.inf]])).tolist() == [0]


def test_permutation(session: graphc.Session) -> None:
    """Every order of four equally often, and every place of a long one."""
    orders = session.run([random.permutation(4, seed=i) for i in range(4800)])
    counts: dict[tuple[int, ...], int] = {}
    for order in orders:
        counts[tuple(order)] = counts.get(tuple(order), 0) + 1
    assert len(counts) == 24
    evenly(np.array(list(counts.values())))
    long = session.run(random.permutation(N))
    assert long.dtype == np.int64
    assert (np.sort(long) == np.arange(N)).all()
    uncorrelated(long, np.arange(N))
    uncorrelated(long[1:], long[:-1])
    # The number of fixed points of a random order has mean and variance 1.
    assert (long == np.arange(N)).sum() <= 6
    for n in (0, 1):
        assert session.run(random.permutation(n)).tolist() == list(range(n))


def test_permutation_of_a_symbolic_extent(session: graphc.Session) -> None:
    rows = graphc.placeholder(("rows",))
    order = random.permutation(rows.shape[0])
    assert sorted(session.run(order, {rows: np.zeros(9, np.float32)})) == list(range(9))
    assert sorted(session.run(order, {rows: np.zeros(3, np.float32)})) == list(range(3))


def test_chances_of_gumbel_are_exact_enough(session: graphc.Session) -> None:
    """A class of probability 2e-3 beside one of nearly 1: rare events come from the fine end of the uniform."""
    logits = graphc.constant(np.array([0.0, math.log(2e-3)], np.float32))
    share = session.run(random.categorical(logits, num=10 * N)).mean()
    p = 2e-3 / (1 + 2e-3)
    assert abs(share - p) < 5 * math.sqrt(p * (1 - p) / (10 * N))


def test_symbolic_shapes(session: graphc.Session) -> None:
    x = graphc.placeholder((None, "m"))
    draws = [
        random.bits(x.shape), random.uniform(x.shape), random.uniform(("m", 2), 1, 2), random.normal(x.shape),
        random.bernoulli(0.5, x.shape), random.integers(0, 5, x.shape),
    ]  # fmt: skip
    for rows in (0, 1, 4):
        found = session.run(draws, {x: np.zeros((rows, 3), np.float32)})
        assert [a.shape for a in found] == [(rows, 3), (rows, 3), (3, 2), (rows, 3), (rows, 3), (rows, 3)]
    # An element's number depends on its place in C order, not on how many follow.
    short, long = (session.run(draws[1], {x: np.zeros((r, 3), np.float32)}) for r in (2, 5))
    assert (short == long[:2]).all()


# Bad arguments.


@pytest.mark.parametrize("seed", [-1, 2**63, True, 1.5, "a"])
def test_seeds_that_are_none(seed: Any) -> None:
    with pytest.raises(ArgumentError, match=r"seed must be an int from 0 to 2\*\*63 - 1, or None, got"):
        random.uniform((2,), seed=seed)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: random.uniform(3), ShapeError, r"the shape must be a tuple.*\(3,\)"),
        (
            lambda: random.uniform((None,)),
            ShapeError,
            r"random\.uniform: None is no extent of \(None,\), as nothing decides it; write a number, or take it",
        ),
        (lambda: random.uniform((2,), 1, 0), ArgumentError, "low must not exceed high, got low=1 and high=0"),
        (lambda: random.uniform((2,), math.nan, 0), ArgumentError, "low must not exceed high"),
        (
            lambda: random.uniform((2,), -3e38, 3e38),
            ArgumentError,
            r"high - low must be finite in float32, got low=-3e\+38 and high=3e\+38",
        ),
        (lambda: random.uniform((2,), 0, math.inf), ArgumentError, "high - low must be finite"),
        (lambda: random.uniform((2,), dtype="int32"), DTypeError, "in float32 or float64, got dtype int32"),
        (lambda: random.uniform((2,), graphc.constant(np.zeros((3, 2)))), ShapeError, "cannot broadcast rank 2"),
        (lambda: random.normal((2,), std=-1), ArgumentError, "std must be at least 0, got -1"),
        (lambda: random.bernoulli(1.5, (2,)), ArgumentError, "p must be from 0 to 1, got 1.5"),
        (lambda: random.bits((2,), "int32"), DTypeError, "dtype must be uint32 or uint64, got int32"),
        (lambda: random.integers(3, 3, (2,)), ArgumentError, "high must be larger than low, got low=3 and high=3"),
        (lambda: random.integers(0, 300, (2,), "uint8"), DTypeError, "0 to 299 do not fit uint8"),
        (lambda: random.integers(-1, 3, (2,), "uint64"), DTypeError, "-1 to 2 do not fit uint64"),
        (lambda: random.integers(0, 3, (2,), "float32"), DTypeError, "must be an integer type, got float32"),
        (lambda: random.integers(0.0, 3, (2,)), ArgumentError, "low must be an int, got 0.0"),  # type: ignore[arg-type]
        (lambda: random.integers(0, graphc.dim("n"), (2,), "int32"), DTypeError, "symbolic high needs dtype int64"),
        (lambda: random.categorical(graphc.constant([1, 2], "int32")), DTypeError, "logits must be float"),
        (lambda: random.categorical([0.5], num=-1), ArgumentError, "num must be an int of at least 0"),
        (lambda: random.categorical([0.5], axis=1), ShapeError, "axis 1 does not exist"),
        (lambda: random.permutation(None), ShapeError, "n must be a number or an extent of a placeholder, got None"),
        (lambda: random.permutation(-1), ShapeError, "an extent is at least 0, got -1"),
    ],
)
def test_bad_arguments(make: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=f"random.*{words}|{words}"):
        make()


def test_a_shape_of_an_extent_that_no_feed_has(session: graphc.Session) -> None:
    with pytest.raises(FeedError, match="nowhere"):
        session.run(random.uniform((graphc.dim("nowhere"),)))


def test_fractions_of_integers_are_even() -> None:
    """The bias that is documented: the likeliest integer of a range against 1 / range, in parts of it."""
    for size in (3, 1000, 2**32 - 1):
        most = Fraction(-(-(2**64) // size), 2**64)
        assert most * size - 1 <= Fraction(1, 2**32)
