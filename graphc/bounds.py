"""The order of extents: what is known of their size, minima and maxima, and quotients rounded down.

Slices need these: ``x[:5]`` of ``n`` elements has ``min(n, 5)``, ``x[::2]`` has ``(n + 1)//2``. All are written with
two kinds of atoms, ``Minimum`` and ``Floor``, each in a normal form, so that two slices that are equal have equal
extents. A maximum is a sum less a minimum.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable

from graphc.dims import (
    Atom,
    Dim,
    Extent,
    Floor,
    Minimum,
    Symbol,
    normal,
    of_atom,
    single_atom,
    terms_of,
)

DEPTH = 4  # of what is looked into for a bound, and how much side by side
WIDTH = 8  # extents that one minimum is taken of, where minima are merged


def floor_div(numerator: Extent, divisor: int) -> Extent:
    """``numerator / divisor`` rounded down, for a divisor of at least 1."""
    if isinstance(numerator, int):
        return numerator // divisor
    whole = normal({m: c // divisor for m, c in numerator.terms})
    rest = normal({m: c % divisor for m, c in numerator.terms})
    return whole + (0 if isinstance(rest, int) else _floor(rest, divisor))


def _floor(numerator: Dim, divisor: int) -> Extent:
    """The quotient of a sum whose coefficients are all below ``divisor``."""
    common = math.gcd(divisor, *(c for m, c in numerator.terms if m))
    reduced = normal({m: c // common for m, c in numerator.terms})
    assert isinstance(reduced, Dim)
    divisor //= common
    inner = next((single_atom(m, Floor) for m, c in reduced.terms if m and c == 1), None)
    rest = None if inner is None else reduced - of_atom(inner)
    if inner is not None and isinstance(rest, int):  # (n//a + b)//c is (n + a*b)//(a*c)
        return floor_div(inner.numerator + rest * inner.divisor, divisor * inner.divisor)
    low, high = lower_bound(reduced), upper_bound(reduced)
    if low is not None and high is not None and low // divisor == high // divisor:
        return low // divisor
    return of_atom(Floor(reduced, divisor))


def min_extent(*extents: Extent) -> Extent:
    """The least of the extents."""
    kept: list[Extent] = []
    for extent in _flattened(extents):
        if not any(_at_least(extent, other) for other in kept):
            kept = [other for other in kept if not _at_least(other, extent)] + [extent]
    if len(kept) == 1:
        return kept[0]
    terms = [dict(terms_of(e)) for e in kept]
    shared = {m: min(t.get(m, 0) for t in terms) for m in set().union(*terms)}
    common = normal(shared)
    rest = [e - common for e in kept]
    factor = math.gcd(*(c for e in rest for _, c in terms_of(e)))
    if factor > 1 or common != 0:
        return common + factor * min_extent(*(normal({m: c // factor for m, c in terms_of(e)}) for e in rest))
    return of_atom(Minimum(tuple(sorted(kept, key=_extent_key))))


def max_extent(*extents: Extent) -> Extent:
    """The greatest of the extents."""
    return -min_extent(*(-e for e in extents))


def _extent_key(extent: Extent) -> tuple[bool, str]:
    return isinstance(extent, int), str(extent)


def _flattened(extents: Iterable[Extent]) -> list[Extent]:
    """The extents, with a minimum among their terms replaced by what it is the minimum of; some stay if there are
    many, as n sums of minima would give 2**n.
    """
    found: list[Extent] = []
    pending = list(extents)[::-1]
    while pending:
        extent = pending.pop()
        inner = next((single_atom(m, Minimum) for m, c in terms_of(extent) if c == 1 and single_atom(m, Minimum)), None)
        if inner is None or len(found) + len(pending) >= WIDTH:
            found.append(extent)
        else:
            rest = extent - of_atom(inner)
            pending += [rest + e for e in inner.extents[::-1]]
    return found


def _at_least(a: Extent, b: Extent) -> bool:
    """Whether ``a >= b`` is known."""
    low = lower_bound(a - b)
    return low is not None and low >= 0


@functools.lru_cache(8192)
def lower_bound(extent: Extent, depth: int = DEPTH) -> int | None:
    """A number that ``extent`` is known not to be below (no symbol is below 0), or None. ``depth`` bounds how many
    minima and rounded quotients are looked into, one inside the other.
    """
    if isinstance(extent, int):
        return extent
    bounds = [_sum_of_bounds(extent, depth)]
    inside = sum(1 for m, _ in extent.terms if single_atom(m, Minimum) or single_atom(m, Floor))
    for monomial, coefficient in extent.terms if depth and inside <= DEPTH else ():
        minimum, floor = single_atom(monomial, Minimum), single_atom(monomial, Floor)
        if minimum is not None:
            rest = extent - coefficient * of_atom(minimum)
            parts = [lower_bound(rest + coefficient * e, depth - 1) for e in minimum.extents]
            known = [b for b in parts if b is not None]
            if coefficient < 0:  # a maximum, of which each part is a bound
                bounds += known
            elif len(known) == len(parts):
                bounds.append(min(known))
            break
        if floor is not None:  # n//d is at most n/d, and at least (n - d + 1)/d
            slack = floor.divisor - 1 if coefficient > 0 else 0
            rest = extent - coefficient * of_atom(floor)
            scaled = lower_bound(floor.divisor * rest + coefficient * (floor.numerator - slack), depth - 1)
            bounds.append(None if scaled is None else -(-scaled // floor.divisor))
            break
    return max((b for b in bounds if b is not None), default=None)


def upper_bound(extent: Extent) -> int | None:
    """A number that ``extent`` is known not to exceed, or None."""
    bound = lower_bound(-extent)
    return None if bound is None else -bound


def _sum_of_bounds(extent: Dim, depth: int) -> int | None:
    """The lower bound that follows from the bounds of each term by itself."""
    total = 0
    for monomial, coefficient in extent.terms:
        low: int | None = 1
        high: int | None = None if monomial else 1
        for atom, power in monomial:
            bound = _atom_bound(atom, depth)
            low = None if low is None or bound is None or bound < 0 else low * bound**power
        floor = single_atom(monomial, Floor)
        if floor is not None and depth:
            least = lower_bound(-floor.numerator, depth - 1)
            high = None if least is None else -least // floor.divisor
        bound = low if coefficient > 0 else high
        if bound is None:
            return None
        total += coefficient * bound
    return total


def _atom_bound(atom: Atom, depth: int) -> int | None:
    if isinstance(atom, Symbol):
        return 0
    if not depth:
        return None
    if isinstance(atom, Floor):
        bound = lower_bound(atom.numerator, depth - 1)
        return None if bound is None else bound // atom.divisor
    inner = atom.extents if isinstance(atom, Minimum) else (atom.numerator, atom.denominator)
    bounds = [lower_bound(e, depth - 1) for e in inner]
    known = [b for b in bounds if b is not None]
    if len(known) < len(bounds):
        return None
    return min(known) if isinstance(atom, Minimum) else (0 if min(known) >= 0 else None)
