"""A cluster: nodes that become one kernel, and how each tensor in it walks the kernel's axes.

The cluster's *frame* is the list of axes that it runs over. Each tensor is evaluated under a *map*: for each of its
axes the frame axis that it follows, or None where its extent is 1; or a ``Walk``, where a part of the axis is read, or
all of it in another order. Views and broadcasting only change maps; nothing is moved.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from graphc.dims import Extent
from graphc.node import Node, Tensor
from graphc.opdef import Kind, Strided

MAX_OPS = 64  # of one kernel; the time to compile one grows faster than their number
MAX_POINTERS = 16  # arrays that a kernel walks: more fall off the vectorised path
CHEAP = 3  # cost of what may be computed again per element of a broadcast


@dataclass(frozen=True, slots=True)
class Walk:
    """Index ``start + step * i``, where ``i`` is the index along a frame axis; always ``start`` for axis None."""

    axis: int | None
    step: int
    start: Extent


Map = tuple[int | Walk | None, ...]
ANYWHERE: Map = (Walk(None, -1, -1),)  # of what is read at computed indices


def walked(out: Map) -> list[int]:
    """The frame axes that a map follows, one for each axis of the tensor that follows one."""
    axes = [place.axis if isinstance(place, Walk) else place for place in out]
    return [axis for axis in axes if axis is not None]


def is_plain(out: Map) -> bool:
    """Whether a map reaches all of the tensor, each axis from its start to its end."""
    for place in out:  # noqa: SIM110 - asked for every node
        if isinstance(place, Walk):
            return False
    return True


@dataclass(frozen=True, slots=True)
class Piece:
    """``value`` is stored as the part of ``target`` that begins at ``start`` along ``axis``."""

    value: Tensor
    target: Tensor
    axis: int
    start: Extent


@dataclass
class Cluster:
    """Nodes that become one kernel. ``frame`` are the extents of its axes, ``reduced`` those of them that are summed
    over.

    ``maps`` holds, for each tensor used inside, the maps under which it is needed. ``outputs`` are stored in memory of
    their own; ``pieces`` are values stored as a part of another tensor. ``totals`` are reductions over the outer axes
    of which this kernel makes one partial result per block of rows: the map is that of what is reduced. ``combined``
    are reductions whose partial results another kernel made. ``levels`` are the stages of values as far as they were
    asked for (stages.py).
    """

    frame: tuple[Extent, ...]
    reduced: frozenset[int]
    nodes: dict[Node, None] = field(default_factory=dict)
    maps: dict[Tensor, dict[Map, None]] = field(default_factory=dict)
    outputs: dict[Tensor, None] = field(default_factory=dict)
    pieces: list[Piece] = field(default_factory=list)
    totals: dict[Tensor, Map] = field(default_factory=dict)
    combined: dict[Tensor, None] = field(default_factory=dict)
    levels: dict[tuple[Tensor, Map], int] = field(default_factory=dict)

    def reads(self) -> list[Tensor]:
        """What is read from memory."""
        return [t for t in self.maps if t.node not in self.nodes]

    def pointers(self) -> int:
        """Arrays that the kernel walks; single elements are read before its loops, and do not count."""
        return sum(t.ndim > 0 for t in self.reads()) + len(self.outputs) + len(self.pieces) + len(self.totals)

    def inputs(self, node: Node, out: Map) -> list[tuple[Tensor, Map]]:
        """The inputs of one of the cluster's nodes and their maps, given the map of its result."""
        if node.op.kind is Kind.CONCAT or node.outputs[0] in self.combined:
            return []
        return list(zip(node.inputs, input_maps(node, out, self.reduced), strict=True))

    def roots(self) -> list[tuple[Tensor, Map]]:
        """What is computed for its own sake: values that are stored or summed up, with their maps."""
        stored = [*self.outputs, *(piece.value for piece in self.pieces)]
        summed = [(total.node.inputs[0], out) for total, out in self.totals.items()]
        return [*((t, out) for t in stored for out in self.maps[t]), *summed]

    def trim(self) -> None:
        """Forget nodes and maps that nothing needs."""
        maps: dict[Tensor, dict[Map, None]] = {}
        nodes: dict[Node, None] = dict.fromkeys(piece.target.node for piece in self.pieces)
        pending = self.roots()
        while pending:
            tensor, out = pending.pop()
            known = maps.setdefault(tensor, {})
            if out not in known:
                known[out] = None
                if tensor.node in self.nodes:
                    nodes[tensor.node] = None
                    pending += self.inputs(tensor.node, out)
        self.maps, self.nodes, self.levels = maps, nodes, {}

    @property
    def outer(self) -> tuple[int, ...]:
        """The frame axes that are not reduced."""
        return tuple(a for a in range(len(self.frame)) if a not in self.reduced)


def identity_map(shape: Sequence[Extent], axes: Sequence[int]) -> Map:
    """The map of a tensor of ``shape`` onto the frame axes ``axes``, None where the extent is 1."""
    return tuple(None if e == 1 else a for e, a in zip(shape, axes, strict=True))


def input_maps(node: Node, out: Map, reduced: Collection[int]) -> list[Map]:
    """Maps of a node's inputs, given the map of its result; ``reduced`` are the frame axes that a reduction runs
    over.
    """
    kind = node.op.kind
    if kind is Kind.VIEW:
        assert node.op.index_map is not None
        extents = node.inputs[0].shape
        return [
            tuple([_followed(node, e, place, out) for e, place in zip(extents, node.op.index_map(node), strict=True)])
        ]
    if kind is Kind.REDUCE:
        return [_reduced_map(node, out, sorted(reduced))]
    gathers = kind is Kind.GATHER
    maps: list[Map] = [ANYWHERE] if gathers else []
    for tensor in node.inputs[1:] if gathers else node.inputs:
        shape = tensor.shape
        places = out[len(out) - len(shape) :]  # broadcasting adds axes in front
        if 1 in shape:
            places = tuple([None if e == 1 else place for e, place in zip(shape, places, strict=True)])
        maps.append(places)
    return maps


def _followed(node: Node, extent: Extent, place: int | Strided | None, out: Map) -> int | Walk | None:
    """Where the input of a view is read along one axis of this extent, given the map of the view."""
    if not isinstance(place, Strided):
        return None if place is None else out[place]
    inner = out[place.axis]
    if (place.step, place.start) == (1, 0) and node.outputs[0].shape[place.axis] == extent:
        return inner
    if not isinstance(inner, Walk):
        inner = Walk(inner, 0 if inner is None else 1, 0)
    return Walk(inner.axis, place.step * inner.step, place.start + place.step * inner.start)


def _reduced_map(node: Node, out: Map, reduced: Sequence[int]) -> Map:
    x, axes, keep = node.inputs[0], node.attrs["axis"], node.attrs["keepdims"]
    kept = iter(range(len(out)))
    over = iter(reduced)
    result: list[int | Walk | None] = []
    for axis, extent in enumerate(x.shape):
        if axis in axes:
            if keep:
                next(kept)
            frame_axis = next(over)
            result.append(None if extent == 1 else frame_axis)
        else:
            result.append(out[next(kept)])
    return tuple(result)
