"""``step.explain()``: what became of the user's lines, kernel by kernel, and why neighbours were not fused."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from graphc.dims import Extent, Symbol, dim, product
from graphc.node import Node, Tensor
from graphc.where import Location
from passes.program import Buffer, Call, CopyCall, GemmCall, LoopCall, Program, epilogue_of, split_source
from passes.reporting import amount, known, lines_of, named, places, shape_text, values_text

WIDTH = 116
COPIED = "a copy of a whole buffer is a kernel of its own"
_FLOPS = {"unary": 1, "binary": 1, "fma": 2, "reduce": 1}
_ROLES = {"p": "parallel", "r": "reduced"}


@dataclass(frozen=True)
class Traffic:
    """A buffer that a kernel reads or writes, counted whole and once."""

    name: str
    kind: str
    type: str
    bytes: Extent


@dataclass(frozen=True)
class Axis:
    """An axis of a kernel's grid: "parallel" or "reduced"."""

    extent: Extent
    role: str


@dataclass(frozen=True)
class Neighbour:
    """A later kernel that reads what this one makes, and why the two are apart ("" where nobody said)."""

    kernel: int
    through: str
    why: str


@dataclass(frozen=True)
class KernelNote:
    """One kernel: ``lines`` of the user's that it computes, the ``ops`` in it, those of them that compute ``again``
    what was not kept, "forward", "backward" or "update", its grid, its memory traffic, and who reads what it makes.

    ``flops`` are floating-point operations, where every arithmetic operation is one, however dear, a fused
    multiply-add two, and a matrix product 2 m n k; None where the kernel is a routine that does not say. Numbers are
    formulas in the symbolic extents where those are not known.
    """

    number: int
    label: str
    role: str
    lines: tuple[Location, ...]
    ops: tuple[str, ...]
    again: tuple[str, ...]
    axes: tuple[Axis, ...]
    reads: tuple[Traffic, ...]
    writes: tuple[Traffic, ...]
    flops: Extent | None
    neighbours: tuple[Neighbour, ...]

    @property
    def bytes_read(self) -> Extent:
        return _total(self.reads)

    @property
    def bytes_written(self) -> Extent:
        return _total(self.writes)

    @property
    def intensity(self) -> float | None:
        """Floating-point operations per byte, where both are known numbers."""
        moved = self.bytes_read + self.bytes_written
        if not isinstance(self.flops, int) or not isinstance(moved, int):
            return None
        return self.flops / moved if moved else math.inf

    def __str__(self) -> str:
        work = "" if self.flops is None else f"  {amount(self.flops, 'flop')}"
        ratio = "" if self.intensity is None else f", {self.intensity:.2g} flop/B"
        lines = [
            f"{places(self.lines)}: {named(self.ops)}",
            *([f"computed again rather than kept: {named(self.again)}"] if self.again else []),
            f"reads {amount(self.bytes_read, 'B')}: {_listed(self.reads)}",
            f"writes {amount(self.bytes_written, 'B')}: {_listed(self.writes)}",
            *_readers(self.neighbours),
        ]
        first = _wrapped(f"{self.number:>3}  {self.label}  {self.role}{self._grid()}{work}{ratio}", "")
        return "\n".join([*first, *(part for line in lines for part in _wrapped(line, "     "))])

    def _grid(self) -> str:
        parts = [
            f"{' x '.join(str(a.extent) for a in self.axes if a.role == role)} {role}"
            for role in _ROLES.values()
            if any(a.role == role for a in self.axes)
        ]
        return f"  {', '.join(parts)}" if parts else ""


@dataclass(frozen=True)
class Explanation:
    """What a step was compiled to. ``str()`` of it is for reading."""

    extents: Mapping[Symbol, int]
    kernels: tuple[KernelNote, ...]
    note: str = ""

    def __str__(self) -> str:
        if self.note:
            return self.note
        at = f" at {values_text(self.extents)}" if self.extents else ""
        total = [f"{len(self.kernels)} kernel{'s' if len(self.kernels) != 1 else ''}{at}"]
        return "\n".join([*total, *map(str, self.kernels)])


def explain(program: Program, values: Mapping[Symbol, int], sizes: Mapping[int, int]) -> Explanation:
    """What ``program`` does. ``values``, and ``sizes`` (bytes by buffer id), are empty where extents are not known."""
    return Explanation(dict(values), tuple(_Notes(program, values, sizes).all()))


