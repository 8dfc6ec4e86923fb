"""From a cluster of nodes to one loop kernel, or two when a reduction is split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc.dims import Extent, product
from graphc.dtypes import DType
from graphc.node import Node, Tensor
from graphc.opdef import Kind
from passes.cluster import Cluster, Map, input_maps
from passes.emitter import Access, Emitter
from passes.loop_ir import Arg, Instr, LoopKernel
from passes.program import Buffer, LoopCall, Operand, SplitCount

Canonical = Callable[[Extent], Extent]
SMALL = 16384  # elements below which a reduction of known size is not worth splitting


class KernelBuilder:
    """Builds the calls of one cluster. ``buffer_of`` gives the buffer of a tensor that is in memory; ``canonical``
    normalises extents.
    """

    def __init__(self, cluster: Cluster, buffer_of: Callable[[Tensor], Buffer], canonical: Canonical) -> None:
        self._cluster = cluster
        self._buffer_of = buffer_of
        self._canonical = canonical
        self._frame = tuple(canonical(e) for e in cluster.frame)
        self._reduced = sorted(cluster.reduced)
        self._levels: dict[tuple[Tensor, Map], int] = {}

    def build(self, new_partial: Callable[[DType, tuple[Extent, ...]], Buffer]) -> list[LoopCall]:
        """One call, or two when the reduction is split. ``new_partial`` makes the buffer of partial results."""
        if self._is_split():
            return self._build_split(new_partial)
        emitter = Emitter(self._frame)
        values: dict[tuple[Tensor, Map], int] = {}
        for stage in range(self._stage_count()):
            emitter.new_stage()
            self._emit_stage(emitter, stage, values)
        return [self._finish(emitter, split=False)]

    # Stages.

    def _reductions(self) -> list[tuple[Tensor, Map]]:
        return [
            (node.outputs[0], out)
            for node in self._cluster.nodes
            if node.op.kind is Kind.REDUCE
            for out in self._cluster.maps[node.outputs[0]]
        ]

    def _stage(self, tensor: Tensor, out: Map) -> int:
        """The first stage in which the tensor's value can be computed: one more than the reductions it waits for."""
        key = (tensor, out)
        found = self._levels.get(key)
        if found is None:
            node = tensor.node
            if node not in self._cluster.nodes:
                found = 0
            else:
                maps = input_maps(node, out, self._reduced)
                found = max([0, *(self._stage(t, m) for t, m in zip(node.inputs, maps, strict=True))])
                found += node.op.kind is Kind.REDUCE
            self._levels[key] = found
        return found

    def _outputs(self) -> list[tuple[Tensor, Map]]:
        found = []
        for tensor in self._cluster.outputs:
            (out,) = self._cluster.maps[tensor]
            found.append((tensor, out))
        return found

    def _store_stage(self, tensor: Tensor, out: Map) -> int:
        """The stage that stores an output: what does not vary along the reduced axes is stored after them."""
        along = any(a in self._cluster.reduced for a in out)
        return max(self._stage(tensor, out), 1 if self._reduced and not along else 0)

    def _stage_count(self) -> int:
        stages = [self._store_stage(t, m) for t, m in self._outputs()]
        return 1 + max([*stages, *(self._stage(t, m) for t, m in self._reductions())])

    def _is_row_wise(self) -> bool:
        """Whether a stage after a reduction walks the reduced axes again."""
        if self._stage_count() > 2:
            return True
        return any(self._stage(t, m) > 0 and any(a in self._cluster.reduced for a in m) for t, m in self._outputs())

    def _emit_stage(self, emitter: Emitter, stage: int, reduced: dict[tuple[Tensor, Map], int]) -> None:
        memo: dict[tuple[Tensor, Map], int] = {}
        for tensor, out in self._reductions():
            if self._stage(tensor, out) == stage + 1:
                reduced[tensor, out] = self._emit_reduce(emitter, tensor, out, memo, reduced)
        self._emit_stores(emitter, [stage], memo, reduced)

    def _emit_stores(
        self,
        emitter: Emitter,
        stages: Sequence[int],
        memo: dict[tuple[Tensor, Map], int],
        reduced: dict[tuple[Tensor, Map], int],
    ) -> None:
        """Everything is read before the first store: an output may lie over what another one reads."""
        outputs = [(t, m) for t, m in self._outputs() if self._store_stage(t, m) in stages]
        values = [self._value(emitter, t, m, memo, reduced) for t, m in outputs]
        for (tensor, out), value in zip(outputs, values, strict=True):
            self._store(emitter, tensor, out, value)

    def reads_after_store(self, source: Tensor, output: Tensor) -> bool:
        """Whether a stage after the one that stores ``output`` reads ``source``."""
        (out,) = self._cluster.maps[output]
        stored = self._store_stage(output, out)
        roots = [(t, m) for t, m in self._outputs() if self._store_stage(t, m) > stored]
        for tensor, m in self._reductions():
            if self._stage(tensor, m) - 1 > stored:
                roots.append((tensor.node.inputs[0], input_maps(tensor.node, m, self._reduced)[0]))
        known, seen = set(self._reductions()), set()
        while roots:
            tensor, m = key = roots.pop()
            if tensor is source:
                return True
            if key not in seen and key not in known and tensor.node in self._cluster.nodes:
                roots += zip(tensor.node.inputs, input_maps(tensor.node, m, self._reduced), strict=True)
            seen.add(key)
        return False

    def _emit_reduce(
        self,
        emitter: Emitter,
        tensor: Tensor,
        out: Map,
        memo: dict[tuple[Tensor, Map], int],
        reduced: dict[tuple[Tensor, Map], int],
    ) -> int:
        node = tensor.node
        (inner,) = input_maps(node, out, self._reduced)
        value = self._value(emitter, node.inputs[0], inner, memo, reduced)
        return emitter.append("reduce", tensor.dtype, (value,), node.op.reduce)

    def _value(
        self,
        emitter: Emitter,
        tensor: Tensor,
        out: Map,
        memo: dict[tuple[Tensor, Map], int],
        reduced: dict[tuple[Tensor, Map], int],
    ) -> int:
        key = (tensor, out)
        found = reduced.get(key)
        if found is None:
            found = memo.get(key)
        if found is not None:
            return found
        node = tensor.node
        if node not in self._cluster.nodes:
            found = self._load(emitter, tensor, out)
        else:
            maps = input_maps(node, out, self._reduced)
            values = [self._value(emitter, t, m, memo, reduced) for t, m in zip(node.inputs, maps, strict=True)]
            if node.op.kind is Kind.VIEW:
                found = values[0]
            else:
                assert node.op.emit is not None
                emitter.map, emitter.node = out, node
                found = node.op.emit(emitter, node.attrs, *values)
        memo[key] = found
        return found

    # Memory.

    def _strides(self, tensor: Tensor, out: Map) -> tuple[Extent, ...]:
        """Stride of a contiguous tensor along each frame axis, in elements."""
        strides: list[Extent] = [0] * len(self._frame)
        for axis, frame_axis in enumerate(out):
            if frame_axis is not None:
                step = self._canonical(product(tensor.shape[axis + 1 :]))
                strides[frame_axis] = strides[frame_axis] + step
        return tuple(strides)

    def _load(self, emitter: Emitter, tensor: Tensor, out: Map) -> int:
        access = Access(self._buffer_of(tensor), self._strides(tensor, out))
        return emitter.append("load", tensor.dtype, (), emitter.access(access, "r"))

    def _store(self, emitter: Emitter, tensor: Tensor, out: Map, value: int) -> None:
        access = Access(self._buffer_of(tensor), self._strides(tensor, out))
        emitter.append("store", tensor.dtype, (value,), emitter.access(access, "w"))

    # Split reductions.

    def _is_split(self) -> bool:
        if not self._reduced or self._is_row_wise():
            return False
        outer = [a for a in self._cluster.outer if self._frame[a] != 1]
        if len(outer) > 1 or (outer and self._last_is_reduced()):
            return False
        size = product(self._frame)
        return not (isinstance(size, int) and size <= SMALL)

    def _last_is_reduced(self) -> bool:
        """Whether the reduced axes are the contiguous ones, judged by what the first reduction reads."""
        if self._is_row_wise():
            return True
        for tensor, out in self._reductions():
            (inner,) = input_maps(tensor.node, out, self._reduced)
            following = [a for a in inner if a is not None and self._frame[a] != 1]
            return not following or following[-1] in self._cluster.reduced
        return False

    def _build_split(self, new_partial: Callable[[DType, tuple[Extent, ...]], Buffer]) -> list[LoopCall]:
        first = Emitter(self._frame)
        first.new_stage()
        memo: dict[tuple[Tensor, Map], int] = {}
        reductions = self._reductions()
        values = [self._emit_reduce(first, t, m, memo, {}) for t, m in reductions]
        self._emit_stores(first, [0], memo, {})
        first.new_stage()
        outer = [a for a in self._cluster.outer if self._frame[a] != 1]
        columns: tuple[Extent, ...] = tuple(self._frame[a] for a in outer)
        partials = [new_partial(t.dtype, columns) for t, _ in reductions]
        along = tuple(1 if a in outer else 0 for a in range(len(self._frame)))
        for buffer, value in zip(partials, values, strict=True):
            access = Access(buffer, along, per_split=True)
            first.append("store", buffer.dtype, (value,), first.access(access, "w"))
        second = Emitter(self._frame)
        second.new_stage()
        # The combining kernel runs over (split, columns): the first reduced frame axis stands for the split.
        over = self._reduced[0]
        step: Extent = product(columns)
        combined: dict[tuple[Tensor, Map], int] = {}
        for (tensor, out), buffer in zip(reductions, partials, strict=True):
            strides = tuple(step if a == over else (1 if a in outer else 0) for a in range(len(self._frame)))
            load = second.append("load", buffer.dtype, (), second.access(Access(buffer, strides), "r"))
            combined[tensor, out] = second.append("reduce", buffer.dtype, (load,), tensor.node.op.reduce)
        second.new_stage()
        self._emit_stores(second, range(1, self._stage_count()), {}, combined)
        split_extent = SplitCount(partials[0])
        head = self._finish(first, split=True)
        tail = self._finish(second, split=False, replaced={over: split_extent}, dropped=set(self._reduced) - {over})
        return [head, tail]

    # Canonical form.

    def _finish(
        self,
        emitter: Emitter,
        *,
        split: bool,
        replaced: dict[int, Any] | None = None,
        dropped: set[int] | None = None,
    ) -> LoopCall:
        replaced = replaced or {}
        extents = [replaced.get(a, e) for a, e in enumerate(self._frame)]
        order = self._loop_order([a for a in range(len(extents)) if a not in (dropped or set())], extents)
        roles = {a: "r" if a in self._cluster.reduced else "p" for a in order}
        accesses = list(emitter.accesses.items())
        pinned = {i.attr for stage in emitter.stages for i in stage if i.op == "index"}
        groups = _merge(order, roles, extents, [a for a, _ in accesses], pinned, self._canonical)
        place = {axis: n for n, group in enumerate(groups) for axis in group}
        args, operands = [], []
        for access, mode in accesses:
            strides = tuple(access.strides[group[-1]] if group else 0 for group in groups)
            pattern = "".join("0" if s == 0 else "1" if s == 1 else "s" for s in strides)
            args.append(Arg(access.buffer.dtype, mode, pattern, access.per_split))
            operands.append(Operand(access.buffer, strides))
        stages = tuple(
            tuple(Instr("index", i.dtype, (), place[i.attr]) if i.op == "index" else i for i in stage)
            for stage in emitter.stages
            if stage
        )
        kernel = LoopKernel(
            "".join(roles[g[-1]] if g else "p" for g in groups), tuple(args), stages, len(emitter.extents),
            len(emitter.guards), split,
        )  # fmt: skip
        axes = tuple(_group_extent(g, extents, self._canonical) for g in groups)
        scalars = tuple(self._canonical(e) for e in emitter.extents)
        nodes = tuple(self._cluster.nodes)
        return LoopCall(kernel, tuple(operands), axes, scalars, _label(nodes), nodes, tuple(emitter.guards))

    def _loop_order(self, axes: Sequence[int], extents: Sequence[Any]) -> list[int]:
        """Axes of extent 1 dropped, in loop order: p r, or p r p with the contiguous parallel axis last."""
        kept = [a for a in axes if not (isinstance(extents[a], int) and extents[a] == 1)]
        reduced = [a for a in kept if a in self._cluster.reduced]
        outer = [a for a in kept if a not in self._cluster.reduced]
        if self._cluster.reduced and not reduced:
            reduced = [next(a for a in axes if a in self._cluster.reduced)]
        if reduced and outer and not self._last_is_reduced():
            return [*outer[:-1], *reduced, outer[-1]]
        return [*outer, *reduced]


