"""The loop IR's expression builder: turns the ops' ``emit`` rules into instructions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.dims import Extent, product
from graphc.dtypes import DType, bool_, int64
from graphc.expr import Primitives
from graphc.node import Node
from passes.cluster import Map, Walk
from passes.loop_ir import Instr
from passes.program import Buffer


@dataclass(frozen=True, slots=True)
class Access:
    """How an argument walks the frame: its buffer, its stride along each frame axis, and its first element."""

    buffer: Buffer
    strides: tuple[Extent, ...]
    per_split: bool = False
    offset: Extent = 0
    combine: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """What a gather reads from: a buffer, and the shape of the contiguous tensor in it."""

    buffer: Buffer
    shape: tuple[Extent, ...]


class Emitter(Primitives):
    """The loop IR's expression builder: appends instructions to the current stage, each distinct one once."""

    def __init__(self, frame: Sequence[Extent], canonical: Callable[[Extent], Extent]) -> None:
        self.frame = frame
        self.canonical = canonical
        self.stages: list[list[Instr]] = []
        self.dtypes: list[DType] = []
        self.accesses: dict[Access, int] = {}
        self.modes: list[str] = []  # of the arguments: "r", "w" or "rw"
        self.extents: dict[Extent, int] = {}
        self.guards: dict[Node, int] = {}
        self.map: Map = ()
        self.node: Node | None = None
        self._known: dict[tuple[Any, ...], int] = {}

    def new_stage(self) -> None:
        self.stages.append([])
        self._known = {}

    def append(self, op: str, dtype: DType, args: tuple[int, ...] = (), attr: Any = None) -> int:
        key = (op, dtype, args, attr)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = len(self.dtypes)
            self.dtypes.append(dtype)
            self.stages[-1].append(Instr(*key))
        return found

    def instruction(self, number: int) -> Instr:
        """The instruction that makes a value."""
        for stage in self.stages:
            if number < len(stage):
                return stage[number]
            number -= len(stage)
        raise AssertionError(number)

    def varies(self, number: int, axis: int) -> bool:
        """Whether a value changes along an axis of the frame."""
        accesses = list(self.accesses)
        pending, seen = [number], {number}
        while pending:
            instr = self.instruction(pending.pop())
            if instr.op == "index" and instr.attr == axis:
                return True
            if instr.op == "load" and accesses[instr.attr].strides[axis] != 0:
                return True
            if instr.op not in ("reduce", "pick"):
                pending += [a for a in instr.args if a not in seen]
                seen.update(instr.args)
        return False

    def access(self, access: Access, mode: str) -> int:
        """Number of the argument for ``access``; one that is read and written shares its number."""
        number = self.accesses.setdefault(access, len(self.modes))
        if number == len(self.modes):
            self.modes.append(mode)
        elif mode not in self.modes[number]:
            self.modes[number] = "".join(sorted(self.modes[number] + mode))
        return number

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
        place = self.map[axis]
        if not isinstance(place, Walk):
            return self._frame_index(place)
        moved = self.binary("mul", self._frame_index(place.axis), self.number(place.step))
        return self.binary("add", moved, self.number(place.start))

    def _frame_index(self, axis: int | None) -> int:
        if axis is None or self.frame[axis] == 1:
            return self.const(0, int64)
        return self.append("index", int64, (), axis)

    def flat_index(self) -> int:
        assert self.node is not None
        return self._flat([self.index(axis) for axis in range(len(self.map))], self.node.results[0].shape)

    def _flat(self, indices: Sequence[int], shape: Sequence[Extent]) -> int:
        """Position in C order of the element at ``indices`` in an array of ``shape``."""
        terms = []
        for axis, index in enumerate(indices):
            step = product(shape[axis + 1 :])
            if shape[axis] != 1:
                terms.append(index if step == 1 else self.binary("mul", index, self.number(step)))
        found = terms[0] if terms else self.const(0, int64)
        for term in terms[1:]:
            found = self.binary("add", found, term)
        return found

    def load(self, source: Source, indices: Sequence[int], mask: int | None = None) -> int:
        number = self.access(Access(source.buffer, (0,) * len(self.frame)), "r")
        place = self._flat(indices, source.shape)
        return self.append("load", source.buffer.dtype, (place,) if mask is None else (place, mask), number)

    def number(self, extent: Extent) -> int:
        """An extent as an int64 value: an argument of the kernel, so that kernels serve every shape."""
        extent = self.canonical(extent)
        if extent in (0, 1):
            return self.const(int(extent), int64)
        return self.append("extent", int64, (), self.extents.setdefault(extent, len(self.extents)))

    def extent(self, key: str) -> int:
        assert self.node is not None
        extent = self.node.attrs[key]
        return self.append("extent", int64, (), self.extents.setdefault(extent, len(self.extents)))

    def guard(self, bad: int) -> None:
        assert self.node is not None
        self.append("guard", bool_, (bad,), self.guards.setdefault(self.node, len(self.guards)))
