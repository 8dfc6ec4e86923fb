"""Extents for a report: from example arrays, from names, or from the last run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from graphc.dims import Dim, Symbol, evaluate, symbols
from graphc.errors import FeedError
from graphc.node import Tensor
from runtime.feeds import FeedPlan


def named_extents(plan: FeedPlan, feeds: Iterable[Tensor], given: Mapping[str, int], what: str) -> dict[Symbol, int]:
    """Values of all symbolic extents, of which ``given`` are known by their names.

    ``FeedError`` for unknown names and where some remain unknown.
    """
    known = _symbols([*plan.placeholders, *feeds])
    values = {s: given[s.name] for s in known if s.name in given}
    unknown = sorted(given.keys() - {s.name for s in known})
    if unknown:
        names = ", ".join(s.name for s in known if s.serial < 0) or "none has a name"
        raise FeedError(f"{what}: no extent of the feeds is named {', '.join(unknown)}; there are: {names}")
    wrong = [f"{name}={value!r}" for name, value in given.items() if not _is_extent(value)]
    if wrong:
        raise FeedError(f"{what}: an extent is an int of at least 0, got {', '.join(wrong)}")
    missing = [s for s in known if s not in values]
    if missing:
        raise FeedError(f"{what}: {_advice(missing, [*plan.placeholders, *feeds])}")
    shapes = {t: tuple(evaluate(e, values) for e in t.shape) for t in (*plan.placeholders, *feeds)}
    unread = {t: shapes[t] for t in feeds if all(t is not p for p in plan.placeholders)}
    return plan.bind(tuple(shapes[t] for t in plan.placeholders), tuple(unread.items()))


def unknown_extents(plan: FeedPlan, feeds: Iterable[Tensor], what: str) -> FeedError:
    """The error for a report that was asked for before anything was known."""
    tensors = [*plan.placeholders, *feeds]
    return FeedError(f"{what}: {_advice(_symbols(tensors), tensors)}")


def has_extents(plan: FeedPlan, feeds: Iterable[Tensor]) -> bool:
    """Whether any extent is symbolic."""
    return bool(_symbols([*plan.placeholders, *feeds]))


def _symbols(tensors: Iterable[Tensor]) -> list[Symbol]:
    return list(dict.fromkeys(s for t in tensors for e in t.shape for s in sorted(symbols(e), key=str)))


def _is_extent(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _advice(missing: Sequence[Symbol], tensors: Iterable[Tensor]) -> str:
    names = [s.name for s in missing if s.serial < 0]
    without = [s for s in missing if s.serial >= 0]
    lines = "".join(
        f"\n    {t.describe()}"
        for t in dict.fromkeys(tensors)
        if any(isinstance(e, Dim) and symbols(e) & set(missing) for e in t.shape)
    )
    call = ", ".join(f"{n}=..." for n in names)
    how = f"name them ({call}), or give arrays as in a run" if not without else "give arrays as in a run"
    return f"not all extents are known; {how}:{lines}"
