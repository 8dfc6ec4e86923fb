"""The stages of a cluster: what its kernel computes in each walk over the reduced axes, and what waits for the next."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.node import Tensor
from graphc.opdef import Kind
from passes.cluster import Cluster, Map, Piece, walked


class Stages:
    """Answers questions about the stages of one cluster, which is complete; nothing is built."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._reductions = [
            (node.outputs[0], out)
            for node in cluster.nodes
            if node.op.kind is Kind.REDUCE
            for out in cluster.maps[node.outputs[0]]
        ]

    def reductions(self) -> Sequence[tuple[Tensor, Map]]:
        """The reductions of the cluster, each with the map of its result."""
        return self._reductions

    def of(self, tensor: Tensor, out: Map) -> int:
        """The first stage in which the tensor's value can be computed: one more than the reductions it waits for."""
        if not self._reductions:
            return 0
        key = (tensor, out)
        found = self._cluster.levels.get(key)
        if found is None:
            node = tensor.node
            if node not in self._cluster.nodes:
                found = 0
            else:
                found = max([0, *(self.of(t, m) for t, m in self._cluster.inputs(node, out))])
                found += node.op.kind is Kind.REDUCE
            self._cluster.levels[key] = found
        return found

    def outputs(self) -> list[tuple[Tensor, Map, Piece | None]]:
        """What is stored: the value, its map, and the part of another tensor that it becomes, if it does."""
        found: list[tuple[Tensor, Map, Piece | None]] = []
        for tensor in self._cluster.outputs:
            (out,) = self._cluster.maps[tensor]
            found.append((tensor, out, None))
        for piece in self._cluster.pieces:
            (out,) = self._cluster.maps[piece.value]
            found.append((piece.value, out, piece))
        return found

    def stores_at(self, tensor: Tensor, out: Map) -> int:
        """The stage that stores an output: what does not vary along the reduced axes is stored after them."""
        along = any(a in self._cluster.reduced for a in walked(out))
        return max(self.of(tensor, out), 1 if self._cluster.reduced and not along else 0)

    def totals_at(self, total: Tensor, out: Map) -> int:
        """The stage that adds to a total: after the sum along the row, where the total does not keep the row."""
        value = total.node.inputs[0]
        return self.of(value, out) + 1 if self.sums_row(total, out) else self.stores_at(value, out)

    def sums_row(self, total: Tensor, out: Map) -> bool:
        """Whether a total is also summed along the row, of values that vary along it."""
        kept = kept_axes(total, out)
        return any(a in self._cluster.reduced and a not in kept for a in walked(out))

    def count(self) -> int:
        """How many stages there are."""
        stages = [self.stores_at(t, m) for t, m, _ in self.outputs()]
        stages += [self.totals_at(t, m) for t, m in self._cluster.totals.items()]
        return 1 + max([*stages, *(self.of(t, m) for t, m in self.reductions())])

    def is_row_wise(self) -> bool:
        """Whether a stage after a reduction walks the reduced axes again."""
        if any(
            self.of(t.node.inputs[0], m) > 0 and any(a in self._cluster.reduced for a in walked(m))
            for t, m in self._cluster.totals.items()
        ):
            return True
        if self.count() > 2:
            return True
        return any(
            self.of(t, m) > 0 and any(a in self._cluster.reduced for a in walked(m)) for t, m, _ in self.outputs()
        )

    def reads_after_store(self, source: Tensor, output: Tensor) -> bool:
        """Whether a stage after the one that stores ``output`` reads ``source``."""
        (out,) = self._cluster.maps[output]
        stored = self.stores_at(output, out)
        roots = [(t, m) for t, m, _ in self.outputs() if self.stores_at(t, m) > stored]
        for tensor, m in self.reductions():
            if self.of(tensor, m) - 1 > stored:
                roots += self._cluster.inputs(tensor.node, m)
        for total, m in self._cluster.totals.items():
            if self.totals_at(total, m) > stored:
                roots.append((total.node.inputs[0], m))
        known, seen = set(self.reductions()), set()
        while roots:
            tensor, m = key = roots.pop()
            if tensor is source:
                return True
            if key not in seen and key not in known and tensor.node in self._cluster.nodes:
                roots += self._cluster.inputs(tensor.node, m)
            seen.add(key)
        return False


def kept_axes(total: Tensor, out: Map) -> list[int]:
    """The frame axes that a reduction keeps, given the map of what it reduces."""
    axes = total.node.attrs["axis"]
    return [place for a, place in enumerate(out) if a not in axes and isinstance(place, int)]
