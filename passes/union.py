"""Two clusters as one: which axes correspond, the union, and whether it is a kernel.

Answers that are no are words, which ``explain`` shows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence

from graphc.dims import Extent, product
from graphc.node import Node, Tensor
from graphc.opdef import Kind
from passes.cluster import CHEAP, MAX_POINTERS, Cluster, Map, Walk, input_maps, is_plain, walked
from passes.stages import Stages

NARROW = 128  # elements of a row below which it costs more to add it up by itself than to read it once more
Axes = dict[int, int]  # from axes of one cluster to axes of the other


# Which axes correspond.


def aligned(one: Cluster, other: Cluster, through: Sequence[Tensor]) -> Axes | str:
    """The axes of ``other`` as axes of ``one``, which stores the tensors ``through`` that ``other`` reads: all must be
    walked alike.
    """
    axes: Axes = {}
    for tensor in through:
        (mine,), (theirs,) = one.maps[tensor], other.maps[tensor]
        if not _extend(axes, mine, theirs):
            return f"{tensor.name} is walked differently"
    return axes if axes else "one waits for a single number that the other makes"


def aligned_by_input(one: Cluster, other: Cluster) -> Axes | str:
    """The axes of ``other`` as axes of ``one``, from the largest tensor that both read: one that has all axes of one
    of them. Where neither reduces, both must walk it in the same order, or one would walk its own tensors across.
    """
    needed = min(len(wide_axes(c)) for c in (one, other))
    for tensor in sorted((t for t in other.reads() if t in one.maps), key=lambda t: -t.ndim):
        maps = [*one.maps[tensor], *other.maps[tensor]]
        axes: Axes = {}
        if len(maps) == 2 and all(map(is_plain, maps)) and _extend(axes, *maps) and len(axes) >= needed > 0:
            ordered = [axes[b] for b in sorted(axes)] == sorted(axes.values())
            return axes if ordered or one.reduced or other.reduced else "they walk the axes in different orders"
    return "they share no tensor that both walk as a whole"


def _extend(axes: Axes, mine: Map, theirs: Map) -> bool:
    """Note which axes two maps of one tensor follow; False where they contradict what is known."""
    for a, b in zip(mine, theirs, strict=True):
        if a is None and b is None:
            continue
        if not isinstance(a, int) or not isinstance(b, int) or axes.setdefault(b, a) != a:
            return False
    return len(set(axes.values())) == len(axes)


def completed(one: Cluster, other: Cluster, axes: Axes, canonical: Callable[[Extent], Extent]) -> Axes | str:
    """``axes`` with those that no shared tensor tells: axes of equal extents, in order."""
    axes = dict(axes)
    free = [a for a in wide_axes(one) if a not in axes.values()]
    for axis in wide_axes(other):
        if axis not in axes and free:
            if canonical(other.frame[axis]) != canonical(one.frame[free[0]]):
                return "they walk axes of different extents"
            axes[axis] = free.pop(0)
    return axes


def wider(one: Cluster, other: Cluster, axes: Axes) -> tuple[Cluster | None, Cluster, Axes]:
    """The cluster that has all axes of both (None if neither has), the other, and the other's axes in the first."""
    if all(a in axes for a in wide_axes(other)):
        return one, other, axes
    back = {mine: theirs for theirs, mine in axes.items()}
    return (other if all(a in back for a in wide_axes(one)) else None), one, back


def same_combination(one: Cluster, other: Cluster) -> Axes | None:
    """The axes of ``other`` as axes of ``one``, where both combine partial results over one range for the same
    columns.
    """
    columns = [[a for a in c.outer if c.frame[a] != 1] for c in (one, other)]
    walks = [[*cols, *sorted(c.reduced)] for cols, c in zip(columns, (one, other), strict=True)]
    if [one.frame[a] for a in walks[0]] != [other.frame[a] for a in walks[1]] or len(columns[0]) != len(columns[1]):
        return None
    return dict(zip(walks[1], walks[0], strict=True))


def wide_axes(cluster: Cluster) -> list[int]:
    """The axes of a cluster that have more than a single element."""
    return [a for a, e in enumerate(cluster.frame) if e != 1]


# The union.


def united(base: Cluster, joined: Cluster, axes: Axes, reduced: frozenset[int]) -> Cluster:
    """Both clusters in the frame of ``base``; ``axes`` are those of ``joined`` in it."""
    union = Cluster(base.frame, reduced)
    renamed = functools.cache(lambda out: _renamed(out, axes))  # most tensors of a kernel have one map
    union.nodes = {**base.nodes, **joined.nodes}
    union.maps = {t: dict(maps) for t, maps in base.maps.items()}
    for tensor, maps in joined.maps.items():
        union.maps.setdefault(tensor, {}).update(dict.fromkeys(map(renamed, maps)))
    union.outputs = {**base.outputs, **joined.outputs}
    union.pieces = [*base.pieces, *joined.pieces]
    union.totals = {**base.totals, **{t: renamed(m) for t, m in joined.totals.items()}}
    union.combined = {**base.combined, **joined.combined}
    return union


def _renamed(out: Map, axes: dict[int, int]) -> Map:
    """A map in the axes of another frame; an axis of extent 1 disappears."""
    renamed: list[int | Walk | None] = []
    for place in out:
        if isinstance(place, Walk):
            axis = None if place.axis is None else axes.get(place.axis)
            renamed.append(Walk(axis, place.step if axis is not None or place.axis is None else 0, place.start))
        else:
            renamed.append(None if place is None else axes.get(place))
    return tuple(renamed)


# Whether it is a kernel.


