"""Feeds: what a caller passes to a run, checked, converted and bound to symbolic extents before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from graphc.dims import Dim, Extent, Symbol, evaluate, is_polynomial, of_atom, single_atom, symbols
from graphc.dtypes import DType
from graphc.errors import FeedError
from graphc.node import Node, Tensor
from graphc.opdef import Constraint
from graphc.ops.leaf import EXTENT, PLACEHOLDER

Array = np.ndarray[Any, Any]
Extras = tuple[tuple[Tensor, tuple[int, ...]], ...]
_ORDER = {"b": 0, "u": 1, "i": 1, "f": 2}


def convert(value: Any, target: Tensor, what: str) -> Array:
    """``value`` as an aligned, C-ordered array of the very dtype object, and the rank, of ``target``.

    Conversions that keep the kind (int64 -> int32 where the values fit, float64 -> float32) or widen it
    (bool -> int -> float) are made; others raise ``FeedError``, as do wrong ranks, fixed extents that differ,
    ragged lists and object arrays.
    """
    dtype = target.dtype
    if type(value) is np.ndarray and value.dtype is dtype and value.flags.carray:
        array = value
    else:
        array = _converted(value, dtype, what)
    shape = target.shape
    if array.ndim != len(shape):
        raise FeedError(
            f"{what}: expected rank {len(shape)} ({target.type}), got rank {array.ndim}, shape {array.shape}"
        )
    for axis, (wanted, found) in enumerate(zip(shape, array.shape, strict=True)):
        if type(wanted) is int and wanted != found:
            raise FeedError(
                f"{what}: axis {axis} must have extent {wanted} ({target.type}), got {found}, shape {array.shape}"
            )
    return array


def _converted(value: Any, dtype: DType, what: str) -> Array:
    if isinstance(value, Tensor):
        raise FeedError(f"{what}: a feed is an array, got the symbolic tensor {value.describe()}; run it first")
    if isinstance(value, np.ma.MaskedArray):
        raise FeedError(f"{what}: a masked array would lose its mask; fill it first, for example with .filled(0)")
    if value is None:
        raise FeedError(f"{what} was fed None")
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise FeedError(f"{what}: the nested list is ragged (its rows differ in length): {error}") from error
    kind = array.dtype.kind
    if kind not in _ORDER:
        raise FeedError(f"{what}: cannot feed an array of dtype {array.dtype}; expected numbers that fit {dtype}")
    if _ORDER[kind] > _ORDER[dtype.kind] and array.size:
        raise FeedError(
            f"{what}: {array.dtype} values cannot be fed to {dtype} without losing their kind; "
            f"convert them on purpose with .astype({str(dtype)!r})"
        )
    if dtype.kind in "iu" and kind in "iu" and array.size:
        info = np.iinfo(dtype)
        low, high = int(array.min()), int(array.max())
        if low < info.min or high > info.max:
            raise FeedError(f"{what}: values from {low} to {high} do not fit {dtype} ({info.min} to {info.max})")
    with np.errstate(over="ignore"):
        found = np.require(array.astype(dtype, copy=False), dtype, ["C", "A"])
    return found if found.dtype is dtype else found.view(dtype)  # equal dtypes may be told apart, by metadata


class Place(NamedTuple):
    """Where an extent was found."""

    tensor: Tensor
    axis: int
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"axis {self.axis} of {self.tensor.name!r} (shape {self.shape})"


class FeedPlan:
    """Placeholders of one compiled graph: looks feeds up, converts them, and binds symbolic extents.

    ``nodes`` are all nodes of the graph, whose constraints are checked for every new combination of shapes.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.placeholders: tuple[Tensor, ...] = tuple(n.outputs[0] for n in nodes if n.op is PLACEHOLDER)
        self._by_name: dict[str, list[Tensor]] = {}
        for tensor in self.placeholders:
            if tensor.node.name:
                self._by_name.setdefault(tensor.node.name, []).append(tensor)
        self._constraints = _distinct_constraints(nodes)
        self._users = _users_of_symbols(nodes)
        known = {s for t in self.placeholders for e in t.shape for s in symbols(e)}
        self.takes_extents = not self._users.keys() <= known
        self._bound: dict[Any, dict[Symbol, int]] = {}

    def resolve(self, feeds: Mapping[Any, Any]) -> tuple[list[Array], Extras]:
        """Converted arrays in the order of ``placeholders``, and what is fed for its extents alone.

        ``FeedError`` for anything missing, unknown or unfit.
        """
        if not isinstance(feeds, Mapping):
            raise FeedError(
                f"feeds map placeholders to arrays, as in {{x: array}}; got {type(feeds).__name__}. A step compiled "
                f"with feeds=[x, y] is called with arrays alone: step(x_array, y_array)"
            )
        given: dict[Tensor, Array] = {}
        for key, value in feeds.items():
            target = self.target(key)
            if target in given:
                raise FeedError(f"placeholder {target.name!r} is fed twice, by itself and by its name")
            given[target] = convert(value, target, f"placeholder {target.name!r}")
        missing = [t for t in self.placeholders if t not in given]
        if missing:
            lines = "".join(f"\n    {t.describe()}" for t in missing)
            raise FeedError(f"the fetches need placeholders that were not fed:{lines}")
        return [given.pop(t) for t in self.placeholders], self.extras(given)

    def extras(self, given: Mapping[Tensor, Array]) -> Extras:
        """Shapes of placeholders that are not read, where the graph needs an extent that only they have."""
        return tuple([(t, a.shape) for t, a in given.items()]) if self.takes_extents else ()

    def target(self, key: Any, what: str = "a feed's key is a placeholder or its name") -> Tensor:
        """The placeholder that ``key`` (itself or its name) stands for; ``what`` says where one is expected."""
        if isinstance(key, Tensor):
            if key.node.op is not PLACEHOLDER:
                raise FeedError(f"only placeholders can be fed, got {key.describe()}")
            return key
        if not isinstance(key, str):
            shown = f"an array of shape {key.shape}" if isinstance(key, np.ndarray) else repr(key)
            raise FeedError(f"{what}, got {shown}")
        found = self._by_name.get(key, [])
        if not found:
            known = ", ".join(sorted(self._by_name)) or "none with a name"
            raise FeedError(f"no placeholder named {key!r} is needed by these fetches; they need: {known}")
        if len(found) > 1:
            lines = "".join(f"\n    {t.describe()}" for t in found)
            raise FeedError(f"the name {key!r} is shared by several placeholders; feed them by tensor:{lines}")
        return found[0]

    def bind(self, shapes: tuple[tuple[int, ...], ...], extras: Extras = ()) -> dict[Symbol, int]:
        """Values of all symbolic extents for feeds of these shapes; checked once per combination."""
        key = (shapes, tuple([(t.node, shape) for t, shape in extras])) if extras else shapes
        values = self._bound.get(key)
        if values is None:
            values = self._solve([*zip(self.placeholders, shapes, strict=True), *extras])
            if len(self._bound) >= 1024:
                self._bound.pop(next(iter(self._bound)))
            self._bound[key] = values
        return values

    def _solve(self, fed: Sequence[tuple[Tensor, tuple[int, ...]]]) -> dict[Symbol, int]:
        values: dict[Symbol, int] = {}
        source: dict[Symbol, Place] = {}
        later: list[tuple[Dim, int, Place]] = []
        for tensor, shape in fed:
            for axis, (extent, found) in enumerate(zip(tensor.shape, shape, strict=True)):
                if isinstance(extent, Dim):
                    symbol = _only_symbol(extent)
                    if symbol is not None and values.setdefault(symbol, found) == found:
                        source.setdefault(symbol, Place(tensor, axis, shape))
                    else:
                        later.append((extent, found, Place(tensor, axis, shape)))
        for extent, found, place in sorted(later, key=lambda item: _difficulty(item[0])) if later else ():
            _solve_one(extent, found, place, values, source)
        for constraint, node, needed in self._constraints:
            if not needed <= values.keys():
                raise _unbound(needed - values.keys(), node)
            _check(constraint, node, values, source)
        unbound = [s for s in self._users if s not in values]
        if unbound:
            raise _unbound(unbound, self._users[unbound[0]])
        return values


