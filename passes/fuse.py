"""Fusion: which nodes become one kernel.

Nodes are visited readers first. A node joins the cluster of its readers when all of them sit in one cluster (then no
cycle can arise), or when a bounded search shows that no other reader's cluster leads back to it; its value is then
also stored. Views cost nothing and cheap nodes are computed again in every cluster that reads them. A reduction takes
its producers with it, and is itself taken by readers over its result (an epilogue) or over its own input (a row-wise
chain).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from graphc.dims import Extent, Unifier
from graphc.node import Node, Tensor
from graphc.opdef import Kind
from passes.cluster import (
    ANYWHERE,
    CHEAP,
    MAX_OPS,
    MAX_POINTERS,
    Cluster,
    Map,
    Piece,
    identity_map,
    input_maps,
    is_plain,
    walked,
)
from passes.graph import Graph
from passes.matrices import operands
from passes.merge import Apart, Merger
from passes.order import TopologicalOrder

DUPLICABLE = 1  # cost of what may be computed again in another kernel
MAX_DUPLICATED = 4  # length of a chain computed again
MAX_SINGLE = 16  # the same, of values of one element, which a kernel computes once before its loops

_FUSIBLE = {Kind.SCALAR, Kind.VIEW, Kind.RESHAPE, Kind.REDUCE, Kind.GATHER}
_ALONE = {Kind.MATMUL, Kind.ROUTINE}
ALIASES = {"reshape", "expand_dims", "squeeze"}  # may stand for the same memory under another shape


@dataclass(frozen=True)
class Fused:
    """The result: clusters and nodes that are kernels of their own, and why neighbours are not one."""

    units: tuple[Cluster | Node, ...]
    apart: tuple[Apart, ...]


class Fusion:
    """The state of one fusion. Units (clusters, and nodes alone) are numbered; ``_of`` says where each node went."""

    def __init__(self, graph: Graph, unifier: Unifier, stored: Iterable[Tensor]) -> None:
        self._graph = graph
        self._canonical = unifier.canonical
        self._wanted = tuple(stored)
        self._stored: set[Tensor] = set(self._wanted)
        self._readers: dict[Tensor, list[Node]] = {t: [] for node in graph.nodes for t in node.outputs}
        self._operands = functools.cache(operands)
        for node in graph.nodes:
            for tensor in self._operands(node):
                self._readers[tensor].append(node)
        self._units: list[Cluster | Node] = []
        self._arrays: list[int] = []  # that each unit reads; single elements do not count
        self._order = TopologicalOrder()
        self._of: dict[Node, set[int]] = {}
        self._through_memory: dict[Tensor, set[int]] = {}
        self._pieces: dict[Node, list[tuple[Tensor, int]]] = {}
        self._duplicated: dict[Node, int] = {}
        self._waiting: dict[Node, list[int]] = {}  # units that come after that of a node

    def run(self) -> Fused:
        """Visit all nodes, readers first."""
        for node in reversed(self._graph.nodes):
            if node.op.kind in _FUSIBLE:
                self._place(node)
            elif node.op.kind in _ALONE:
                self._alone(node)
            elif node.op.kind is Kind.CONCAT:
                self._concatenate(node)
            self._let_wait(node)
        return self._merged()

    def _merged(self) -> Fused:
        """The units after kernels that share data have been merged."""
        made: set[Tensor] = set()
        for placed in self._units:
            made.update(stored_by(placed))
        for placed in self._units:
            if isinstance(placed, Cluster):
                _look_through_views(placed, made)

        def root(tensor: Tensor) -> Tensor:
            while tensor.node.op.name in ALIASES and tensor not in made:
                tensor = tensor.node.inputs[0]
            return tensor

        units: list[Cluster | Node | None] = list(self._units)
        updated = {assign.inputs[1]: assign.inputs[0] for assign in self._graph.updates}
        merger = Merger(units, self._order, self._wanted, updated, root, self._operands, self._canonical)
        merger.run()
        index = {node: i for i, node in enumerate(self._graph.nodes)}
        place: dict[int, int] = {}
        kept: list[Cluster | Node] = []
        for number, unit in enumerate(units):
            if unit is not None:
                place[number] = len(kept)
                kept.append(unit)
            if isinstance(unit, Cluster):
                unit.nodes = dict.fromkeys(sorted(unit.nodes, key=index.__getitem__))
        apart = tuple(Apart(place[a.producer], place[a.consumer], a.tensor, a.why) for a in merger.apart())
        return Fused(tuple(kept), apart)

    # Placing one node.

    def _place(self, node: Node) -> None:
        tensor = node.outputs[0]
        units = self._reader_units(tensor)
        stored = tensor in self._stored
        if not stored and not units:
            return
        if node.op.kind is Kind.RESHAPE or (node.op.name in ALIASES and (stored or not self._are_clusters(units))):
            # The same memory under another shape: whoever makes the input must store it, before it is read here.
            self._stored |= {tensor, node.inputs[0]}
            self._through_memory.setdefault(node.inputs[0], set()).update(units)
            self._of[node] = units
        elif not stored and self._is_duplicable(node, units):
            self._duplicate(node, units)
        elif _is_single(node) and units and self._is_duplicable(node, units):
            self._duplicate(node, units)
            self._start(node, set())
            self._of[node] |= units
        elif not self._join_any(node, units):
            self._start(node, units)

    def _reader_units(self, tensor: Tensor) -> set[int]:
        found: set[int] = set()
        for reader in self._readers[tensor]:
            if reader in self._pieces:
                found.update(unit for piece, unit in self._pieces[reader] if piece is tensor)
            else:
                found.update(self._of.get(reader, ()))
        return found

    def _are_clusters(self, units: Iterable[int]) -> bool:
        return all(isinstance(self._units[u], Cluster) for u in units)

    def _cluster(self, unit: int) -> Cluster | None:
        body = self._units[unit]
        return body if isinstance(body, Cluster) else None

    def _alone(self, node: Node) -> None:
        units = {u for t in node.outputs for u in self._reader_units(t)}
        self._of[node] = {self._unit(node, units)}
        self._stored.update(node.outputs)

    def _unit(self, body: Cluster | Node, readers: Iterable[int]) -> int:
        """A new unit; a cluster begins with the tensor that it stores, which it reads until its node joins."""
        self._units.append(body)
        self._arrays.append(sum(t.ndim > 0 for t in body.reads()) if isinstance(body, Cluster) else 0)
        return self._order.add(readers)

    def _concatenate(self, node: Node) -> None:
        """A cluster for each input, which stores it as a part of the result; what computes the input may join it."""
        (result,) = node.outputs
        units = self._reader_units(result)
        if not units and result not in self._stored:
            return
        self._stored.add(result)
        pieces = self._pieces[node] = []
        start: Extent = 0
        axis = node.attrs["axis"]
        for tensor in node.inputs:
            cluster = Cluster(tensor.shape, frozenset(), {node: None})
            cluster.maps[tensor] = {identity_map(tensor.shape, range(tensor.ndim)): None}
            cluster.pieces.append(Piece(tensor, result, axis, start))
            pieces.append((tensor, self._unit(cluster, units)))
            start = start + tensor.shape[axis]
        self._of[node] = {unit for _, unit in pieces}

    def _start(self, node: Node, units: set[int]) -> None:
        tensor = node.outputs[0]
        self._stored.add(tensor)
        if node.op.kind is Kind.REDUCE:
            x, axes, keep = node.inputs[0], node.attrs["axis"], node.attrs["keepdims"]
            cluster = Cluster(x.shape, frozenset(axes))
            kept = [(a, e) for a, e in enumerate(x.shape) if keep or a not in axes]
            out: Map = tuple(None if e == 1 or a in axes else a for a, e in kept)
        else:
            cluster = Cluster(tensor.shape, frozenset())
            out = identity_map(tensor.shape, range(tensor.ndim))
        cluster.outputs[tensor] = None
        cluster.maps[tensor] = {out: None}
        unit = self._unit(cluster, units)
        self._of[node] = {unit}
        self._add(node, unit)
        if tensor in self._graph.after:
            behind = self._graph.after[tensor].node
            self._waiting.setdefault(behind, []).append(unit)
            self._let_wait(behind)

    def _let_wait(self, node: Node) -> None:
        """Put the units that compute something again behind that of ``node``, once it has one."""
        if node in self._waiting and node in self._of:
            for waiting in self._waiting.pop(node):
                for unit in self._of[node] - {waiting}:
                    self._order.connect(unit, [waiting])

    def _add(self, node: Node, unit: int) -> None:
        """Put ``node`` in the cluster numbered ``unit``, and note under which maps its inputs are needed."""
        cluster = self._cluster(unit)
        assert cluster is not None
        (result,) = node.outputs
        self._arrays[unit] += self._arrays_added(cluster, node)
        cluster.nodes[node] = None
        for out in list(cluster.maps[result]):
            for tensor, needed in zip(node.inputs, input_maps(node, out, cluster.reduced), strict=True):
                cluster.maps.setdefault(tensor, {})[needed] = None
        if node.op.kind is Kind.GATHER:
            self._stored.add(node.inputs[0])
            self._through_memory.setdefault(node.inputs[0], set()).add(unit)

    # Computing again.

    def _is_duplicable(self, node: Node, units: set[int]) -> bool:
        if units & self._through_memory.get(node.outputs[0], set()):
            return False
        return self._is_cheap(node, units) and all(self._has_room(u, node) for u in units)

    def _is_cheap(self, node: Node, units: set[int]) -> bool:
        """Whether computing ``node`` in every one of ``units`` costs less than storing it once."""
        if node.op.kind is Kind.VIEW or not node.inputs:
            return True
        if _is_single(node) and not node.op.fallible:
            return self._chain(node) <= MAX_SINGLE
        if len(units) < 2 or node.op.kind is not Kind.SCALAR or node.op.cost > DUPLICABLE:
            return False
        return sum(1 for t in node.inputs if t.ndim) <= 1 and self._chain(node) <= MAX_DUPLICATED

    def _chain(self, node: Node) -> int:
        """Length of the longest chain of nodes computed again that would begin with ``node``."""
        return 1 + max((self._duplicated.get(r, 0) for r in self._readers[node.outputs[0]]), default=0)

    def _duplicate(self, node: Node, units: set[int]) -> None:
        self._duplicated[node] = 0 if node.op.kind is Kind.VIEW else self._chain(node)
        for unit in units:
            self._add(node, unit)
        self._of[node] = set(units)

    # Joining readers.

    def _join_any(self, node: Node, units: set[int]) -> bool:
        """Put ``node`` into one of its readers' clusters, if there is one that may take it."""
        tensor = node.outputs[0]
        for unit in self._order.by_place(units - self._through_memory.get(tensor, set())):
            cluster = self._cluster(unit)
            others = units - {unit}
            stored = tensor in self._stored or bool(others)
            if cluster is None or tensor not in cluster.maps or not self._has_room(unit, node, stored):
                continue
            if not self._accepts(cluster, node, stored):
                continue
            if others and not self._order.connect(unit, others):
                continue
            if node.op.kind is Kind.REDUCE:
                self._extend(cluster, node)
            if stored:
                self._stored.add(tensor)
                cluster.outputs[tensor] = None
            self._add(node, unit)
            self._of[node] = {unit}
            return True
        return False

    def _has_room(self, unit: int, node: Node, stored: bool = False) -> bool:
        """Whether a unit is a cluster, and ``node`` in it leaves it within the limits of one kernel."""
        cluster = self._cluster(unit)
        if cluster is None or len(cluster.nodes) >= MAX_OPS:
            return False
        pointers = self._arrays[unit] + len(cluster.outputs) + len(cluster.pieces)
        return pointers + self._arrays_added(cluster, node) + stored <= MAX_POINTERS

    @staticmethod
    def _arrays_added(cluster: Cluster, node: Node) -> int:
        """How many more arrays a cluster reads once it computes ``node``, whose result it reads until then."""
        fresh = {t for t in node.inputs if t.ndim and t not in cluster.maps}
        return len(fresh) - (node.outputs[0].ndim > 0 and node not in cluster.nodes)

    def _accepts(self, cluster: Cluster, node: Node, stored: bool) -> bool:
        """Whether a cluster with room for ``node`` computes its result where, and as often as, it should be."""
        maps = list(cluster.maps[node.outputs[0]])
        if node.op.kind is Kind.REDUCE:
            return len(maps) == 1 and is_plain(maps[0]) and self._reduction_fits(cluster, node, maps[0])
        if node.op.fallible and not all(is_plain(m) and self._is_reached(cluster, m) for m in maps):
            return False
        if stored:
            return len(maps) == 1 and is_plain(maps[0]) and self._covers(cluster, maps[0])
        if node.op.cost <= CHEAP:
            return len(maps) <= 2
        return len(maps) == 1 and (self._covers(cluster, maps[0]) or self._hoistable(cluster, maps[0]))

    @staticmethod
    def _is_reached(cluster: Cluster, out: Map) -> bool:
        """Whether a value under ``out`` is computed even where other axes turn out to be empty: a check must be."""
        return all(a in walked(out) or (isinstance(e, int) and e > 0) for a, e in enumerate(cluster.frame))

    def _covers(self, cluster: Cluster, out: Map) -> bool:
        """Whether a value under ``out`` has one element per point of the frame, or of its outer axes."""
        used = set(walked(out))
        if len(used) != len(walked(out)):
            return False
        wanted = {a for a, e in enumerate(cluster.frame) if e != 1}
        return used >= wanted or (
            bool(cluster.reduced) and used >= wanted - cluster.reduced and not used & cluster.reduced
        )

    def _hoistable(self, cluster: Cluster, out: Map) -> bool:
        """Whether a value under ``out`` is constant along the innermost loop, so that it is computed once per row."""
        used = set(walked(out))
        axes = [a for a, e in enumerate(cluster.frame) if e != 1]
        missing = set(axes) - used
        return not cluster.reduced and missing == set(axes[-1:])

    # Reductions.

    def _reduction_fits(self, cluster: Cluster, node: Node, out: Map) -> bool:
        """Whether the cluster's frame is the reduction's input, or can be extended to it by the reduced axes."""
        over = [self._canonical(node.inputs[0].shape[a]) for a in node.attrs["axis"]]
        used = walked(out)
        wide = [a for a, e in enumerate(cluster.frame) if e != 1]
        if not cluster.reduced and used == wide:
            return True
        reduced = sorted(cluster.reduced) or [a for a in wide if a not in used]
        same_range = over == [self._canonical(cluster.frame[a]) for a in reduced]
        if not same_range or used != [a for a in wide if a not in reduced]:
            return False
        if not self._is_read_along(cluster, node, reduced):
            return True
        # A row-wise chain: later stages walk the row again. The row must be innermost, and there must be many.
        inner = node.inputs[0].ndim - len(over)
        return (
            bool(used)
            and list(node.attrs["axis"]) == [*range(inner, inner + len(over))]
            and wide[-len(reduced) :] == reduced
        )

    def _is_read_along(self, cluster: Cluster, node: Node, reduced: Sequence[int]) -> bool:
        """Whether something that varies along the reduced axes depends on the reduction's result."""
        if not cluster.reduced:
            return True
        pending, seen = [node.outputs[0]], set()
        while pending:
            for reader in self._readers[pending.pop()]:
                if reader in cluster.nodes and reader not in seen:
                    seen.add(reader)
                    pending.append(reader.outputs[0])
                    if any(a in reduced for out in cluster.maps[reader.outputs[0]] for a in walked(out)):
                        return True
        return False

    def _extend(self, cluster: Cluster, node: Node) -> None:
        """Make the axes that ``node`` reduces part of the frame, if they are not yet."""
        if cluster.reduced:
            return
        (out,) = cluster.maps[node.outputs[0]]
        wide = [a for a, e in enumerate(cluster.frame) if e != 1]
        missing = [a for a in wide if a not in out]
        if missing:
            cluster.reduced = frozenset(missing)
            return
        extents = tuple(node.inputs[0].shape[a] for a in node.attrs["axis"])
        start = len(cluster.frame)
        cluster.frame += extents
        cluster.reduced = frozenset(range(start, start + len(extents)))