class _Notes:
    def __init__(self, program: Program, values: Mapping[Symbol, int], sizes: Mapping[int, int]) -> None:
        self._program = program
        self._values = values
        self._sizes = sizes
        self._why: dict[tuple[int, int], dict[Tensor | None, str]] = {}
        for u in program.unfused:
            self._why.setdefault((u.producer, u.consumer), {})[u.tensor] = u.why

    def all(self) -> Iterator[KernelNote]:
        for number, call in enumerate(self._program.calls):
            nodes = _own_nodes(call)
            axes, flops = _MODELS.get(type(call), _opaque)(self, call)
            yield KernelNote(
                number, call.label, _role(nodes), lines_of(nodes), tuple(n.op.name for n in nodes if n.outputs),
                tuple(n.op.name for n in nodes if n in self._program.again), tuple(axes),
                self._traffic(call.reads, nodes), self._traffic(call.writes, nodes), flops,
                tuple(self._neighbours(number, call)),
            )  # fmt: skip

    def _traffic(self, buffers: Sequence[Buffer], nodes: Sequence[Node]) -> tuple[Traffic, ...]:
        return tuple(
            Traffic(_name(b), b.kind, f"{b.dtype}{shape_text(known(e, self._values) for e in b.shape)}", self._bytes(b))
            for b in dict.fromkeys(buffers)
        )

    def _bytes(self, buffer: Buffer) -> Extent:
        found = self._sizes.get(buffer.id)
        if found is not None:
            return found
        splits = dim("splits") if buffer.kind == "partial" else 1
        return product(buffer.shape) * buffer.dtype.itemsize * splits

    def extent(self, extent: Any) -> Extent:
        """An axis's extent; the number of splits of a reduction is known with the sizes."""
        partial = split_source(extent)
        if partial is None:
            return known(extent, self._values)
        found = self._sizes.get(partial.id)
        one = known(product(partial.shape), self._values)
        if found is None or not isinstance(one, int):
            return dim("splits")
        return found // max(1, one * partial.dtype.itemsize)

    def _neighbours(self, number: int, call: Call) -> Iterator[Neighbour]:
        written = {b for b in call.writes if b.kind in ("temp", "partial", "output")}
        for later in range(number + 1, len(self._program.calls)):
            for buffer in written.intersection(self._program.calls[later].reads):
                yield Neighbour(later, _name(buffer), self._reason(number, later, buffer))

    def _reason(self, producer: int, consumer: int, buffer: Buffer) -> str:
        """Why the two are apart: for the tensor in the buffer, or for one that shares its memory."""
        if any(isinstance(self._program.calls[i], CopyCall) for i in (producer, consumer)):
            return COPIED
        reasons = self._why.get((producer, consumer), {})
        return reasons.get(buffer.tensor) or next(iter(reasons.values()), "")


# What each type of call computes: its axes, and its floating-point operations.


def _loop(notes: _Notes, call: LoopCall) -> tuple[list[Axis], Extent]:
    extents = [notes.extent(e) for e in call.axes]
    roles = call.kernel.roles
    inner = roles.index("r") if roles.endswith("r") else len(roles) - 1
    points = {0: 1, 1: product(extents[:inner]), 2: product(extents)}  # how often a value of each level is computed
    levels = call.kernel.levels
    total: Extent = 0
    for stage in call.kernel.numbered:
        for number, instr in stage:
            if instr.dtype.kind == "f":
                combines = instr.op == "store" and bool(call.kernel.args[instr.attr].combine)  # added to a total
                level = levels[instr.args[0]] if combines or instr.op == "reduce" else levels[number]
                if level == 2 and number not in call.kernel.looped and not (combines or instr.op == "reduce"):
                    level = 1  # picked: computed at one place of the row
                total = total + (1 if combines else _FLOPS.get(instr.op, 0)) * points[level]
    return [Axis(e, _ROLES[r]) for e, r, written in zip(extents, roles, call.axes, strict=True) if written != 1], total


