"""The loop IR's expression builder: turns the ops' ``emit`` rules into instructions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.dims import Extent
from graphc.dtypes import DType, bool_, int64
from graphc.expr import Primitives
from graphc.node import Node
from passes.cluster import Map
from passes.loop_ir import Instr
from passes.program import Buffer


@dataclass(frozen=True, slots=True)
class Access:
    """How an argument walks the frame: its buffer and its stride along each frame axis."""

    buffer: Buffer
    strides: tuple[Extent, ...]
    per_split: bool = False


class Emitter(Primitives):
    """The loop IR's expression builder: appends instructions to the current stage, each distinct one once."""

    def __init__(self, frame: Sequence[Extent]) -> None:
        self.frame = frame
        self.stages: list[list[Instr]] = []
        self.dtypes: list[DType] = []
        self.accesses: dict[Access, str] = {}
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

    def access(self, access: Access, mode: str) -> int:
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