def _is_single(node: Node) -> bool:
    """Whether a node computes one element from single elements."""
    return node.op.kind is Kind.SCALAR and not node.outputs[0].ndim


def stored_by(unit: Cluster | Node, *, whole: bool = False) -> tuple[Tensor, ...]:
    """The tensors in memory that a unit fills; with ``whole``, without those that others fill as well."""
    if not isinstance(unit, Cluster):
        return unit.outputs
    parts = () if whole else dict.fromkeys(piece.target for piece in unit.pieces)
    return (*unit.outputs, *parts)


def _look_through_views(cluster: Cluster, made: set[Tensor]) -> None:
    """Have ``cluster`` read what inserts or removes axes of extent 1 from the tensor that is in memory."""
    pending = cluster.reads()
    while pending:
        tensor = pending.pop()
        node = tensor.node
        if node.op.kind is Kind.VIEW and tensor not in made and ANYWHERE not in cluster.maps[tensor]:
            cluster.nodes[node] = None
            for out in cluster.maps[tensor]:
                for source, needed in cluster.inputs(node, out):
                    cluster.maps.setdefault(source, {})[needed] = None
            pending.append(node.inputs[0])


def fuse(graph: Graph, unifier: Unifier, stored: Iterable[Tensor]) -> Fused:
    """Cluster the nodes of ``graph``; ``stored`` must end up in memory whatever reads them."""
    return Fusion(graph, unifier, stored).run()
