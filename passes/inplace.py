"""Which parameter updates are written straight into the parameter.

A unit may write a parameter's new value over the old one when it reads the old value only at the element it writes, and
every other unit that reads the old value can run before it. What can fail at run time must come before it as well, so
that a run that raises leaves every parameter as it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import networkx as nx

from graphc.node import Node, Tensor
from passes.cluster import Cluster
from passes.fuse import Fused, stored_by
from passes.graph import Graph
from passes.matrices import operands
from passes.stages import Stages


def choose_in_place(graph: Graph, fused: Fused, root: Callable[[Tensor], Tensor]) -> dict[Tensor, Tensor]:
    """``parameter -> value`` for the updates that are written in place."""
    units = fused.units
    flow = unit_graph(fused, root)
    producer = {t: i for i, unit in enumerate(units) for t in stored_by(unit, whole=True)}
    readers = _readers(fused, root)
    fallible = [i for i, unit in enumerate(units) if is_fallible(unit)]
    chosen: dict[Tensor, Tensor] = {}
    uses = Counter(root(a.inputs[1]) for a in graph.updates)
    fetched = {root(t) for t in graph.outputs}
    for assign in graph.updates:
        parameter, value = assign.inputs
        unit = producer.get(value)
        if unit is None or value in fetched or uses[value] > 1 or unit in fallible:
            continue
        if readers.get(value, set()) - {unit}:
            continue
        if not _reads_where_it_writes(units[unit], parameter, value, root):
            continue
        before = [*(readers.get(parameter, set()) - {unit}), *fallible]
        if not nx.descendants(flow, unit).isdisjoint(before):
            continue
        flow.add_edges_from((i, unit) for i in before)
        chosen[parameter] = value
    return chosen


def unit_graph(fused: Fused, root: Callable[[Tensor], Tensor]) -> nx.DiGraph:
    """The condensed graph of kernels: an edge from the unit that stores a tensor to each that reads it."""
    flow = nx.DiGraph()
    flow.add_nodes_from(range(len(fused.units)))
    producers: dict[Tensor, list[int]] = {}
    totalled: dict[Tensor, int] = {}
    for i, unit in enumerate(fused.units):
        for tensor in stored_by(unit):
            producers.setdefault(tensor, []).append(i)
        if isinstance(unit, Cluster):
            totalled.update(dict.fromkeys(unit.totals, i))
    for i, unit in enumerate(fused.units):
        if isinstance(unit, Cluster):
            flow.add_edges_from((totalled[t], i) for t in unit.combined)
        for tensor in _read_roots(unit, root):
            flow.add_edges_from((source, i) for source in producers.get(tensor, ()) if source != i)
    return flow


def is_fallible(unit: Cluster | Node) -> bool:
    """Whether a run can fail in this unit, for what it finds in the data."""
    nodes = unit.nodes if isinstance(unit, Cluster) else (unit,)
    return any(n.op.fallible for n in nodes)


def _readers(fused: Fused, root: Callable[[Tensor], Tensor]) -> dict[Tensor, set[int]]:
    """For each tensor in memory, the units that read it."""
    found: dict[Tensor, set[int]] = {}
    for i, unit in enumerate(fused.units):
        for tensor in _read_roots(unit, root):
            found.setdefault(tensor, set()).add(i)
    return found


def _reads(unit: Cluster | Node) -> Sequence[Tensor]:
    return unit.reads() if isinstance(unit, Cluster) else operands(unit)


def _read_roots(unit: Cluster | Node, root: Callable[[Tensor], Tensor]) -> set[Tensor]:
    return {root(t) for t in _reads(unit)}


def _reads_where_it_writes(
    unit: Cluster | Node, parameter: Tensor, value: Tensor, root: Callable[[Tensor], Tensor]
) -> bool:
    if isinstance(unit, Cluster):
        aliases = [t for t in _reads(unit) if root(t) is parameter]
        same_place = all(t is parameter and set(unit.maps[t]) == set(unit.maps[value]) for t in aliases)
        return same_place and not Stages(unit).reads_after_store(parameter, value)
    # A product may overwrite only what it is added to.
    reads = operands(unit)
    return unit.op.name == "gemm_add" and reads[2] is parameter and all(root(t) is not parameter for t in reads[:2])
