"""``x[...]``: ints, slices, None, Ellipsis and integer arrays, with NumPy's meaning, out of slices and gathers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np

from graphc.bounds import floor_div, max_extent, min_extent, upper_bound
from graphc.dims import Dim, Extent
from graphc.dtypes import int64
from graphc.errors import DTypeError, IndexRangeError, ShapeError
from graphc.node import Tensor
from graphc.ops.indexing import as_index, check_index, gather
from graphc.ops.leaf import extent_value
from graphc.ops.shape import expand_dims, squeeze
from graphc.ops.slicing import sliced

_WHAT = "x[...]"


@dataclass(frozen=True)
class _Walk:
    """What a key takes of one axis: ``count`` elements from ``start`` on in ``step``s. ``positive`` are the extents
    that must be at least 1 for them to exist.
    """

    start: Extent
    step: int
    count: Extent
    positive: tuple[Extent, ...] = ()


def subscript(x: Tensor, key: Any) -> Tensor:
    """``x[key]`` as in NumPy: ints and slices give a view, integer arrays and tensors gather.

    Raises ``ShapeError`` for too many indices, ``IndexRangeError`` for an int out of range, ``DTypeError`` for masks,
    floats, and slices between tensors.
    """
    items = [_checked(x, item) for item in (key if isinstance(key, tuple) else (key,))]
    entries = _expanded(x, items)
    if any(_is_array(entry) for entry in entries):
        return _gathered(x, items, entries)
    indices = [entry for entry in entries if entry is not None]
    found = _walked(x, [_walk(x, axis, entry) for axis, entry in enumerate(indices)])
    found = squeeze(found, tuple(axis for axis, entry in enumerate(indices) if not isinstance(entry, slice)))
    kept = [entry for entry in entries if entry is None or isinstance(entry, slice)]
    return expand_dims(found, tuple(place for place, entry in enumerate(kept) if entry is None))


def _is_array(entry: Any) -> TypeGuard[Tensor | np.ndarray[Any, Any] | list[Any]]:
    return isinstance(entry, (Tensor, np.ndarray, list))


def _checked(x: Tensor, item: Any) -> Any:
    """One part of the key, if it is one that an axis can be indexed with."""
    if isinstance(item, (bool, np.bool_)):
        raise DTypeError(f"{_WHAT}: a bool is no index into {x.describe()}; write int({item!r}) for the number")
    if isinstance(item, (int, np.integer)) or (
        isinstance(item, np.ndarray) and item.ndim == 0 and item.dtype.kind in "iu"
    ):
        return int(item)
    if isinstance(item, list) and any(isinstance(element, Tensor) for element in item):
        raise DTypeError(f"{_WHAT}: a list of tensors is no index into {x.describe()}; join them: graphc.stack(list)")
    if item is None or item is Ellipsis or isinstance(item, (slice, Dim)) or _is_array(item):
        return item
    raise DTypeError(
        f"{_WHAT}: an index is an int, a slice, None, Ellipsis, or an array or tensor of integers; got {item!r} for "
        f"{x.describe()}"
    )


def _expanded(x: Tensor, items: Sequence[Any]) -> list[Any]:
    """The key with one entry for each axis of ``x`` in place of Ellipsis, or at its end, and None for each new axis."""
    dots = [place for place, item in enumerate(items) if item is Ellipsis]
    used = sum(1 for item in items if item is not None and item is not Ellipsis)
    if len(dots) > 1:
        raise ShapeError(f"{_WHAT}: Ellipsis may stand once for all axes not named, got {len(dots)}; {x.describe()}")
    if used > x.ndim:
        raise ShapeError(f"{_WHAT}: {used} indices are too many for the {x.ndim} axes of {x.describe()}")
    place = dots[0] if dots else len(items)
    return [*items[:place], *([slice(None)] * (x.ndim - used)), *items[place + len(dots) :]]


# Ints and slices.


def _walked(x: Tensor, walks: Sequence[_Walk]) -> Tensor:
    return sliced(
        x, [w.start for w in walks], [w.step for w in walks], [w.count for w in walks],
        [e for w in walks for e in w.positive],
    )  # fmt: skip


def _walk(x: Tensor, axis: int, entry: int | Dim | slice) -> _Walk:
    extent = x.shape[axis]
    if isinstance(entry, slice):
        return _slice_walk(x, extent, entry)
    start = extent + entry if isinstance(entry, int) and entry < 0 else entry
    needed = (start + 1, extent - start)  # both at least 1
    if any((bound := upper_bound(e)) is not None and bound < 1 for e in needed):
        raise IndexRangeError(f"{_WHAT}: index {entry} lies outside axis {axis}, of extent {extent}, of {x.describe()}")
    return _Walk(start, 1, 1, needed)


def _slice_walk(x: Tensor, extent: Extent, entry: slice) -> _Walk:
    """A slice by NumPy's rules, for every value that the extents may take."""
    step = 1 if entry.step is None else entry.step
    if not isinstance(step, (int, np.integer)) or isinstance(step, bool) or not step:
        raise ShapeError(f"{_WHAT}: the step of a slice is an int other than 0, got {step!r} for {x.describe()}")
    step = int(step)
    # A forward slice is bounded by 0 and the extent; a backward one by -1, before the first, and the last element.
    low, high = (0, extent) if step > 0 else (-1, extent - 1)
    start = low if step > 0 else high
    stop = high if step > 0 else low
    if entry.start is not None:
        start = _bound(x, extent, entry.start, low, high)
    if entry.stop is not None:
        stop = _bound(x, extent, entry.stop, low, high)
    distance = max_extent(stop - start if step > 0 else start - stop, 0)
    count = floor_div(distance + (abs(step) - 1), abs(step))
    if step > 0 and isinstance(entry.start, int) and entry.start >= 0:
        start = entry.start  # past the end there is nothing to read, and no bound to respect
    positive = tuple(e + 1 for e in (entry.start, entry.stop) if isinstance(e, Dim))
    return _Walk(start, step, count, positive)


