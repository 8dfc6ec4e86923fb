"""A cluster: nodes that become one kernel, and how each tensor in it walks the kernel's axes.

The cluster's *frame* is the list of axes that it runs over. Each tensor is evaluated under a *map*: for each of its
axes the frame axis that it follows, or None where its extent is 1. Views and broadcasting only change maps; nothing
is moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from graphc.dims import Extent
from graphc.node import Node, Tensor
from graphc.opdef import Kind

Map = tuple[int | None, ...]


@dataclass
class Cluster:
    """Nodes that become one kernel. ``frame`` are the extents of its axes, ``reduced`` those of them that are summed
    over.

    ``maps`` holds, for each tensor used inside, the maps under which it is needed.
    """

    frame: tuple[Extent, ...]
    reduced: frozenset[int]
    nodes: dict[Node, None] = field(default_factory=dict)
    maps: dict[Tensor, dict[Map, None]] = field(default_factory=dict)
    outputs: dict[Tensor, None] = field(default_factory=dict)

    @property
    def outer(self) -> tuple[int, ...]:
        """The frame axes that are not reduced."""
        return tuple(a for a in range(len(self.frame)) if a not in self.reduced)


def identity_map(shape: Sequence[Extent], axes: Sequence[int]) -> Map:
    """The map of a tensor of ``shape`` onto the frame axes ``axes``, None where the extent is 1."""
    return tuple(None if e == 1 else a for e, a in zip(shape, axes, strict=True))


def input_maps(node: Node, out: Map, reduced: Sequence[int]) -> list[Map]:
    """Maps of a node's inputs, given the map of its result; ``reduced`` are the frame axes that a reduction runs
    over.
    """
    if node.op.kind is Kind.VIEW:
        assert node.op.index_map is not None
        return [tuple(None if a is None else out[a] for a in node.op.index_map(node))]
    if node.op.kind is Kind.REDUCE:
        return [_reduced_map(node, out, reduced)]
    maps: list[Map] = []
    for tensor in node.inputs:
        extra = len(out) - tensor.ndim
        maps.append(tuple(None if e == 1 else out[extra + i] for i, e in enumerate(tensor.shape)))
    return maps


def _reduced_map(node: Node, out: Map, reduced: Sequence[int]) -> Map:
    x, axes, keep = node.inputs[0], node.attrs["axis"], node.attrs["keepdims"]
    kept = iter(range(len(out)))
    over = iter(reduced)
    result: list[int | None] = []
    for axis, extent in enumerate(x.shape):
        if axis in axes:
            if keep:
                next(kept)
            frame_axis = next(over)
            result.append(None if extent == 1 else frame_axis)
        else:
            result.append(out[next(kept)])
    return tuple(result)