def _distinct_constraints(nodes: Iterable[Node]) -> list[tuple[Constraint, Node, frozenset[Symbol]]]:
    """Every constraint once, with the first node that has it and the symbols in it."""
    seen: dict[Constraint, Node] = {}
    for node in nodes:
        for constraint in node.constraints:
            seen.setdefault(constraint, node)
    return [(c, node, frozenset().union(*(symbols(e) for e in c if e is not None))) for c, node in seen.items()]


def _users_of_symbols(nodes: Iterable[Node]) -> dict[Symbol, Node]:
    """For each symbol whose value a run needs, the first node that needs it."""
    found: dict[Symbol, Node] = {}
    seen: set[Extent] = set()
    for node in nodes:
        extents = [e for result in node.results for e in result.shape if type(e) is not int]
        if node.op is EXTENT:
            extents.append(node.attrs["extent"])
        for extent in extents:
            if extent not in seen:
                seen.add(extent)
                for symbol in symbols(extent):
                    found.setdefault(symbol, node)
    return found


def _unbound(missing: Iterable[Symbol], node: Node) -> FeedError:
    names = ", ".join(sorted(map(str, missing)))
    return FeedError(
        f"the extent {names}, used by {node.op.name} at {node.where}, is the extent of no placeholder that "
        f"is fed; feed one that has it"
    )