def _gemm(notes: _Notes, call: GemmCall) -> tuple[list[Axis], Extent]:
    *rows, k = (notes.extent(e) for e in (*call.batch, call.m, call.n, call.k))
    flops = 2 * product((*rows, k))
    for epilogue in epilogue_of(call):
        flops = flops + _loop(notes, epilogue)[1]
    return [*(Axis(e, "parallel") for e in rows), Axis(k, "reduced")], flops


def _copy(notes: _Notes, call: CopyCall) -> tuple[list[Axis], Extent]:
    return [Axis(notes.extent(product(call.target.shape)), "parallel")], 0


def _opaque(notes: _Notes, call: Any) -> tuple[list[Axis], None]:
    return [], None


_MODELS: dict[type, Callable[[_Notes, Any], tuple[list[Axis], Extent | None]]] = {
    LoopCall: _loop, GemmCall: _gemm, CopyCall: _copy,
}  # fmt: skip


def _own_nodes(call: Call) -> tuple[Node, ...]:
    """The nodes that this call computes; of a split reduction, one call those before it and the other those after."""
    combines = any(b.kind == "partial" for b in call.reads)
    if not combines and not (isinstance(call, LoopCall) and call.kernel.split):
        return call.nodes
    partial = {b.tensor.node for b in (*call.reads, *call.writes) if b.kind == "partial" and b.tensor is not None}
    stored = [b.tensor.node for b in call.writes if b.tensor is not None]
    if not combines:
        own = _needed(call, [*partial, *stored], set())
    elif all(node in set(call.nodes) for node in stored):
        own = _needed(call, stored, partial)
    else:  # a parameter is written, whose new value nobody names
        own = set(call.nodes) - _needed(call, [t.node for node in partial for t in node.inputs], set())
    return tuple(n for n in call.nodes if n in own)


def _needed(call: Call, roots: Sequence[Node], ends: Set[Node]) -> set[Node]:
    """Those of the call's nodes that ``roots`` are made of, themselves included, as far as ``ends``."""
    inside, found, pending = set(call.nodes), set[Node](), list(roots)
    while pending:
        node = pending.pop()
        if node in inside and node not in found:
            found.add(node)
            pending += [] if node in ends else [t.node for t in node.inputs]
    return found


def _role(nodes: Sequence[Node]) -> str:
    roles = {n.role for n in nodes}
    known_roles = [r for r in ("forward", "backward", "update") if r in roles]
    return " and ".join([*known_roles, *sorted(roles - set(known_roles))]) or "forward"


def _name(buffer: Buffer) -> str:
    name = "copy" if buffer.tensor is None else buffer.tensor.node.name or buffer.tensor.node.op.name
    return f"parts of {name}" if buffer.kind == "partial" else name


def _total(items: Sequence[Traffic]) -> Extent:
    total: Extent = 0
    for item in items:
        total = total + item.bytes
    return total


def _listed(items: Sequence[Traffic]) -> str:
    """Names and types; single elements are only counted."""
    arrays = [f"{t.name} {t.type}" for t in items if not t.type.endswith("[]")]
    scalars = len(items) - len(arrays)
    if scalars > 1 or (scalars and arrays):
        arrays.append(f"{scalars} scalar{'s' if scalars > 1 else ''}")
    return ", ".join(arrays or [f"{t.name} {t.type}" for t in items]) or "nothing"


def _readers(neighbours: Sequence[Neighbour]) -> list[str]:
    """One line for all later kernels that read the same for the same reason."""
    through: dict[tuple[int, str], list[str]] = {}
    for n in neighbours:
        through.setdefault((n.kernel, n.why), []).append(n.through)
    groups: dict[tuple[str, str], list[int]] = {}
    for (kernel, why), names in through.items():
        groups.setdefault((named(sorted(names)), why), []).append(kernel)
    return [
        f"-> {', '.join(map(str, kernels))} through {names}{why and ': '}{why}"
        for (names, why), kernels in groups.items()
    ]


def _wrapped(line: str, indent: str) -> list[str]:
    """``line`` in lines of at most WIDTH characters, the later ones indented further; types are not broken."""
    whole = re.sub(r"\[[^]]*\]", lambda shape: shape[0].replace(" ", "\u00a0"), line)
    wrapped = textwrap.wrap(whole, WIDTH, initial_indent=indent, subsequent_indent=f"{indent or '     '}    ")
    return [part.replace("\u00a0", " ") for part in wrapped]
