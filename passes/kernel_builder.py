"""From a cluster of nodes to one loop kernel, or two when a reduction is split.

The cluster's *frame* is the list of axes that it runs over. Each tensor is evaluated under a *map*: for each of its
axes the frame axis that it follows, or None where its extent is 1. Views and broadcasting only change maps; nothing
is moved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphc.dims import Extent, product
from graphc.dtypes import DType, bool_, int64
from graphc.expr import Primitives
from graphc.node import Node, Tensor
from graphc.opdef import Kind
from passes.loop_ir import Arg, Instr, LoopKernel
from passes.program import Buffer, LoopCall, Operand

Map = tuple[int | None, ...]
Canonical = Callable[[Extent], Extent]
SMALL = 16384  # elements below which a reduction of known size is not worth splitting


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


@dataclass(frozen=True, slots=True)
class _Access:
    """How an argument walks the frame: its buffer and its stride along each frame axis."""

    buffer: Buffer
    strides: tuple[Extent, ...]
    per_split: bool = False


class _Emitter(Primitives):
    """The loop IR's expression builder: appends instructions to the current stage, each distinct one once."""

    def __init__(self, frame: Sequence[Extent]) -> None:
        self.frame = frame
        self.stages: list[list[Instr]] = []
        self.dtypes: list[DType] = []
        self.accesses: dict[_Access, str] = {}
        self.extents: dict[Extent, int] = {}
        self.guards: dict[Node, int] = {}
        self.map: Map = ()
        self.node: Node | None = None
        self._known: dict[Instr, int] = {}

    def new_stage(self) -> None:
        self.stages.append([])
        self._known = {}

    def append(self, op: str, dtype: DType, args: tuple[int, ...] = (), attr: Any = None) -> int:
        instr = Instr(op, dtype, args, attr)
        found = self._known.get(instr)
        if found is None:
            found = self._known[instr] = len(self.dtypes)
            self.dtypes.append(dtype)
            self.stages[-1].append(instr)
        return found

    def access(self, access: _Access, mode: str) -> int:
        """Number of the argument for ``access``; one that is read and written shares its number."""
        known = self.accesses.get(access, "")
        self.accesses[access] = "".join(m for m in "rw" if m in known + mode)
        return list(self.accesses).index(access)

    # The builder's vocabulary (graphc.expr.Builder).

    def dtype(self, x: int) -> DType:
        return self.dtypes[x]

    def const(self, value: float | int | bool, dtype: DType) -> int:
        return self.append("const", dtype, (), repr(np.asarray(value, dtype).item()))

    def cast(self, x: int, dtype: DType) -> int:
        return x if self.dtypes[x] == dtype else self.append("cast", dtype, (x,))

    def unary(self, name: str, x: int) -> int:
        return self.append("unary", self.dtypes[x], (x,), name)

    def binary(self, name: str, x: int, y: int) -> int:
        return self.append("binary", self.dtypes[x], (x, y), name)

    def compare(self, name: str, x: int, y: int) -> int:
        return self.append("compare", bool_, (x, y), name)

    def not_(self, x: int) -> int:
        return self.append("not", bool_, (x,))

    def select(self, condition: int, x: int, y: int) -> int:
        return self.append("select", self.dtypes[x], (condition, x, y))

    def fma(self, x: int, y: int, z: int) -> int:
        return self.append("fma", self.dtypes[x], (x, y, z))

    def index(self, axis: int) -> int:
        frame_axis = self.map[axis]
        if frame_axis is None or self.frame[frame_axis] == 1:
            return self.const(0, int64)
        return self.append("index", int64, (), frame_axis)

    def extent(self, key: str) -> int:
        assert self.node is not None
        extent = self.node.attrs[key]
        return self.append("extent", int64, (), self.extents.setdefault(extent, len(self.extents)))

    def guard(self, bad: int) -> None:
        assert self.node is not None
        self.append("guard", bool_, (bad,), self.guards.setdefault(self.node, len(self.guards)))


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
        emitter = _Emitter(self._frame)
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

    def _emit_stage(self, emitter: _Emitter, stage: int, reduced: dict[tuple[Tensor, Map], int]) -> None:
        memo: dict[tuple[Tensor, Map], int] = {}
        for tensor, out in self._reductions():
            if self._stage(tensor, out) == stage + 1:
                reduced[tensor, out] = self._emit_reduce(emitter, tensor, out, memo, reduced)
        self._emit_stores(emitter, [stage], memo, reduced)

    def _emit_stores(
        self,
        emitter: _Emitter,
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
        emitter: _Emitter,
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
        emitter: _Emitter,
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

    def _load(self, emitter: _Emitter, tensor: Tensor, out: Map) -> int:
        access = _Access(self._buffer_of(tensor), self._strides(tensor, out))
        return emitter.append("load", tensor.dtype, (), emitter.access(access, "r"))

    def _store(self, emitter: _Emitter, tensor: Tensor, out: Map, value: int) -> None:
        access = _Access(self._buffer_of(tensor), self._strides(tensor, out))
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
        first = _Emitter(self._frame)
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
            access = _Access(buffer, along, per_split=True)
            first.append("store", buffer.dtype, (value,), first.access(access, "w"))
        second = _Emitter(self._frame)
        second.new_stage()
        # The combining kernel runs over (split, columns): the first reduced frame axis stands for the split.
        over = self._reduced[0]
        step: Extent = product(columns)
        combined: dict[tuple[Tensor, Map], int] = {}
        for (tensor, out), buffer in zip(reductions, partials, strict=True):
            strides = tuple(step if a == over else (1 if a in outer else 0) for a in range(len(self._frame)))
            load = second.append("load", buffer.dtype, (), second.access(_Access(buffer, strides), "r"))
            combined[tensor, out] = second.append("reduce", buffer.dtype, (load,), tensor.node.op.reduce)
        second.new_stage()
        self._emit_stores(second, range(1, self._stage_count()), {}, combined)
        split_extent = _SplitCount(partials[0])
        head = self._finish(first, split=True)
        tail = self._finish(second, split=False, replaced={over: split_extent}, dropped=set(self._reduced) - {over})
        return [head, tail]

    # Canonical form.

    def _finish(
        self,
        emitter: _Emitter,
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


class _SplitCount:
    """The extent of the axis over splits: known when the call that fills ``partial`` is bound."""

    def __init__(self, partial: Buffer) -> None:
        self.partial = partial


def split_source(extent: Any) -> Buffer | None:
    """The buffer of partial results whose number of slices ``extent`` stands for, if it does."""
    return extent.partial if isinstance(extent, _SplitCount) else None


def _merge(
    order: Sequence[int],
    roles: dict[int, str],
    extents: Sequence[Any],
    accesses: Sequence[_Access],
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
