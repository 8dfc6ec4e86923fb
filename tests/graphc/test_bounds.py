"""Minima, maxima and rounded quotients of extents: values, normal forms, what is known of their size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphc.bounds import floor_div, lower_bound, max_extent, min_extent, upper_bound
from graphc.dims import Extent, Symbol, Unifier, dim, evaluate, exact_div, is_polynomial, symbols

N, M = dim("n"), dim("m")
NAMES = (Symbol("n"), Symbol("m"))
Tree = object  # how an extent is computed


def _tree(inner: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
    names = st.sampled_from(["+", "-", "min", "max"])
    return st.one_of(
        st.tuples(names, inner, inner), st.tuples(st.just("//"), inner, st.integers(1, 5)),
        st.tuples(st.just("*"), inner, st.sampled_from([2, 3, -1])),
    )  # fmt: skip


trees: st.SearchStrategy[Tree] = st.recursive(
    st.one_of(st.sampled_from(["n", "m"]), st.integers(-4, 6)), _tree, max_leaves=7
)
numbers = st.fixed_dictionaries({s: st.integers(0, 9) for s in NAMES})


def as_extent(tree: Tree) -> Extent:
    """The symbolic extent that a tree describes."""
    if not isinstance(tree, tuple):
        return dim(tree) if isinstance(tree, str) else int(tree)  # type: ignore[call-overload, no-any-return]
    x, y = as_extent(tree[1]), as_extent(tree[2])
    match tree[0]:
        case "+":
            return x + y
        case "-":
            return x - y
        case "*":
            return x * y
        case "//":
            return floor_div(x, int(str(y)))
    return min_extent(x, y) if tree[0] == "min" else max_extent(x, y)


def as_number(tree: Tree, values: dict[Symbol, int]) -> int:
    """Its value by Python's own arithmetic."""
    if not isinstance(tree, tuple):
        return values[Symbol(tree)] if isinstance(tree, str) else int(tree)  # type: ignore[call-overload, no-any-return]
    x, y = as_number(tree[1], values), as_number(tree[2], values)
    return {"+": x + y, "-": x - y, "*": x * y, "//": x // (y or 1), "min": min(x, y), "max": max(x, y)}[tree[0]]


@given(trees, numbers)
def test_values_are_pythons(tree: Tree, values: dict[Symbol, int]) -> None:
    assert evaluate(as_extent(tree), values) == as_number(tree, values)


@given(trees, numbers)
def test_bounds_hold(tree: Tree, values: dict[Symbol, int]) -> None:
    extent = as_extent(tree)
    low, high = lower_bound(extent), upper_bound(extent)
    value = evaluate(extent, values)
    assert low is None or low <= value
    assert high is None or value <= high


@given(trees, trees, numbers)
def test_substitution_keeps_values(tree: Tree, other: Tree, values: dict[Symbol, int]) -> None:
    extent, replaced = as_extent(tree), as_extent(other)
    k = Symbol("k")
    unifier = Unifier()
    value = evaluate(replaced, values)
    if value < 0:
        return
    assert unifier.unify(dim("k"), replaced)
    both = {**values, k: value}
    target = extent + min_extent(dim("k"), extent) * 2 + floor_div(dim("k") + extent, 3)
    assert evaluate(unifier.canonical(target), both) == evaluate(target, both)


@pytest.mark.parametrize(
    ("extent", "text"),
    [
        (floor_div(N, 2), "n//2"), (floor_div(N + 1, 2), "(n + 1)//2"), (3 * floor_div(N, 2), "3*(n//2)"),
        (min_extent(N, 5), "min(n, 5)"), (max_extent(N - 3, 0), "max(n - 3, 0)"),
        (N - min_extent(N, 1), "max(n - 1, 0)"),
        (max_extent(N - 1, 0) + 2, "max(n + 1, 2)"), (min_extent(M, N, 3), "min(m, n, 3)"),
        (M * min_extent(N, 2), "m*min(n, 2)"),
    ],
)  # fmt: skip
def test_text(extent: Extent, text: str) -> None:
    assert str(extent) == text


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (floor_div(7, 2), 3), (floor_div(-7, 2), -4), (floor_div(6 * N + 3, 3), 2 * N + 1),
        (floor_div(4 * N + 2, 6), floor_div(2 * N + 1, 3)), (floor_div(2 * N + 1, 4), floor_div(N, 2)),
        (floor_div(floor_div(N + 1, 2) + 1, 2), floor_div(N + 3, 4)), (floor_div(3 * N, 2), N + floor_div(N, 2)),
        (min_extent(N, N + 1), N), (min_extent(N, -1), -1), (max_extent(N, 0), N),
        (min_extent(2 * N, 4), 2 * min_extent(N, 2)),
        (min_extent(min_extent(N, 5), 3), min_extent(N, 3)), (min_extent(N - 3, 0) + 3, min_extent(N, 3)),
        (N - max_extent(N - 3, 0), min_extent(N, 3)), (min_extent(N, M), min_extent(M, N)),
        (max_extent(N, M) + min_extent(N, M), N + M), (min_extent(N, M, N + 2), min_extent(M, N)),
        (floor_div(min_extent(N, 1), 2), 0),
    ],
)  # fmt: skip
def test_normal_forms(a: Extent, b: Extent) -> None:
    assert a == b
    assert hash(a) == hash(b)


@pytest.mark.parametrize(
    ("extent", "low", "high"),
    [
        (N, 0, None), (N + 2, 2, None), (-N, None, 0), (min_extent(N, 4), 0, 4), (N - min_extent(N, 4), 0, None),
        (N - floor_div(N, 2), 0, None), (floor_div(N + 5, 2), 2, None), (min_extent(N, 2) - 5, -5, -3),
        (N - M, None, None),
        (N * M, 0, None), (exact_div(N, 2), 0, None), (N - floor_div(N + 1, 2) + 1, 1, None), (7, 7, 7),
    ],
)  # fmt: skip
def test_what_is_known(extent: Extent, low: int | None, high: int | None) -> None:
    assert lower_bound(extent) == low
    assert upper_bound(extent) == high


def test_symbols_and_polynomials() -> None:
    extent = min_extent(floor_div(N + M, 2), 3)
    assert symbols(extent) == set(NAMES)
    assert not is_polynomial(extent)
    assert is_polynomial(N * M + 2)
    assert is_polynomial(4)
    assert not is_polynomial(exact_div(N, 2))


def test_what_cannot_hold_is_a_contradiction() -> None:
    assert not Unifier().unify(min_extent(N, 5), 7)
    assert not Unifier().unify(N + 1, min_extent(N, M))
    unifier = Unifier()
    assert unifier.unify(min_extent(N, 5), 5)
    assert unifier.unify(N, 3)
    assert unifier.canonical(min_extent(N, 5)) == 3


def test_many_minima_take_no_exponential_time() -> None:
    """With 2**40 steps this would not end."""
    total: Extent = 0
    for i in range(40):
        total = total + min_extent(dim(f"a{i}"), i + 2)
    total = max_extent(min_extent(total, 50), floor_div(total, 2))
    assert evaluate(total, dict.fromkeys(symbols(total), 1)) == 40
