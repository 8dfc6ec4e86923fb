"""Values that a row-wise kernel keeps from one walk of the row to the next, because computing them again costs more.

The exponential of a softmax is needed for the sum of the row, and again for each quotient. It waits where the result
will go: the output's own memory, which is written anyway and is still in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from graphc.node import Tensor
from graphc.opdef import Kind
from passes.cluster import Cluster, Map, is_plain, walked
from passes.program import Buffer
from passes.stages import Stages

Value = tuple[Tensor, Map]
WORTH_KEEPING = 8  # cost of the ops of a value; a store and a load cost about 2


def choose_kept(
    cluster: Cluster, stages: Stages, stages_of: Mapping[Value, Sequence[int]], buffer_of: Callable[[Tensor], Buffer]
) -> dict[Value, Tensor]:
    """Of values computed in several stages (``stages_of``), the most expensive ones, each with an output that is
    written in the same places, no earlier than the value is last needed, and that nothing else is read from.
    """
    read = {buffer_of(t) for t in cluster.reads() if t.ndim}
    places = [
        (tensor, out)
        for tensor, out, piece in stages.outputs()
        if piece is None and buffer_of(tensor).kind in ("temp", "output") and buffer_of(tensor) not in read
    ]
    costs: dict[Value, int] = {}
    wanted = [
        (_cost(cluster, value, costs), value)
        for value, seen in stages_of.items()
        if len(seen) > 1 and _is_full(cluster, value[1])
    ]
    chosen: dict[Value, Tensor] = {}
    taken: set[Tensor] = set()
    inside: set[Value] = set()  # what need not be computed again once a value is kept
    for cost, value in sorted(wanted, key=lambda pair: -pair[0]):
        if cost < WORTH_KEEPING or value in inside:
            continue
        tensor, out = value
        for target, written in places:
            fits = target not in taken and written == out and target.dtype == tensor.dtype
            if fits and stages.stores_at(target, written) >= max(stages_of[value]):
                chosen[value] = target
                taken.add(target)
                inside |= _cone(cluster, value)
                break
    return chosen


def _is_full(cluster: Cluster, out: Map) -> bool:
    """Whether a value has an element of its own at every point of the frame."""
    used = walked(out)
    wide = {a for a, e in enumerate(cluster.frame) if e != 1}
    return is_plain(out) and len(set(used)) == len(used) and set(used) >= wide


def _inner(cluster: Cluster, value: Value) -> list[Value]:
    """What a value is computed from in the same walk: reductions are there already, and loads cost nothing."""
    tensor, out = value
    if tensor.node not in cluster.nodes:
        return []
    found = cluster.inputs(tensor.node, out)
    return [(t, m) for t, m in found if t.node in cluster.nodes and t.node.op.kind is not Kind.REDUCE]


def _cone(cluster: Cluster, value: Value) -> set[Value]:
    found, pending = {value}, [value]
    while pending:
        fresh = [v for v in _inner(cluster, pending.pop()) if v not in found]
        found.update(fresh)
        pending += fresh
    return found


def _cost(cluster: Cluster, value: Value, known: dict[Value, int]) -> int:
    """The cost of all ops of a value that vary along the row."""
    if value not in known:
        known[value] = sum(
            t.node.op.cost for t, m in _cone(cluster, value) if any(a in cluster.reduced for a in walked(m))
        )
    return known[value]
