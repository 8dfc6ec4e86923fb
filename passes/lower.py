"""From an optimised graph to a program: fuse, give every stored tensor a buffer, decide what is updated in place,
order the calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from graphc.dims import Extent, Unifier, product
from graphc.dtypes import DType
from graphc.node import Node, Tensor
from graphc.opdef import Kind
from graphc.ops.leaf import CONSTANT, EXTENT, PLACEHOLDER
from graphc.state import PARAMETER
from passes.cluster import Cluster
from passes.fuse import ALIASES, Fused, fuse, operands, untransposed
from passes.graph import Graph
from passes.inplace import choose_in_place
from passes.kernel_builder import KernelBuilder
from passes.program import Buffer, Call, CopyCall, GemmCall, Output, Program
from passes.schedule import schedule

_LEAF_KINDS = {PLACEHOLDER: "feed", PARAMETER: "parameter", CONSTANT: "constant", EXTENT: "extent"}


def lower(graph: Graph, unifier: Unifier | None = None) -> Program:
    """The program that computes ``graph``. ``unifier`` holds what is known of symbolic extents."""
    return _Lowering(graph, unifier or Unifier()).program()


class _Lowering:
    def __init__(self, graph: Graph, unifier: Unifier) -> None:
        self._graph = graph
        self._canonical = unifier.canonical
        wanted = [*graph.outputs, *(a.inputs[1] for a in graph.updates)]
        self._fused: Fused = fuse(graph, unifier, [t for t in wanted if t.node.op.kind is not Kind.LEAF])
        self._made = {t for u in self._fused.units if isinstance(u, Cluster) for t in u.outputs}
        self._buffers: list[Buffer] = []
        self._of: dict[Tensor, Buffer] = {}
        self._constants: dict[int, np.ndarray[Any, Any]] = {}
        self._copies: list[CopyCall] = []

    def program(self) -> Program:
        """Buffers, calls in order, outputs."""
        in_place = choose_in_place(self._graph, self._fused, self._root)
        outputs = [self._output(t) for t in self._graph.outputs]
        for assign in self._graph.updates:
            parameter, value = assign.inputs
            if in_place.get(parameter) is value:
                self._of[value] = self._buffer(parameter)
        calls: list[Call] = []
        for unit in self._fused.units:
            calls += self._calls(unit)
        final = [
            self._update(assign)
            for assign in self._graph.updates
            if in_place.get(assign.inputs[0]) is not assign.inputs[1]
        ]
        ordered = schedule([*calls, *self._copies], final, self._graph)
        return Program(tuple(self._buffers), tuple(ordered), tuple(outputs), dict(self._constants))

    # Buffers.

    def _root(self, tensor: Tensor) -> Tensor:
        """The tensor whose memory ``tensor`` shares: itself, unless it is a reinterpretation of another."""
        while tensor.node.op.name in ALIASES and tensor not in self._made:
            tensor = tensor.node.inputs[0]
        return tensor

    def _new(self, kind: str, shape: Sequence[Extent], dtype: DType, tensor: Tensor | None = None) -> Buffer:
        extents = tuple(self._canonical(e) for e in shape)
        buffer = Buffer(len(self._buffers), kind, extents, dtype, tensor)
        self._buffers.append(buffer)
        return buffer

    def _buffer(self, tensor: Tensor) -> Buffer:
        """The buffer that holds ``tensor``; made on first use."""
        root = self._root(tensor)
        found = self._of.get(root)
        if found is None:
            kind = _LEAF_KINDS.get(root.node.op, "temp")
            found = self._of[root] = self._new(kind, root.shape, root.dtype, root)
            if kind == "constant":
                self._constants[found.id] = root.node.attrs["value"]
        return found

    def _partial(self, dtype: DType, shape: tuple[Extent, ...]) -> Buffer:
        return self._new("partial", shape, dtype)

    def _output(self, tensor: Tensor) -> Output:
        """Memory of its own for a fetched tensor: what computes it writes there, or it is copied."""
        root = self._root(tensor)
        shape = tuple(self._canonical(e) for e in tensor.shape)
        if root not in self._of and root.node.op.kind is not Kind.LEAF:
            self._of[root] = self._new("output", root.shape, root.dtype, root)
            return Output(self._of[root], shape)
        target = self._new("output", root.shape, root.dtype, root)
        self._copies.append(CopyCall(self._buffer(root), target, "copy", (tensor.node,)))
        return Output(target, shape)

    # Calls.

    def _calls(self, unit: Cluster | Node) -> Iterable[Call]:
        if isinstance(unit, Cluster):
            return KernelBuilder(unit, self._buffer, self._canonical).build(self._partial)
        return self._gemm(unit)

    def _gemm(self, node: Node) -> list[Call]:
        a, b = (untransposed(t) for t in node.inputs[:2])
        trans_a = a[1] ^ node.attrs.get("trans_a", False)
        trans_b = b[1] ^ node.attrs.get("trans_b", False)
        out = self._buffer(node.outputs[0])
        *batch, m, n = node.outputs[0].shape
        k = a[0].shape[-2] if trans_a else a[0].shape[-1]
        calls: list[Call] = []
        alpha = None
        if node.op.name == "gemm_add":
            alpha = self._buffer(operands(node)[2])
            start = self._buffer(operands(node)[3])
            if start is not out:
                calls.append(CopyCall(start, out, "copy", (node,)))
        canonical = self._canonical
        calls.append(
            GemmCall(
                self._buffer(a[0]), self._buffer(b[0]), out, trans_a, trans_b, canonical(product(batch)), canonical(m),
                canonical(n), canonical(k), alpha, 0 if alpha is None else 1, node.op.name, (node,),
            )
        )  # fmt: skip
        return calls

    def _update(self, assign: Node) -> CopyCall:
        """A copy into the parameter, after everything that reads it."""
        parameter, value = assign.inputs
        source = self._buffer(value)
        if source.kind == "parameter" and source is not self._buffer(parameter):
            # The source may be overwritten in the same run: keep the value from before.
            kept = self._new("temp", source.shape, source.dtype)
            self._copies.append(CopyCall(source, kept, "copy", (assign,)))
            source = kept
        return CopyCall(source, self._buffer(parameter), "assign", (assign,))
