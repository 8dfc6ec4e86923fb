"""Symbolic extents: integers known only when data is fed.

An extent is an ``int`` or a :class:`Dim`. A ``Dim`` is a polynomial with integer coefficients over symbols and exact
quotients, kept in a normal form, so that two extents are equal as values exactly when they are equal as objects. What
is not equal as written may still have to be equal: such constraints go into a :class:`Unifier`, a union-find over
symbols that every later comparison of extents asks.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias, Union

from graphc.errors import DTypeError

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


Atom: TypeAlias = Symbol | Quotient
Monomial: TypeAlias = tuple[tuple[Atom, int], ...]
Extent: TypeAlias = Union[int, "Dim"]


def _atom_key(atom: Atom) -> tuple[int, str, int]:
    return (0, atom.name, atom.serial) if isinstance(atom, Symbol) else (1, str(atom), 0)


class Dim:
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
        total = dict(_terms(self))
        for monomial, coefficient in _terms(other):
            total[monomial] = total.get(monomial, 0) + coefficient
        return _normal(total)

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
        for left, a in _terms(self):
            for right, b in _terms(other):
                monomial = _times(left, right)
                total[monomial] = total.get(monomial, 0) + a * b
        return _normal(total)

    __rmul__ = __mul__

    def __floordiv__(self, other: Extent) -> Extent:
        return exact_div(self, other) if _is_extent(other) else NotImplemented

    def __rfloordiv__(self, other: int) -> Extent:
        return exact_div(other, self) if _is_extent(other) else NotImplemented

    def __int__(self) -> int:
        raise TypeError(f"the extent {self} is symbolic; its value is known only when data is fed")

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        parts = []
        for monomial, coefficient in self.terms:
            factors = [str(atom) if power == 1 else f"{atom}**{power}" for atom, power in monomial]
            if coefficient != 1 or not factors:
                factors.insert(0, str(coefficient))
            parts.append("*".join(factors))
        return " + ".join(parts).replace("+ -", "- ")


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


def _terms(extent: Extent) -> tuple[tuple[Monomial, int], ...]:
    return extent.terms if isinstance(extent, Dim) else (((), int(extent)),)


def _times(left: Monomial, right: Monomial) -> Monomial:
    powers: dict[Atom, int] = dict(left)
    for atom, power in right:
        powers[atom] = powers.get(atom, 0) + power
    return tuple(sorted(powers.items(), key=lambda item: _atom_key(item[0])))


def _normal(total: Mapping[Monomial, int]) -> Extent:
    terms = [(m, c) for m, c in total.items() if c]
    if not terms:
        return 0
    if len(terms) == 1 and not terms[0][0]:
        return terms[0][1]
    terms.sort(key=lambda t: (-sum(p for _, p in t[0]), [(_atom_key(a), p) for a, p in t[0]]))
    return Dim(tuple(terms))


def _of_atom(atom: Atom) -> Dim:
    return Dim(((((atom, 1),), 1),))


def dim(name: str | None = None) -> Dim:
    """A symbolic extent: ``dim("batch")`` is the same extent everywhere, ``dim()`` is new each time."""
    if name is None:
        serial = next(_serial)
        return _of_atom(Symbol(f"?{serial}", serial))
    if not name.isidentifier():
        raise ValueError(f"an extent's name must be an identifier, got {name!r}")
    return _of_atom(Symbol(name))


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
    divisor = _terms(denominator)
    if len(divisor) == 1:
        monomial, coefficient = divisor[0]
        quotient: dict[Monomial, int] = {}
        for m, c in _terms(numerator):
            rest = _without(m, monomial)
            if rest is None or c % coefficient:
                break
            quotient[rest] = c // coefficient
        else:
            return _normal(quotient)
    return _kept_quotient(numerator, denominator)


def _kept_quotient(numerator: Extent, denominator: Extent) -> Dim:
    top = Dim((((), numerator),)) if isinstance(numerator, int) else numerator
    return _of_atom(Quotient(top, denominator))


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
        for monomial, _ in _terms(pending.pop()):
            for atom, _ in monomial:
                if isinstance(atom, Symbol):
                    found.add(atom)
                else:
                    pending += [atom.numerator, atom.denominator]
    return found


def evaluate(extent: Extent, values: Mapping[Symbol, int]) -> int:
    """Value of ``extent``; ``KeyError`` for an unbound symbol, ``ValueError`` for an inexact quotient."""
    if isinstance(extent, int):
        return extent
    total = 0
    for monomial, coefficient in extent.terms:
        for atom, power in monomial:
            if isinstance(atom, Symbol):
                value = values[atom]
            else:
                numerator, denominator = evaluate(atom.numerator, values), evaluate(atom.denominator, values)
                if denominator == 0 or numerator % denominator:
                    raise ValueError(f"{atom} is {numerator}/{denominator}, which is not exact")
                value = numerator // denominator
            coefficient *= value**power
        total += coefficient
    return total


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
            value = (difference - coefficient * _of_atom(symbol)) * -coefficient
            if symbol not in symbols(value):
                if isinstance(value, int) and value < 0:
                    return False
                self._bound[symbol] = value
                self._memo.clear()
                return True
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
                        factor: Extent = _of_atom(atom) if value is None else value
                    else:
                        top, bottom = self.canonical(atom.numerator), self.canonical(atom.denominator)
                        moved = (top, bottom) != (atom.numerator, atom.denominator)
                        changed |= moved
                        factor = _divided(top, bottom) if moved else _of_atom(atom)
                    for _ in range(power):
                        term = term * factor
                total = total + term
            if not changed:
                return extent
            extent = total
        return extent
