"""Symbolic extents: integers known only when data is fed.

An extent is an ``int`` or a :class:`Dim`. A ``Dim`` is a polynomial with integer coefficients over atoms: symbols,
exact quotients, and what slices need, quotients rounded down and minima (bounds.py makes those). It is kept in a normal
form: polynomials over symbols are equal as values exactly when they are equal as objects. What is not equal as written
may still have to be equal: such constraints go into a :class:`Unifier`, a union-find over symbols that every later
comparison of extents asks.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar, Union

from graphc.errors import DTypeError
from graphc.symbolic import SymbolicValue

_serial = itertools.count()


@dataclass(frozen=True, slots=True)
class Symbol:
    """An unknown extent. Named symbols of one name are the same symbol; anonymous ones are told apart by serial."""

    name: str
    serial: int = -1

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Quotient:
    """An exact quotient that the normal form could not carry out; exactness is checked when it is evaluated."""

    numerator: Dim
    denominator: Extent

    def __str__(self) -> str:
        return f"({self.numerator})/({self.denominator})"


@dataclass(frozen=True, slots=True)
class Floor:
    """A quotient rounded down, with what the divisor divides taken out; made by ``floor_div``."""

    numerator: Dim
    divisor: int

    def __str__(self) -> str:
        text = str(self.numerator)
        return f"{text}//{self.divisor}" if text.isidentifier() else f"({text})//{self.divisor}"


@dataclass(frozen=True, slots=True)
class Minimum:
    """The least of several extents, with what they share taken out; made by ``min_extent``."""

    extents: tuple[Extent, ...]

    def __str__(self) -> str:
        return f"min({', '.join(map(str, self.extents))})"


Atom: TypeAlias = Symbol | Quotient | Floor | Minimum
Monomial: TypeAlias = tuple[tuple[Atom, int], ...]
Extent: TypeAlias = Union[int, "Dim"]


@functools.lru_cache(4096)
def _atom_key(atom: Atom) -> tuple[int, str, int]:
    return (0, atom.name, atom.serial) if isinstance(atom, Symbol) else (1, str(atom), 0)


class Dim(SymbolicValue):
    """A non-constant polynomial over symbols, in normal form. Immutable and hashable by value."""

    __slots__ = ("_hash", "terms")
    terms: tuple[tuple[Monomial, int], ...]

    def __init__(self, terms: tuple[tuple[Monomial, int], ...]) -> None:
        self.terms = terms
        self._hash = hash(terms)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dim) and (self is other or self.terms == other.terms)

    def __add__(self, other: Extent) -> Extent:
        if not _is_extent(other):
            return NotImplemented
        total = dict(terms_of(self))
        for monomial, coefficient in terms_of(other):
            total[monomial] = total.get(monomial, 0) + coefficient
        return normal(total)

    __radd__ = __add__

    def __neg__(self) -> Extent:
        return self * -1

    def __sub__(self, other: Extent) -> Extent:
        return self + other * -1 if _is_extent(other) else NotImplemented

    def __rsub__(self, other: int) -> Extent:
        return self * -1 + other if _is_extent(other) else NotImplemented

    def __mul__(self, other: Extent) -> Extent:
        if not _is_extent(other):
            return NotImplemented
        total: dict[Monomial, int] = {}
        for left, a in terms_of(self):
            for right, b in terms_of(other):
                monomial = _times(left, right)
                total[monomial] = total.get(monomial, 0) + a * b
        return normal(total)

    __rmul__ = __mul__

    def __floordiv__(self, other: Extent) -> Extent:
        return exact_div(self, other) if _is_extent(other) else NotImplemented

    def __rfloordiv__(self, other: int) -> Extent:
        return exact_div(other, self) if _is_extent(other) else NotImplemented

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        return _maximum_text(self) or "".join(_term_text(i, m, c) for i, (m, c) in enumerate(self.terms))


A = TypeVar("A", bound=Symbol | Quotient | Floor | Minimum)


def single_atom(monomial: Monomial, kind: type[A]) -> A | None:
    """The atom of that kind that the monomial consists of, if it does."""
    if len(monomial) == 1 and monomial[0][1] == 1 and isinstance(monomial[0][0], kind):
        return monomial[0][0]
    return None


def _term_text(position: int, monomial: Monomial, coefficient: int) -> str:
    sign = "" if not position else " - " if coefficient < 0 else " + "
    number = abs(coefficient) if position else coefficient
    alone = number == 1 and len(monomial) == 1
    factors = [str(number)] if number != 1 or not monomial else []
    for atom, power in monomial:
        text = f"({atom})" if isinstance(atom, Floor) and not (alone and power == 1) else str(atom)
        factors.append(text if power == 1 else f"{text}**{power}")
    return sign + "*".join(factors)


def _maximum_text(extent: Dim) -> str | None:
    """``n - min(n, 3)`` written as ``max(n - 3, 0)``."""
    for monomial, coefficient in extent.terms:
        found = single_atom(monomial, Minimum)
        if found is not None and coefficient == -1:
            rest = extent + of_atom(found)
            choices = sorted((rest - e for e in found.extents), key=lambda e: isinstance(e, int))
            if any(isinstance(e, int) for e in choices):
                return f"max({', '.join(map(str, choices))})"
    return None


def _is_extent(value: object) -> bool:
    """Whether arithmetic on extents takes ``value``; a float would lose its fraction, so it is refused with advice."""
    if isinstance(value, (Dim, int)) and not isinstance(value, bool):
        return True
    if isinstance(value, float):
        raise DTypeError(
            f"an extent is an integer, and cannot be combined with {value!r}; combine the tensor with both, one after "
            f"the other: t * extent * {value!r}"
        )
    return hasattr(value, "__index__") and type(value).__module__ == "numpy"


def terms_of(extent: Extent) -> tuple[tuple[Monomial, int], ...]:
    return extent.terms if isinstance(extent, Dim) else (((), int(extent)),)


def _times(left: Monomial, right: Monomial) -> Monomial:
    powers: dict[Atom, int] = dict(left)
    for atom, power in right:
        powers[atom] = powers.get(atom, 0) + power
    return tuple(sorted(powers.items(), key=lambda item: _atom_key(item[0])))


def normal(total: Mapping[Monomial, int]) -> Extent:
    terms = [(m, c) for m, c in total.items() if c]
    if not terms:
        return 0
    if len(terms) == 1 and not terms[0][0]:
        return terms[0][1]
    terms.sort(key=lambda t: (-sum(p for _, p in t[0]), [(_atom_key(a), p) for a, p in t[0]]))
    return Dim(tuple(terms))


def of_atom(atom: Atom) -> Dim:
    return Dim(((((atom, 1),), 1),))


def dim(name: str | None = None) -> Dim:
    """A symbolic extent: ``dim("batch")`` is the same extent everywhere, ``dim()`` is new each time."""
    if name is None:
        serial = next(_serial)
        return of_atom(Symbol(f"?{serial}", serial))
    if not name.isidentifier():
        raise ValueError(f"an extent's name must be an identifier, got {name!r}")
    return of_atom(Symbol(name))


def product(extents: Iterable[Extent]) -> Extent:
    """Product of extents; 1 for none."""
    total: Extent = 1
    for extent in extents:
        total = total * extent
    return total


def exact_div(numerator: Extent, denominator: Extent) -> Extent:
    """``numerator / denominator``, which must come out exactly; a ``ValueError`` if it is known not to."""
    if isinstance(numerator, int) and isinstance(denominator, int):
        if denominator == 0 or numerator % denominator:
            raise ValueError(f"{numerator} is not divisible by {denominator}")
        return numerator // denominator
    if denominator == 0:
        raise ValueError(f"{numerator} is not divisible by 0")
    if numerator == denominator:
        return 1
    divisor = terms_of(denominator)
    if len(divisor) == 1:
        monomial, coefficient = divisor[0]
        quotient: dict[Monomial, int] = {}
        for m, c in terms_of(numerator):
            rest = _without(m, monomial)
            if rest is None or c % coefficient:
                break
            quotient[rest] = c // coefficient
        else:
            return normal(quotient)
    return _kept_quotient(numerator, denominator)


def _kept_quotient(numerator: Extent, denominator: Extent) -> Dim:
    top = Dim((((), numerator),)) if isinstance(numerator, int) else numerator
    return of_atom(Quotient(top, denominator))


def _divided(numerator: Extent, denominator: Extent) -> Extent:
    """The quotient; kept as written when it is known not to be exact, for the one who evaluates it to say so."""
    try:
        return exact_div(numerator, denominator)
    except ValueError:
        return _kept_quotient(numerator, denominator)


def _without(monomial: Monomial, factor: Monomial) -> Monomial | None:
    powers = dict(monomial)
    for atom, power in factor:
        left = powers.get(atom, 0) - power
        if left < 0:
            return None
        if left:
            powers[atom] = left
        else:
            del powers[atom]
    return tuple(sorted(powers.items(), key=lambda item: _atom_key(item[0])))


def symbols(extent: Extent) -> set[Symbol]:
    """All symbols that ``extent`` depends on."""
    found: set[Symbol] = set()
    pending: list[Extent] = [extent]
    while pending:
        for monomial, _ in terms_of(pending.pop()):
            for atom, _ in monomial:
                if isinstance(atom, Symbol):
                    found.add(atom)
                else:
                    pending += _inner(atom)
    return found


def _inner(atom: Quotient | Floor | Minimum) -> tuple[Extent, ...]:
    """The extents that an atom is made of."""
    if isinstance(atom, Quotient):
        return atom.numerator, atom.denominator
    return (atom.numerator,) if isinstance(atom, Floor) else atom.extents


def _with_inner(atom: Quotient | Floor | Minimum, inner: Sequence[Extent]) -> Extent:
    """The extent that an atom made of ``inner`` in place of its own is."""
    from graphc.bounds import floor_div, min_extent

    if isinstance(atom, Quotient):
        return _divided(*inner)
    return floor_div(inner[0], atom.divisor) if isinstance(atom, Floor) else min_extent(*inner)


def is_polynomial(extent: Extent) -> bool:
    """Whether ``extent`` is made of numbers and symbols by sums and products alone."""
    return all(isinstance(atom, Symbol) for monomial, _ in terms_of(extent) for atom, _ in monomial)


def evaluate(extent: Extent, values: Mapping[Symbol, int]) -> int:
    """Value of ``extent``; ``KeyError`` for an unbound symbol, ``ValueError`` for an inexact quotient."""
    if isinstance(extent, int):
        return extent
    total = 0
    for monomial, coefficient in extent.terms:
        for atom, power in monomial:
            value = values[atom] if isinstance(atom, Symbol) else _evaluate_atom(atom, values)
            coefficient *= value**power
        total += coefficient
    return total


def _evaluate_atom(atom: Quotient | Floor | Minimum, values: Mapping[Symbol, int]) -> int:
    inner = [evaluate(e, values) for e in _inner(atom)]
    if isinstance(atom, Minimum):
        return min(inner)
    if isinstance(atom, Floor):
        return inner[0] // atom.divisor
    numerator, denominator = inner
    if denominator == 0 or numerator % denominator:
        raise ValueError(f"{atom} is {numerator}/{denominator}, which is not exact")
    return numerator // denominator


class Unifier:
    """Union-find over symbols: collects ``a == b`` and gives each extent its canonical form.

    Symbols are bound to extents (``_bound``); an equation that cannot be solved for a symbol is kept in ``residual``
    and must hold when numbers are known.
    """

    def __init__(self) -> None:
        self._bound: dict[Symbol, Extent] = {}
        self._memo: dict[Extent, Extent] = {}
        self.residual: list[tuple[Extent, Extent]] = []

    def canonical(self, extent: Extent) -> Extent:
        """``extent`` with every bound symbol replaced by what it is equal to."""
        if isinstance(extent, int) or not self._bound:
            return extent
        known = self._memo.get(extent)
        if known is None:
            known = self._memo[extent] = self._substitute(extent)
        return known

    def equal(self, a: Extent, b: Extent) -> bool:
        """Whether ``a`` and ``b`` are known to be equal."""
        return a == b or self.canonical(a) == self.canonical(b)

    def unify(self, a: Extent, b: Extent) -> bool:
        """Require ``a == b``. False if that is known to be impossible."""
        a, b = self.canonical(a), self.canonical(b)
        if a == b:
            return True
        if isinstance(a, int) and isinstance(b, int):
            return False
        difference = a - b
        if isinstance(difference, int) or not symbols(difference):
            return False  # two numbers, or a quotient of numbers that is not exact
        solvable = sorted(
            (m[0][0].serial >= 0, m[0][0].serial, m[0][0].name, m[0][0], c)
            for m, c in difference.terms
            if len(m) == 1 and m[0][1] == 1 and isinstance(m[0][0], Symbol) and abs(c) == 1
        )
        for _, _, _, symbol, coefficient in reversed(solvable):
            value = (difference - coefficient * of_atom(symbol)) * -coefficient
            if symbol not in symbols(value):
                if isinstance(value, int) and value < 0:
                    return False
                self._bound[symbol] = value
                self._memo.clear()
                return True
        from graphc.bounds import lower_bound, upper_bound

        least, most = lower_bound(difference), upper_bound(difference)
        if (least is not None and least > 0) or (most is not None and most < 0):
            return False
        self.residual.append((a, b))
        return True

    def _substitute(self, extent: Extent) -> Extent:
        while not isinstance(extent, int):
            total: Extent = 0
            changed = False
            for monomial, coefficient in extent.terms:
                term: Extent = coefficient
                for atom, power in monomial:
                    if isinstance(atom, Symbol):
                        value = self._bound.get(atom)
                        changed |= value is not None
                        factor: Extent = of_atom(atom) if value is None else value
                    else:
                        inner = tuple(self.canonical(e) for e in _inner(atom))
                        moved = inner != _inner(atom)
                        changed |= moved
                        factor = _with_inner(atom, inner) if moved else of_atom(atom)
                    for _ in range(power):
                        term = term * factor
                total = total + term
            if not changed:
                return extent
            extent = total
        return extent