def _only_symbol(extent: Dim) -> Symbol | None:
    """The symbol that the extent is, if it is nothing else."""
    monomial, coefficient = extent.terms[0]
    return single_atom(monomial, Symbol) if coefficient == 1 and len(extent.terms) == 1 else None


def _difficulty(extent: Dim) -> tuple[bool, int]:
    """What determines symbols by itself comes first; minima and quotients do so in part, or not at all."""
    return not is_polynomial(extent), len(symbols(extent)) + (len(extent.terms) > 1)


def _solve_one(extent: Dim, found: int, place: Place, values: dict[Symbol, int], source: dict[Symbol, Place]) -> None:
    unknown = [s for s in symbols(extent) if s not in values]
    if len(unknown) == 1:
        symbol = unknown[0]
        value = _solve_linear(extent, symbol, found, values)
        if value is not None:
            values[symbol], source[symbol] = value, place
            return
    if unknown:
        raise FeedError(
            f"{place}: the extent {extent} does not determine {', '.join(map(str, unknown))}; "
            f"give it a placeholder axis of its own"
        )
    try:
        expected = evaluate(extent, values)
    except ValueError as error:
        raise FeedError(f"{place}: {error}") from error
    if expected != found:
        origin = "; ".join(f"{s} is {values[s]} from {source[s]}" for s in sorted(symbols(extent), key=str))
        raise FeedError(f"{place}: the extent {extent} must be {expected}, got {found} ({origin})")


def _solve_linear(extent: Dim, symbol: Symbol, found: int, values: dict[Symbol, int]) -> int | None:
    """The only value of ``symbol`` with which ``extent`` is ``found``, if it is found by a straight line."""
    try:
        base = evaluate(extent, {**values, symbol: 0})
        slope = evaluate(extent, {**values, symbol: 1}) - base
        if slope == 0 or (found - base) % slope:
            return None
        value = (found - base) // slope
        fits = [evaluate(extent, {**values, symbol: value + step}) == found for step in (0, 1)]
    except ValueError:
        return None  # a quotient that is not exact
    return value if value >= 0 and fits == [True, False] else None


def _check(constraint: Constraint, node: Node, values: dict[Symbol, int], source: dict[Symbol, Place]) -> None:
    a, b = constraint
    try:
        left = evaluate(a, values)
        right = None if b is None else evaluate(b, values)
    except ValueError as error:
        raise FeedError(f"{_maker(node)}: {error}") from error
    if right is None:
        if left < 1:
            raise _too_few(constraint, node, values, source)
    elif left != right:
        known = [s for e in constraint if e is not None for s in sorted(symbols(e), key=str) if s in source]
        lines = "".join(f"\n    {f'{s} = ' if _is_named(s) else ''}{values[s]} from {source[s]}" for s in known)
        raise FeedError(
            f"{_maker(node)} needs equal extents, and the feeds make them {left} and {right} ({constraint.what}):"
            f"{lines}\n  operands:{_operands(node)}"
        )


def _too_few(
    constraint: Constraint, node: Node, values: Mapping[Symbol, int], source: Mapping[Symbol, Place]
) -> FeedError:
    """What to say of an extent that had to be at least 1: of ``n - 7``, that n had to be at least 8."""
    extent, least = constraint[0], 1
    for symbol in symbols(extent):
        rest = extent - of_atom(symbol)
        if isinstance(rest, int):
            extent, least = of_atom(symbol), 1 - rest
    count = "one element" if least == 1 else f"{least} elements"
    along = f" along {extent}" if _is_named(extent) else ""
    known = sorted(symbols(extent), key=str)
    origin = "; ".join(f"{s} is {values[s]} from {source[s]}" if _is_named(s) else str(source[s]) for s in known)
    return FeedError(
        f"{_maker(node)}: {constraint.what} needs at least {count}{along}, and the feeds make it "
        f"{evaluate(extent, values)} ({origin})\n  operands:{_operands(node)}"
    )


def _maker(node: Node) -> str:
    """The function that made the node, as the user knows it, and the line."""
    return f"{node.attrs.get('what', node.op.name)} at {node.where}"


def _operands(node: Node) -> str:
    return "".join(f"\n    {t.describe()}" for t in node.inputs)


def _is_named(extent: Extent | Symbol) -> bool:
    """Whether the user gave the extent a name."""
    return "?" not in str(extent)