def _bound(x: Tensor, extent: Extent, bound: Any, low: Extent, high: Extent) -> Extent:
    if isinstance(bound, Tensor):
        raise DTypeError(
            f"{_WHAT}: the bounds of a slice are ints or extents, got {bound.describe()}: the result's shape would "
            f"depend on data. Take a fixed number of elements: graphc.take(x, start + graphc.arange(count), axis=...)"
        )
    if not isinstance(bound, (int, np.integer, Dim)) or isinstance(bound, bool):
        raise DTypeError(f"{_WHAT}: the bounds of a slice are ints or extents, got {bound!r} for {x.describe()}")
    if isinstance(bound, Dim):
        return min_extent(bound, high)
    return min_extent(int(bound), high) if bound >= 0 else max_extent(extent + int(bound), low)


# Integer arrays.


def _gathered(x: Tensor, items: Sequence[Any], entries: Sequence[Any]) -> Tensor:
    """The elements at the arrays' indices, which broadcast together, as ints do with them; then the slices.

    The axes of the indices stand where the first of them is, or in front of all others where something lies between
    them (NumPy's rule).
    """
    places = [i for i, item in enumerate(items) if _is_index(item)]
    in_front = places[-1] - places[0] >= len(places)
    named = [entry for entry in entries if entry is not None]
    indexed = [axis for axis, entry in enumerate(named) if _is_index(entry)]
    indices = [_index(x, axis, named[axis]) for axis in indexed]
    width = max(index.ndim for index in indices)
    before = 0 if in_front else indexed[0]
    after = x.ndim - len(indexed) - before
    layout: list[int | None] = []
    for axis in range(x.ndim):
        kept = sum(1 for place in layout if place is not None)
        layout.append(None if axis in indexed else kept + (width if kept >= before else 0))
    spread = [expand_dims(i, tuple(range(i.ndim, i.ndim + after))) for i in indices]
    try:
        found = gather(x, spread, layout, rank=x.ndim - len(indexed) + width)
    except ShapeError as error:
        lines = "".join(f"\n    {index.describe()}" for index in indices)
        raise ShapeError(
            f"{_WHAT}: the index arrays of one key must broadcast together\n  operands:\n    {x.describe()}{lines}"
        ) from error
    walks = [_Walk(0, 1, extent) for extent in found.shape]
    for axis, place in enumerate(layout):
        if place is not None:
            walks[place] = _walk(x, axis, named[axis])
    found = _walked(found, walks)
    return expand_dims(found, _new_axes(entries, width, in_front=in_front))


def _is_index(item: Any) -> bool:
    return isinstance(item, (int, Dim)) or _is_array(item)


def _index(x: Tensor, axis: int, entry: Any) -> Tensor:
    extent = x.shape[axis]
    if isinstance(entry, Dim):
        return check_index(extent_value(entry, int64), extent, what=_WHAT)
    return as_index(entry, extent, _WHAT)


def _new_axes(entries: Sequence[Any], width: int, *, in_front: bool) -> tuple[int, ...]:
    """Where the axes that None asks for stand in the result; the arrays' axes, ``width`` of them, stand together."""
    found = []
    place, pending = (width, 0) if in_front else (0, width)
    for entry in entries:
        if entry is None:
            found.append(place)
        if entry is None or isinstance(entry, slice):
            place += 1
        else:
            place, pending = place + pending, 0
    return tuple(found)
