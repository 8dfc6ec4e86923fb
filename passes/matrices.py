"""How a matrix product reads its operands: where they lie, through the views in between, if a product can.

Products read a matrix whose rows lie at any distance from each other, or the columns do; batches may be anywhere. So
transposed, sliced, permuted and broadcast operands need no copy as long as one of the last two axes steps from
element to element.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graphc.dims import Extent, product
from graphc.node import Node, Tensor
from graphc.opdef import Kind
from passes.cluster import Map, Walk, identity_map, input_maps, is_plain

_IN_MEMORY = {Kind.LEAF, Kind.RESHAPE, Kind.MATMUL, Kind.ROUTINE, Kind.CONCAT}  # the results, whoever reads them

Canonical = Callable[[Extent], Extent]


@dataclass(frozen=True, slots=True)
class Matrices:
    """An operand as it lies in memory: ``tensor``, of which axis ``i`` follows the operand's axis ``map[i]``."""

    tensor: Tensor
    map: Map
    rank: int

    def strides(self) -> tuple[list[Extent], Extent]:
        """The stride along each of the operand's axes, 0 where it repeats, and the first element, in elements."""
        strides: list[Extent] = [0] * self.rank
        offset: Extent = 0
        for axis, place in enumerate(self.map):
            walk = place if isinstance(place, Walk) else Walk(place, 1, 0)
            step = product(self.tensor.shape[axis + 1 :])
            offset = offset + walk.start * step
            if walk.axis is not None:
                strides[walk.axis] = walk.step * step
        return strides, offset


def operands(node: Node) -> tuple[Tensor, ...]:
    """What a node reads from memory or inside a kernel: its inputs; for a matrix product those behind views."""
    if node.op.kind is Kind.MATMUL:
        return (*(behind_views(t).tensor for t in node.inputs[:2]), *node.inputs[2:])
    return node.inputs


def behind_views(operand: Tensor) -> Matrices:
    """The tensor that a product reads for ``operand``: the farthest behind its views that it can read, and that
    nobody would have to compute more of for this.
    """
    rank = operand.ndim
    out = identity_map(operand.shape, range(rank))
    found = Matrices(operand, out, rank)
    tensor = operand
    while tensor.node.op.kind is Kind.VIEW:
        (out,) = input_maps(tensor.node, out, ())
        (tensor,) = tensor.node.inputs
        if _is_readable(tensor, out, operand) and (is_plain(out) or tensor.node.op.kind in _IN_MEMORY):
            found = Matrices(tensor, out, rank)
    return found


def _is_readable(tensor: Tensor, out: Map, operand: Tensor) -> bool:
    walks = [place if isinstance(place, Walk) else Walk(place, 1, 0) for place in out]
    followed = {walk.axis: (axis, walk.step) for axis, walk in enumerate(walks) if walk.axis is not None}
    if len(followed) < sum(walk.axis is not None for walk in walks):
        return False
    steps: list[int | None] = []  # 1 for neighbours, 2 for a distance, None for a single row or column
    for axis in (operand.ndim - 2, operand.ndim - 1):
        place, step = followed.get(axis, (None, 0))
        if place is None and operand.shape[axis] != 1:
            return False
        if place is not None and step < 1:
            return False
        dense = place is not None and step == 1 and all(e == 1 for e in tensor.shape[place + 1 :])
        steps.append(None if operand.shape[axis] == 1 else 1 if dense else 2)
    return steps[0] != 2 or steps[1] != 2


def layout(operand: Tensor, canonical: Canonical) -> tuple[Tensor, bool, Extent, list[Extent], Extent]:
    """Of an operand: the tensor to read, whether it is transposed, the distance between its rows (or columns, if it
    is), the strides along its batch axes, and the first element; all in elements.
    """
    seen = behind_views(operand)
    strides, offset = seen.strides()
    *batch, rows, columns = (canonical(s) for s in strides)
    single_row, single_column = (e == 1 for e in operand.shape[-2:])
    transposed = not (columns == 1 or single_column) and (rows == 1 or single_row)
    return seen.tensor, transposed, columns if transposed else rows, batch, canonical(offset)


def merged_batch(
    extents: Sequence[Extent], strides: Sequence[Sequence[Extent]], canonical: Canonical
) -> tuple[tuple[Extent, ...], tuple[tuple[Extent, ...], ...]]:
    """Batch axes of several operands, outermost first: without those of extent 1, and with neighbours merged that all
    operands walk as one.
    """
    kept: list[Extent] = []
    found: list[list[Extent]] = [[] for _ in strides]
    for axis in reversed(range(len(extents))):
        extent, mine = canonical(extents[axis]), [s[axis] for s in strides]
        if extent == 1:
            continue
        if kept and all(canonical(s[0] * kept[0]) == m for s, m in zip(found, mine, strict=True)):
            kept[0] = canonical(extent * kept[0])
            continue
        kept.insert(0, extent)
        for s, m in zip(found, mine, strict=True):
            s.insert(0, m)
    return tuple(kept), tuple(tuple(s) for s in found)