def reads_after_store(cluster: Cluster, source: Tensor, output: Tensor) -> bool:
    """Whether the kernel of ``cluster`` reads ``source`` in a stage after the one that stores ``output``."""

    def no_buffer(tensor: Tensor) -> Buffer:
        raise AssertionError(tensor)

    return KernelBuilder(cluster, no_buffer, lambda extent: extent).reads_after_store(source, output)


def _merge(
    order: Sequence[int],
    roles: dict[int, str],
    extents: Sequence[Any],
    accesses: Sequence[Access],
    pinned: set[int],
    canonical: Canonical,
) -> list[list[int]]:
    """Adjacent axes of one role that every argument walks as one; at least one group, perhaps empty."""
    groups: list[list[int]] = []
    for axis in order:
        if groups and roles[groups[-1][-1]] == roles[axis] and not pinned & {axis, groups[-1][-1]}:
            before = groups[-1][-1]
            joined = all(canonical(a.strides[axis] * extents[axis]) == a.strides[before] for a in accesses)
            if joined:
                groups[-1].append(axis)
                continue
        groups.append([axis])
    return groups or [[]]


def _group_extent(group: Sequence[int], extents: Sequence[Any], canonical: Canonical) -> Any:
    if len(group) == 1:
        return extents[group[0]]
    return canonical(product(extents[a] for a in group))


def _label(nodes: Sequence[Node]) -> str:
    """A readable name: the ops that compute, the most telling first, at most four."""
    names = [n.op.name for n in nodes if n.op.kind is not Kind.VIEW]
    distinct = list(dict.fromkeys(names or [n.op.name for n in nodes]))
    return "_".join(distinct[:4])
