"""Fetches: any nesting of tensors and updates, flattened for the compiler and rebuilt around the results."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from graphc.errors import FetchError
from graphc.node import Tensor
from graphc.optim import Optimizer
from graphc.state import Update, check_updates
from passes.gradient import without_idle_rules
from passes.graph import Graph

Rebuild = Callable[[Sequence[Any]], Any]
MISFIT = object()  # instead of results: a quick run does not suit these arrays, and has done nothing


@dataclass(frozen=True)
class Fetches:
    """A flattened fetch: the graph of what is wanted, and how its results are put back in the caller's structure.

    ``fetched`` are kept because a cache key is made of identities, which others may take once an object is gone.
    """

    graph: Graph
    rebuild: Rebuild
    fetched: tuple[Tensor | Update, ...]


def flatten(fetches: Any) -> Fetches:
    """Flatten lists, tuples, named tuples and dicts of tensors and updates. ``FetchError`` for anything else."""
    outputs: list[Tensor] = []
    updates: list[Update] = []
    rebuild = _flatten(fetches, outputs, updates, "fetches")
    assigns = check_updates([assign for update in updates for assign in update.assigns])
    return Fetches(without_idle_rules(Graph(tuple(outputs), assigns)), rebuild, (*outputs, *updates))


def _flatten(fetch: Any, outputs: list[Tensor], updates: list[Update], path: str) -> Rebuild:
    if isinstance(fetch, Tensor):
        place = len(outputs)
        outputs.append(fetch)
        return operator.itemgetter(place)
    if isinstance(fetch, Update):
        updates.append(fetch)
        return lambda results: None
    if isinstance(fetch, dict):
        parts = {k: _flatten(v, outputs, updates, f"{path}[{k!r}]") for k, v in fetch.items()}
        return lambda results: {k: part(results) for k, part in parts.items()}
    if isinstance(fetch, (list, tuple)):
        items = [_flatten(v, outputs, updates, f"{path}[{i}]") for i, v in enumerate(fetch)]
        if hasattr(fetch, "_fields"):
            kind = type(fetch)
            return lambda results: kind(*(item(results) for item in items))
        if isinstance(fetch, tuple):
            return lambda results: tuple([item(results) for item in items])
        return lambda results: [item(results) for item in items]
    hint = "; fetch tensors themselves, not their names" if isinstance(fetch, str) else ""
    if isinstance(fetch, Optimizer):
        hint = f"; fetch {type(fetch).__name__}(...).minimize(loss)"
    raise FetchError(
        f"{path}: can fetch tensors, updates and nestings of them, got {type(fetch).__name__} {fetch!r}{hint}"
    )


def cache_key(fetches: Any) -> Any:
    """A hashable key under which the same structure of the same tensors is found again, while someone holds them."""
    if type(fetches) is Tensor or type(fetches) is Update:
        return id(fetches)  # tensors compare elementwise, so they cannot be part of the key themselves
    if isinstance(fetches, dict):
        return (dict, tuple((k, cache_key(v)) for k, v in fetches.items()))
    if isinstance(fetches, (list, tuple)):
        return (type(fetches), tuple([cache_key(v) for v in fetches]))
    return id(fetches)
