"""From an optimised graph to a program: fuse, give every stored tensor a buffer, decide what is updated in place,
order the calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from graphc.dims import Extent, Unifier
from graphc.dtypes import DType
from graphc.node import Node, Tensor
from graphc.opdef import Kind
from graphc.ops.leaf import CONSTANT, EXTENT, PLACEHOLDER
from graphc.ops.philox import RANDOM_KEY, RUN_COUNTER
from graphc.state import PARAMETER
from passes.cluster import Cluster
from passes.epilogue import obstacle
from passes.fuse import ALIASES, Fused, fuse, stored_by
from passes.graph import Graph
from passes.inplace import choose_in_place
from passes.kernel_builder import KernelBuilder
from passes.matrices import layout, merged_batch
from passes.program import (
    Buffer,
    Call,
    CopyCall,
    GemmCall,
    LoopCall,
    Operand,
    Output,
    Program,
    RoutineCall,
    Unfused,
    epilogue_of,
)
from passes.rematerialise import needs_less, rematerialised
from passes.schedule import schedule

_LEAF_KINDS = {
    PLACEHOLDER: "feed", PARAMETER: "parameter", RANDOM_KEY: "parameter", RUN_COUNTER: "parameter",
    CONSTANT: "constant", EXTENT: "extent",
}  # fmt: skip


def lower(graph: Graph, unifier: Unifier | None = None) -> Program:
    """The program that computes ``graph``. ``unifier`` holds what is known of symbolic extents."""
    return lowered(graph, unifier)[1]


def lowered(graph: Graph, unifier: Unifier | None = None) -> tuple[Graph, Program]:
    """The same program, and the graph of its nodes: ``graph``, or one that computes some values again if its program
    needs less memory.
    """
    unifier = unifier or Unifier()
    program = _Lowering(graph, unifier).program()
    other = rematerialised(graph, program)
    if other is not None:
        smaller = _Lowering(other, unifier).program()
        if needs_less(smaller, program):
            return other, smaller
    return graph, program


class _Lowering:
    def __init__(self, graph: Graph, unifier: Unifier) -> None:
        self._graph = graph
        self._canonical = unifier.canonical
        wanted = [*graph.outputs, *(a.inputs[1] for a in graph.updates)]
        self._fused: Fused = fuse(graph, unifier, [t for t in wanted if t.node.op.kind is not Kind.LEAF])
        self._made = {t for u in self._fused.units if isinstance(u, Cluster) for t in stored_by(u)}
        self._buffers: list[Buffer] = []
        self._of: dict[Tensor, Buffer] = {}
        self._partials: dict[Tensor, Buffer] = {}
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
        by_unit = [list(self._calls(unit)) for unit in self._fused.units]
        calls = [call for calls in by_unit for call in calls]
        final = [
            self._update(assign)
            for assign in self._graph.updates
            if in_place.get(assign.inputs[0]) is not assign.inputs[1]
        ]
        ordered = schedule([*calls, *self._copies], final, self._graph, self._canonical)
        unfused = self._unfused(by_unit, ordered)
        again = frozenset(t.node for t in self._graph.after)
        return Program(tuple(self._buffers), tuple(ordered), tuple(outputs), dict(self._constants), unfused, again)

    def _unfused(self, by_unit: Sequence[Sequence[Call]], ordered: Sequence[Call]) -> tuple[Unfused, ...]:
        """Why neighbours among the calls stayed apart."""
        place = {id(part.nodes): i for i, call in enumerate(ordered) for part in (call, *epilogue_of(call))}
        place |= {id(call.nodes[0]): i for i, call in enumerate(ordered) if not isinstance(call, LoopCall | CopyCall)}

        def where(unit: int, buffer: Buffer, *, makes: bool) -> int:
            calls = by_unit[unit]
            mine = [c for c in calls if buffer in (c.writes if makes else c.reads)] or list(calls)
            call = mine[-1 if makes else 0]
            return place[id(call.nodes) if isinstance(call, LoopCall | CopyCall) else id(call.nodes[0])]

        found = []
        for a in self._fused.apart:
            buffer = self._buffer(a.tensor)
            ends = where(a.producer, buffer, makes=True), where(a.consumer, buffer, makes=False)
            if ends[0] != ends[1]:
                found.append(Unfused(*ends, a.tensor, self._why(ordered[ends[0]], ordered[ends[1]]) or a.why))
        makers = {b: i for i, call in enumerate(ordered) for b in call.writes if b.kind == "partial"}
        for i, call in enumerate(ordered):
            for buffer in call.reads:
                if buffer in makers and buffer.tensor is not None:
                    found.append(
                        Unfused(makers[buffer], i, buffer.tensor, "it combines the partial results of all blocks")
                    )
        return tuple(found)

    def _why(self, maker: Call, reader: Call) -> str | None:
        """Why a loop kernel is not the epilogue of a product."""
        if not isinstance(maker, GemmCall) or not isinstance(reader, LoopCall):
            return None
        if maker.epilogue is not None:
            return "the product has another epilogue"
        return obstacle(maker, reader, self._canonical) or "another kernel stands between them"

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

    def _partial(self, reduction: Tensor, columns: tuple[Extent, ...]) -> Buffer:
        """The buffer of a reduction's partial results, between the kernel that makes them and the one that combines."""
        found = self._partials.get(reduction)
        if found is None:
            found = self._partials[reduction] = self._new("partial", columns, reduction.dtype, reduction)
        return found

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
        return self._gemm(unit) if unit.op.kind is Kind.MATMUL else [self._routine(unit)]

    def _gemm(self, node: Node) -> list[Call]:
        canonical = self._canonical
        (a, trans_a, step_a, batch_a, first_a), (b, trans_b, step_b, batch_b, first_b) = (
            layout(t, canonical) for t in node.inputs[:2]
        )
        out = self._buffer(node.outputs[0])
        *batch, m, n = node.outputs[0].shape
        k = node.inputs[0].shape[-2 if node.attrs.get("trans_a") else -1]
        calls: list[Call] = []
        adds = node.op.name == "gemm_add"
        if adds:
            start = self._buffer(node.inputs[2])
            if start is not out:
                calls.append(CopyCall(start, out, "copy", (node,)))
        extents, (along_a, along_b) = merged_batch(batch, (batch_a, batch_b), canonical)
        calls.append(
            GemmCall(
                Operand(self._buffer(a), (*along_a, step_a), first_a),
                Operand(self._buffer(b), (*along_b, step_b), first_b), out,
                trans_a ^ node.attrs.get("trans_a", False), trans_b ^ node.attrs.get("trans_b", False), extents,
                canonical(m), canonical(n), canonical(k),
                node.attrs.get("scale", 1.0), float(adds), node.op.name, (node,),
            )
        )  # fmt: skip
        return calls

    def _routine(self, node: Node) -> RoutineCall:
        assert node.op.routine is not None
        routine = node.op.routine(node)
        reads, writes = ([self._buffer(t) for t in tensors] for tensors in (node.inputs, node.outputs))
        sizes = tuple(self._canonical(e) for e in routine.sizes)
        return RoutineCall(routine.name, sizes, tuple(reads), tuple(writes), node.op.name, (node,))

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