def obstacle(union: Cluster) -> str | None:
    """Why a union is no kernel, or no good one."""
    if union.pointers() > MAX_POINTERS:
        return f"together they have more than {MAX_POINTERS} pointers"
    wide = wide_axes(union)
    outer = [a for a in wide if a not in union.reduced]
    stored = [*union.outputs, *(piece.value for piece in union.pieces)]
    for tensor in stored:
        for out in union.maps[tensor]:
            if not is_plain(out) or len(union.maps[tensor]) > 1 or sorted(walked(out)) not in (wide, outer):
                return f"{tensor.name} does not have one element for each step of the kernel"
    for node in union.nodes:
        problem = _node_problem(union, node, wide)
        if problem:
            return problem
    inner = bool(outer) and wide[-len(union.reduced) :] == sorted(union.reduced)
    if not (inner and memory_order(union)[-1] in union.reduced) and (union.totals or Stages(union).is_row_wise()):
        return "a reduction is needed again along the axes that it reduces, which are not the innermost"
    return None


def _node_problem(union: Cluster, node: Node, wide: Sequence[int]) -> str | None:
    maps = {} if node.op.kind is Kind.CONCAT else union.maps.get(node.outputs[0], {})
    if node.op.kind is Kind.REDUCE:
        return _reduction_problem(union, node)
    if node.op.fallible:
        for out in maps:
            reached = all(a in walked(out) or _is_positive(union.frame[a]) for a in wide)
            if not is_plain(out) or not reached:
                return f"{node.op.name} must run even where the kernel has nothing to do"
    if node.op.cost <= CHEAP:
        return None
    if len(maps) > 1:
        return f"{node.op.name} would be computed more than once"
    for out in maps:
        along = sorted(walked(out))
        if along and along != list(wide[: len(along)]):
            return f"{node.op.name} would be computed again in every row"
    return None


def _reduction_problem(union: Cluster, node: Node) -> str | None:
    maps = union.maps[node.outputs[0]]
    reduced = {a for a in union.reduced if union.frame[a] != 1}
    for out in maps:
        (inner,) = input_maps(node, out, sorted(union.reduced))
        over = {a for i, a in enumerate(inner) if i in node.attrs["axis"] and a is not None}
        if len(maps) > 1 or not is_plain(out) or over != reduced:
            return "they reduce different axes"
    return None


def _is_positive(extent: Extent) -> bool:
    return isinstance(extent, int) and extent > 0


# A kernel that makes totals for another one.


def memory_order(cluster: Cluster) -> list[int]:
    """The axes of a cluster, outermost first, as they lie in what it reads."""
    wide = wide_axes(cluster)
    orders = [walked(out) for t in cluster.reads() for out in cluster.maps[t] if is_plain(out)]
    return next((order for order in orders if sorted(order) == wide), wide)


def by_rows(
    cluster: Cluster, order: Sequence[int], rows: Collection[int], *, sums_row: bool
) -> tuple[Cluster, Axes] | str:
    """An empty cluster that walks the axes of another one in this order and reduces those that are no ``rows``; and the
    axes of the other in it. ``sums_row`` says that there will be a total of all.
    """
    row = order[len(rows) :]
    if not rows or not row or set(rows) != set(order[: len(rows)]):
        return "they reduce different axes"
    size = product(cluster.frame[a] for a in row)
    if sums_row and isinstance(size, int) and size < NARROW:
        return f"their rows have less than {NARROW} elements"
    axes = {a: i for i, a in enumerate(order)}
    return Cluster(tuple(cluster.frame[a] for a in order), frozenset(axes[a] for a in row)), axes


def halves(one: Cluster, other: Cluster, axes: Axes) -> tuple[Cluster, Cluster] | str:
    """``other``, which reduces all axes but the row of ``one``, or all, in two halves: what is done for each element,
    up to totals over rows, which ``one`` can do; and what combines them.
    """
    wide = wide_axes(one)
    rows = [a for a in wide if a not in one.reduced]
    row = [a for a in wide if a in one.reduced]
    over = {axes[a] for a in other.reduced if a in axes}
    if not row or not rows or wide[-len(row) :] != row or over not in (set(rows), set(wide)):
        return "they reduce different axes"
    if Stages(other).is_row_wise() or other.totals or other.pieces:
        return "both go over their rows again"
    kept = [a for a in wide_axes(other) if a not in other.reduced]
    if [axes[a] for a in kept] != sorted(axes[a] for a in kept):
        return "they walk the axes in different orders"
    reductions = [node for node in other.nodes if node.op.kind is Kind.REDUCE]
    early = {t for t in other.outputs if any(a in other.reduced for m in other.maps[t] for a in walked(m))}
    rest = _copy(other)
    rest.outputs = {t: None for t in other.outputs if t not in early}
    rest.combined = {node.outputs[0]: None for node in reductions}
    rest.trim()
    if any(a in other.reduced for maps in rest.maps.values() for m in maps for a in walked(m)):
        return "what follows the reduction walks the reduced axes"
    part = _copy(other)
    part.outputs = {t: None for t in other.outputs if t in early}
    for node in reductions:
        maps = list(other.maps[node.outputs[0]])
        (inner,) = input_maps(node, maps[0], sorted(other.reduced))
        if len(maps) > 1 or not is_plain(inner) or sorted(walked(inner)) != wide_axes(other):
            return "the reduction does not walk all axes of the kernel once"
        part.totals[node.outputs[0]] = inner
        del part.nodes[node]
    part.trim()
    return part, rest


def _copy(cluster: Cluster) -> Cluster:
    maps = {t: dict(m) for t, m in cluster.maps.items()}
    return Cluster(cluster.frame, cluster.reduced, dict(cluster.nodes), maps)
