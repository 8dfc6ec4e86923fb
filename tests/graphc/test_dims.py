"""Symbolic extents: their normal form, exact quotients, evaluation, and the union-find over them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import graphc
from graphc.dims import Dim, Extent, Symbol, Unifier, dim, evaluate, exact_div, product, symbols
from graphc.errors import DTypeError, SymbolicError

N, M, K = dim("n"), dim("m"), dim("k")
NAMES = {Symbol(name): value for name, value in (("n", 7), ("m", 3), ("k", 5))}

leaves: st.SearchStrategy[Extent] = st.one_of(st.integers(-4, 4), st.sampled_from([N, M, K]))
extents: st.SearchStrategy[Extent] = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda p: p[0] + p[1]),
        st.tuples(inner, inner).map(lambda p: p[0] - p[1]),
        st.tuples(inner, inner).map(lambda p: p[0] * p[1]),
    ),
    max_leaves=6,
)
numbers = st.fixed_dictionaries({s: st.integers(0, 9) for s in NAMES})


def test_the_same_name_is_the_same_extent() -> None:
    assert dim("batch") == dim("batch")
    assert hash(dim("batch")) == hash(dim("batch"))
    assert dim("batch") != dim("rows")
    assert dim() != dim()
    assert dim("n") != "n"


@pytest.mark.parametrize("name", ["", "2n", "a b", "n+1", "?1"])
def test_a_name_is_an_identifier(name: str) -> None:
    with pytest.raises(ValueError, match="an extent's name must be an identifier, got"):
        dim(name)


@pytest.mark.parametrize(
    ("extent", "text"),
    [
        (N, "n"), (N + 1, "n + 1"), (1 + N, "n + 1"), (N - 1, "n - 1"), (1 - N, "-1*n + 1"), (2 * N, "2*n"),
        (N * N, "n**2"),
        (M * N, "m*n"), (N * M, "m*n"), ((N + 1) * (M + 2), "m*n + m + 2*n + 2"), (-N, "-1*n"),
        (exact_div(N, 2), "(n)/(2)"), (N - M - 3, "-1*m + n - 3"),
    ],
)  # fmt: skip
def test_text(extent: Dim, text: str) -> None:
    assert str(extent) == repr(extent) == text


def test_what_cancels_is_a_number() -> None:
    for extent in (N - N, 0 * N, N + 2 - N, (N + M) * (N - M) - N * N + M * M):
        assert isinstance(extent, int)
    assert N + 2 - N == 2
    assert product([]) == 1
    assert product([2, N, 3]) == 6 * N
    assert product([0, N]) == 0


def test_a_symbolic_extent_has_no_number() -> None:
    asked: list[Callable[[], Any]] = [
        lambda: int(N), lambda: float(N), lambda: range(N), lambda: np.zeros((N, 3)), lambda: [1, 2][N],
        lambda: N > 3, lambda: N < M, lambda: N <= 2.5, lambda: N >= M, lambda: np.int64(3) < N, lambda: max(N, 3),
        lambda: N / 2, lambda: 2 / N, lambda: N / M, lambda: N / 0.5,
    ]  # fmt: skip
    for ask in asked:
        with pytest.raises(SymbolicError, match=r"the extent \w is symbolic; its value is known only when data is fed"):
            ask()
    with pytest.raises(SymbolicError, match=r"Write n // 2 for an extent that comes out exactly"):
        N / 2
    with pytest.raises(TypeError, match="not supported between instances of 'Dim' and 'str'"):
        assert N < "x"


def test_tensors_compare_and_divide_with_extents() -> None:
    x = graphc.placeholder(("n", 2), name="x")
    n = x.shape[0]
    array = np.array([[1, 2], [3, 4], [5, 6]], np.float32)
    with graphc.Session(device="reference") as session:
        found = session.run([n > x, n <= x, x > n, x / n, n / x], {x: array})
    for value, wanted in zip(found, [array < 3, array >= 3, array > 3, array / 3, 3 / array], strict=True):
        np.testing.assert_array_equal(value, wanted)


@given(extents, extents, extents)
def test_arithmetic_laws(a: Extent, b: Extent, c: Extent) -> None:
    assert a + b == b + a
    assert a * b == b * a
    assert (a + b) + c == a + (b + c)
    assert (a * b) * c == a * (b * c)
    assert a * (b + c) == a * b + a * c
    assert a - a == 0
    assert a + 0 == a
    assert a * 1 == a
    assert a * 0 == 0
    assert a - b == -(b - a)


@given(extents, extents)
def test_equal_extents_have_equal_hashes_and_text(a: Extent, b: Extent) -> None:
    left, right = a + b, b + a
    assert hash(left) == hash(right)
    assert str(left) == str(right)


@given(extents, extents, numbers)
def test_evaluate_is_a_homomorphism(a: Extent, b: Extent, values: dict[Symbol, int]) -> None:
    x, y = evaluate(a, values), evaluate(b, values)
    assert evaluate(a + b, values) == x + y
    assert evaluate(a - b, values) == x - y
    assert evaluate(a * b, values) == x * y


@given(extents, extents, numbers)
def test_a_product_is_divisible(a: Extent, b: Extent, values: dict[Symbol, int]) -> None:
    assume(b != 0)
    assume(evaluate(b, values) != 0)
    quotient = exact_div(a * b, b)
    assert evaluate(quotient, values) == evaluate(a, values)
    if a != 0 and (isinstance(b, int) or len(b.terms) == 1):  # 0 / n is left to the data: n may be 0
        assert quotient == a


def test_exact_div() -> None:
    assert exact_div(6, 3) == 2
    assert exact_div(6 * N, 3) == 2 * N
    assert exact_div(6 * N * M, 2 * M) == 3 * N
    assert exact_div(N * N + 2 * N, N) == N + 2
    assert exact_div(N + 1, N + 1) == 1
    assert exact_div(0, 5) == 0
    assert exact_div(4 * N, -2) == -2 * N
    assert (6 * N) // 3 == 2 * N
    assert evaluate(6 // N, {Symbol("n"): 3}) == 2


@pytest.mark.parametrize(("a", "b"), [(5, 2), (1, 0), (0, 0)])
def test_a_quotient_known_to_be_inexact(a: int, b: int) -> None:
    with pytest.raises(ValueError, match=f"{a} is not divisible by {b}"):
        exact_div(a, b)


def test_a_symbolic_extent_is_never_divided_by_zero() -> None:
    with pytest.raises(ValueError, match="n is not divisible by 0"):
        exact_div(N, 0)


def test_a_quotient_that_depends_on_the_data() -> None:
    half = exact_div(N, 2)
    assert isinstance(half, Dim)
    assert half == exact_div(N, 2)
    assert evaluate(half, {Symbol("n"): 8}) == 4
    assert evaluate(half * half + 1, {Symbol("n"): 8}) == 17
    assert symbols(half + M) == {Symbol("n"), Symbol("m")}
    with pytest.raises(ValueError, match=r"\(n\)/\(2\) is 7/2, which is not exact"):
        evaluate(half, {Symbol("n"): 7})
    with pytest.raises(ValueError, match="is 4/0, which is not exact"):
        evaluate(exact_div(4, N), {Symbol("n"): 0})


def test_evaluate_needs_every_symbol() -> None:
    assert evaluate(N * M + 2, NAMES) == 23
    with pytest.raises(KeyError):
        evaluate(N, {})


# The union-find.


def test_unify_numbers() -> None:
    unifier = Unifier()
    assert unifier.unify(3, 3)
    assert not unifier.unify(3, 4)


def test_unify_names() -> None:
    unifier = Unifier()
    assert not unifier.equal(N, M)
    assert unifier.unify(N, M)
    assert unifier.unify(M, K)
    assert unifier.equal(N, K)
    assert unifier.equal(2 * N * K + 1, 2 * M * M + 1)
    assert unifier.unify(K, 4)
    assert {unifier.canonical(e) for e in (N, M, K)} == {4}
    assert unifier.canonical(N * M + K) == 20


def test_a_contradiction_is_noticed() -> None:
    unifier = Unifier()
    assert unifier.unify(N, 3)
    assert unifier.unify(M, N)
    assert not unifier.unify(M, 4)
    assert not unifier.unify(N + 1, N + 2)
    assert not unifier.unify(K, -1)
    assert not unifier.unify(K + 5, 2)


def test_an_anonymous_extent_takes_the_name_of_its_equal() -> None:
    for pair in ((0, 1), (1, 0)):
        both = (dim(), N)
        unifier = Unifier()
        assert unifier.unify(both[pair[0]], both[pair[1]])
        assert unifier.canonical(both[0]) == N


def test_a_sum_is_solved_for_a_symbol() -> None:
    unifier = Unifier()
    assert unifier.unify(N + 2, M)
    assert unifier.equal(M - N, 2)
    assert unifier.unify(N, 5)
    assert unifier.canonical(M) == 7


@given(st.lists(st.tuples(extents, extents), max_size=4), extents, numbers)
def test_unification_keeps_every_solution(
    pairs: list[tuple[Extent, Extent]], probe: Extent, values: dict[Symbol, int]
) -> None:
    """Under values that satisfy all equations, nothing is refused and canonical forms have the same value."""
    unifier = Unifier()
    for a, b in pairs:
        if evaluate(a, values) == evaluate(b, values):
            assert unifier.unify(a, b)
    assert evaluate(unifier.canonical(probe), values) == evaluate(probe, values)
    for a, b in unifier.residual:
        assert evaluate(a, values) == evaluate(b, values)


def test_what_cannot_be_solved_is_residual() -> None:
    unifier = Unifier()
    assert unifier.unify(N * N, 2 * M)
    assert unifier.residual == [(N * N, 2 * M)]
    assert not unifier.equal(N * N, 2 * M)


def test_quotients_are_solved_when_their_symbols_become_known() -> None:
    unifier = Unifier()
    half = exact_div(N, 2)
    assert unifier.canonical(half) == half
    assert unifier.unify(N, 2 * M)
    assert unifier.canonical(half) == M
    assert unifier.unify(M, 6)
    assert unifier.canonical(half) == 6


def test_an_inexact_quotient_is_a_contradiction() -> None:
    unifier = Unifier()
    half = exact_div(N, 2)
    assert unifier.unify(N, 7)
    assert not unifier.unify(half, 3)


@pytest.mark.parametrize("operation", [lambda n: n * 0.5, lambda n: 0.1 * n, lambda n: n - 0.5, lambda n: n // 2.5])
def test_floats_are_refused_not_truncated(operation: Callable[[Dim], object]) -> None:
    """An extent times a half is no extent; the message says how to write it."""
    with pytest.raises(DTypeError, match="an extent is an integer"):
        operation(dim("n"))


def test_an_extent_meets_a_tensor_from_either_side() -> None:
    """The extent's value is a weak scalar there."""
    x = graphc.placeholder(("n",), name="x")
    n = x.shape[0]
    assert isinstance(n, Dim)
    results = [n * x, n + x, n - x, x * n, x / n]
    assert {(t.dtype.name, t.shape) for t in results} == {("float32", (n,))}
    with pytest.raises(TypeError, match="unsupported operand"):
        n * None  # type: ignore[operator]
