"""From a cluster of nodes to one loop kernel, or two when a reduction is split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.dims import Extent, product
from graphc.dtypes import int64
from graphc.node import Node, Tensor
from graphc.opdef import Kind
from graphc.ops.comparison import WHERE
from graphc.ops.leaf import CONSTANT
from graphc.ops.reduce import SUM
from passes.cluster import Cluster, Map, Piece, Walk, input_maps, walked
from passes.emitter import Access, Emitter, Source
from passes.keep import Value, choose_kept
from passes.loop_ir import Arg, Instr, LoopKernel
from passes.program import Buffer, LoopCall, Operand, SplitCount
from passes.stages import Stages, kept_axes

Canonical = Callable[[Extent], Extent]
PartialOf = Callable[[Tensor, tuple[Extent, ...]], Buffer]
SMALL = 16384  # elements below which a reduction of known size is not worth splitting


class _Values:
    """What has been emitted so far: the values of reductions, and those of the present stage."""

    def __init__(self, emitter: Emitter, kept: Mapping[Value, Tensor] | None = None) -> None:
        self.emitter = emitter
        self.kept = kept or {}
        self.reduced: dict[Value, int] = {}
        self.memo: dict[Value, int] = {}
        self.stages_of: dict[Value, list[int]] = {}  # in which each value was computed
        self.stage = -1

    def new_stage(self) -> None:
        self.emitter.new_stage()
        self.memo = {}
        self.stage += 1

    def is_kept(self, key: Value) -> bool:
        """Whether an earlier stage has put the value in memory."""
        return key in self.kept and key in self.stages_of


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
        self._stages = Stages(cluster)
        self._walks: dict[tuple[tuple[Extent, ...], Map], tuple[tuple[Extent, ...], Extent]] = {}
        self._partial_of: PartialOf = _no_partial

    def build(self, partial_of: PartialOf) -> list[LoopCall]:
        """One call, or two when the reduction is split. ``partial_of`` gives the buffer of a reduction's partial
        results.
        """
        if self._cluster.combined:
            return [self._build_combination(partial_of)]
        if self._is_split():
            return [self._build_split(partial_of), self._build_combination(partial_of)]
        self._partial_of = partial_of
        values = self._emitted({})
        kept = choose_kept(self._cluster, self._stages, values.stages_of, self._buffer_of)
        if kept:
            values = self._emitted(kept)
        return [self._finish(values.emitter, split=False)]

    def _emitted(self, kept: Mapping[Value, Tensor]) -> _Values:
        """All stages. ``kept`` are values that a later stage needs again, with the outputs whose memory holds them
        until then.
        """
        values = _Values(Emitter(self._frame, self._canonical), kept)
        for stage in range(self._stages.count()):
            values.new_stage()
            self._emit_stage(values, stage)
        return values

    # Stages.

    def _emit_stage(self, values: _Values, stage: int) -> None:
        for tensor, out in self._stages.reductions():
            if self._stages.of(tensor, out) == stage + 1:
                values.reduced[tensor, out] = self._emit_reduce(values, tensor, out)
        for total, out in self._cluster.totals.items():  # what they read is read before the first store, too
            if self._stages.totals_at(total, out) - self._stages.sums_row(total, out) == stage:
                self._value(values, total.node.inputs[0], out)
        self._emit_stores(values, [stage])
        for total, out in self._cluster.totals.items():
            self._emit_total(values, stage, total, out)

    def _emit_total(self, values: _Values, stage: int, total: Tensor, out: Map) -> None:
        """What a stage does for a total: sum along the row where that is due, and add to the block's partial result."""
        emitter = values.emitter
        value, combine = total.node.inputs[0], total.node.op.reduce
        last = self._stages.totals_at(total, out)
        if self._stages.sums_row(total, out):
            row = (total, out)  # no other value of the cluster has this key: the total is made elsewhere
            if stage == last - 1:
                summed = self._value(values, value, out)
                values.reduced[row] = emitter.append("reduce", total.dtype, (summed,), combine)
            number = values.reduced.get(row, -1)
        else:
            number = self._value(values, value, out) if stage == last else -1
        if stage == last:
            kept = kept_axes(total, out)
            wide = [a for a in kept if self._frame[a] != 1]
            strides = [0 if a not in wide else self._columns_after(wide, a) for a in range(len(self._frame))]
            buffer = self._partial_of(total, tuple(self._frame[a] for a in wide))
            access = Access(buffer, tuple(strides), per_split=True, combine=combine or "")
            emitter.append("store", total.dtype, (number,), emitter.access(access, "w"))

    def _columns_after(self, kept: Sequence[int], axis: int) -> Extent:
        return self._canonical(product(self._frame[a] for a in kept if a > axis))

    def _emit_stores(self, values: _Values, stages: Sequence[int]) -> None:
        """Everything is read before the first store: an output may lie over what another one reads."""
        outputs = [(t, m, piece) for t, m, piece in self._stages.outputs() if self._stages.stores_at(t, m) in stages]
        numbers = [self._value(values, t, m) for t, m, _ in outputs]
        for (tensor, out, piece), number in zip(outputs, numbers, strict=True):
            self._store(values.emitter, tensor, out, number, piece)

    def _emit_reduce(self, values: _Values, tensor: Tensor, out: Map) -> int:
        node = tensor.node
        (inner,) = input_maps(node, out, self._reduced)
        value = self._value(values, node.inputs[0], inner)
        place = self._picked_at(values.emitter, node, value)
        if place is not None:
            picked = values.emitter.instruction(value).args[1]
            return values.emitter.append("pick", tensor.dtype, (picked, place), self._reduced[-1])
        return values.emitter.append("reduce", tensor.dtype, (value,), node.op.reduce)

    def _picked_at(self, emitter: Emitter, node: Node, value: int) -> int | None:
        """Where along the only reduced axis the sum of ``value`` takes its one element, a choice between that and 0; or
        None: then there is no such place.
        """
        choice = node.inputs[0].node
        if node.op is not SUM or choice.op is not WHERE or not is_zero(choice.inputs[2]):
            return None
        wide = [a for a in self._reduced if self._frame[a] != 1]
        if wide != self._reduced[-1:] or not self._last_is_reduced():
            return None
        (axis,) = wide
        if emitter.instruction(value).op != "select":
            return None
        condition = emitter.instruction(emitter.instruction(value).args[0])
        if condition.op != "compare" or condition.attr != "eq":
            return None
        for place, counted in (condition.args, condition.args[::-1]):
            if emitter.instruction(counted) == Instr("index", int64, (), axis) and not emitter.varies(place, axis):
                return place
        return None

    def _value(self, values: _Values, tensor: Tensor, out: Map) -> int:
        key = (tensor, out)
        found = values.reduced.get(key)
        if found is None:
            found = values.memo.get(key)
        if found is not None:
            return found
        if tensor.node not in self._cluster.nodes:
            found = self._load(values.emitter, tensor, out)
        elif values.is_kept(key):
            found = self._load(values.emitter, values.kept[key], out, "")
        else:
            found = self._computed(values, tensor, out)
            values.stages_of.setdefault(key, []).append(values.stage)
            if key in values.kept:
                self._store(values.emitter, values.kept[key], out, found, None)
        values.memo[key] = found
        return found

    def _computed(self, values: _Values, tensor: Tensor, out: Map) -> int:
        node = tensor.node
        inputs = self._cluster.inputs(node, out)
        operands: list[Any] = []
        if node.op.kind is Kind.GATHER:
            source = node.inputs[0]
            operands.append(Source(self._buffer_of(source), source.shape))
        operands += [self._value(values, t, m) for t, m in inputs[len(operands) :]]
        if node.op.kind is Kind.VIEW:
            found: int = operands[0]
            return found
        assert node.op.emit is not None
        values.emitter.map, values.emitter.node = out, node
        found = node.op.emit(values.emitter, node.attrs, *operands)
        return found

    # Memory.

    def _access(self, tensor: Tensor, out: Map) -> Access:
        """How a contiguous tensor is walked under a map."""
        key = (tensor.shape, out)
        found = self._walks.get(key)
        if found is None:
            found = self._walks[key] = self._walk(*key)
        strides, offset = found
        return Access(self._buffer_of(tensor), strides, offset=offset)

    def _walk(self, shape: tuple[Extent, ...], out: Map) -> tuple[tuple[Extent, ...], Extent]:
        """Strides along the frame's axes, and the first element."""
        strides: list[Extent] = [0] * len(self._frame)
        offset: Extent = 0
        for axis, place in enumerate(out):
            if place is not None:
                walk = place if isinstance(place, Walk) else Walk(place, 1, 0)
                stride = self._canonical(product(shape[axis + 1 :]))
                offset = offset + walk.start * stride
                if walk.axis is not None:
                    strides[walk.axis] = strides[walk.axis] + walk.step * stride
        return tuple(strides), self._canonical(offset)

    def _load(self, emitter: Emitter, tensor: Tensor, out: Map, mode: str = "r") -> int:
        return emitter.append("load", tensor.dtype, (), emitter.access(self._access(tensor, out), mode))

    def _store(self, emitter: Emitter, tensor: Tensor, out: Map, value: int, piece: Piece | None) -> None:
        target = tensor
        if piece is not None:
            target = piece.target
            moved = [_shifted(place, piece.start) if a == piece.axis else place for a, place in enumerate(out)]
            out = tuple(moved)
        emitter.append("store", tensor.dtype, (value,), emitter.access(self._access(target, out), "w"))

    # Split reductions.

    def _is_split(self) -> bool:
        if not self._reduced or self._cluster.totals or self._stages.is_row_wise():
            return False
        outer = [a for a in self._cluster.outer if self._frame[a] != 1]
        if len(outer) > 1 or (outer and self._last_is_reduced()):
            return False
        size = product(self._frame)
        return not (isinstance(size, int) and size <= SMALL)

    def _last_is_reduced(self) -> bool:
        """Whether the reduced axes are the contiguous ones, judged by what the first reduction reads."""
        if self._cluster.totals or self._stages.is_row_wise():
            return True
        for tensor, out in self._stages.reductions():
            (inner,) = input_maps(tensor.node, out, self._reduced)
            following = [a for a in walked(inner) if self._frame[a] != 1]
            return not following or following[-1] in self._cluster.reduced
        return False

    def _build_split(self, partial_of: PartialOf) -> LoopCall:
        """The kernel that reduces slices of the reduced range to partial results."""
        values = _Values(Emitter(self._frame, self._canonical))
        values.new_stage()
        emitter, reductions = values.emitter, self._stages.reductions()
        partials = [self._emit_reduce(values, t, m) for t, m in reductions]
        self._emit_stores(values, [0])
        emitter.new_stage()
        outer = [a for a in self._cluster.outer if self._frame[a] != 1]
        along = tuple(1 if a in outer else 0 for a in range(len(self._frame)))
        for (tensor, _), value in zip(reductions, partials, strict=True):
            access = Access(partial_of(tensor, self._columns(outer)), along, per_split=True)
            emitter.append("store", tensor.dtype, (value,), emitter.access(access, "w"))
        return self._finish(emitter, split=True)

    def _columns(self, outer: Sequence[int]) -> tuple[Extent, ...]:
        return tuple(self._frame[a] for a in outer)

    def _build_combination(self, partial_of: PartialOf) -> LoopCall:
        """The kernel that combines partial results, and goes on with what reads them. It runs over (split, columns):
        the first reduced axis of the frame stands for the split.
        """
        values = _Values(Emitter(self._frame, self._canonical))
        values.new_stage()
        emitter = values.emitter
        outer = [a for a in self._cluster.outer if self._frame[a] != 1]
        columns, over = self._columns(outer), self._reduced[0]
        for tensor, out in self._stages.reductions():
            buffer = partial_of(tensor, columns)
            strides = [self._columns_after(outer, a) if a in outer else 0 for a in range(len(self._frame))]
            strides[over] = product(columns)
            load = emitter.append("load", buffer.dtype, (), emitter.access(Access(buffer, tuple(strides)), "r"))
            values.reduced[tensor, out] = emitter.append("reduce", buffer.dtype, (load,), tensor.node.op.reduce)
        values.new_stage()
        self._emit_stores(values, range(1, self._stages.count()))
        splits = SplitCount(buffer)
        return self._finish(emitter, split=False, replaced={over: splits}, dropped=set(self._reduced) - {over})

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
        accesses = list(emitter.accesses)
        pinned = {i.attr for stage in emitter.stages for i in stage if i.op in ("index", "pick")}
        groups = _merge(order, roles, extents, accesses, pinned, self._canonical)
        place = {axis: n for n, group in enumerate(groups) for axis in group}
        args, operands = [], []
        for access, mode in zip(accesses, emitter.modes, strict=True):
            strides = tuple(access.strides[group[-1]] if group else 0 for group in groups)
            pattern = "".join("0" if s == 0 else "1" if s == 1 else "s" for s in strides)
            args.append(Arg(access.buffer.dtype, mode, pattern, access.per_split, access.combine))
            operands.append(Operand(access.buffer, strides, access.offset))
        stages = tuple(
            tuple(Instr(i.op, i.dtype, i.args, place[i.attr]) if i.op in ("index", "pick") else i for i in stage)
            for stage in emitter.stages
            if stage
        )
        kernel = LoopKernel(
            "".join(roles[g[-1]] if g else "p" for g in groups), tuple(args), stages, len(emitter.extents),
            len(emitter.guards), split,
        )  # fmt: skip
        axes = tuple(_group_extent(g, extents, self._canonical) for g in groups)
        scalars = tuple(self._canonical(e) for e in emitter.extents)
        nodes = tuple(self._cluster.nodes or [t.node for t in self._cluster.totals])  # sums of what others made
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


def is_zero(tensor: Tensor) -> bool:
    """Whether a tensor is the constant 0 (or -0), perhaps repeated."""
    while tensor.node.op.kind is Kind.VIEW:
        tensor = tensor.node.inputs[0]
    return tensor.node.op is CONSTANT and not np.any(tensor.node.attrs["value"])


def _no_partial(total: Tensor, columns: tuple[Extent, ...]) -> Buffer:
    raise AssertionError(total)


def _shifted(place: int | Walk | None, start: Extent) -> Walk:
    """A place of a stored value, which is plain, moved by ``start``."""
    assert not isinstance(place, Walk)
    return Walk(place, 1, start)


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
