"""The loop IR: what one fused kernel does, on any device.

A kernel runs over a grid of *axes*, in loop order. Each axis is parallel (``p``) or reduced (``r``); the roles form
one of

    p...p        elementwise
    p...p r...r  reduction along the inner axes; its stages share the row
    p...p r...r p  reduction along outer axes, over contiguous columns

In the second form a kernel may also sum up over its rows: one total (or one row of totals) per block of rows.

The body is a list of *stages*, each a list of instructions in single-assignment form; a value is named by its
position in the kernel. A stage runs over the whole grid, or, where nothing in it varies along an ``r`` axis, once per
point of the ``p`` axes. The result of a ``reduce`` is read by later stages only. Pointer arguments know, per axis,
whether their stride is 0, 1 or a run-time number; everything else about shapes is a run-time number too, so that
kernels are few.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

from graphc.dtypes import DType

_name = functools.cache(str)  # of a dtype, which NumPy puts together anew each time


@dataclass(frozen=True, slots=True)
class Instr:
    """One instruction. ``args`` are values; ``attr`` depends on ``op``:

    load, store: number of the pointer argument; const: the value; unary, binary, compare: the primitive's name;
    index: the axis; extent: number of the run-time integer; reduce: the combining primitive; guard: number of the
    guard; pick: the reduced axis, along which it is the first value at the place that the second says, 0 outside.
    """

    op: str
    dtype: DType
    args: tuple[int, ...] = ()
    attr: Any = None

    def __str__(self) -> str:
        attr = "" if self.attr is None else f" {self.attr}"
        args = "".join(f" v{a}" for a in self.args)
        return f"{self.op}{attr}{args} : {_name(self.dtype)}"


@dataclass(frozen=True, slots=True)
class Arg:
    """A pointer argument: element type, "r", "w" or "rw", and per axis the stride's class "0", "1" or "s".

    ``per_split`` marks the partial results of a split reduction, which have one slice per split. What is stored to an
    argument with ``combine`` is combined, by that primitive, with what the block stored there before.
    """

    dtype: DType
    mode: str
    strides: str
    per_split: bool = False
    combine: str = ""


Stage: TypeAlias = tuple[tuple[int, Instr], ...]


@dataclass(frozen=True)
class LoopKernel:
    """One kernel. ``split`` cuts the reduced range into slices whose partial results another kernel combines."""

    roles: str
    args: tuple[Arg, ...]
    stages: tuple[tuple[Instr, ...], ...]
    extents: int = 0
    guards: int = 0
    split: bool = False

    def __hash__(self) -> int:
        return hash(self.text)  # which remembers its hash

    @cached_property
    def numbered(self) -> tuple[Stage, ...]:
        """The stages with each instruction's value number."""
        numbers = iter(range(sum(map(len, self.stages))))
        return tuple(tuple((next(numbers), instr) for instr in stage) for stage in self.stages)

    def instructions(self) -> Iterator[Instr]:
        """All instructions in order."""
        for stage in self.stages:
            yield from stage

    @cached_property
    def text(self) -> str:
        """The kernel in readable form; two kernels are the same exactly when their texts are."""
        lines = [f"kernel {self.roles}{' split' if self.split else ''} extents={self.extents} guards={self.guards}"]
        for i, a in enumerate(self.args):
            per_split = f" per split {a.combine}".rstrip() if a.per_split else ""
            lines.append(f"  arg {i}: {_name(a.dtype)} {a.mode} [{a.strides}]{per_split}")
        for k, stage in enumerate(self.numbered):
            lines.append(f"  stage {k}:")
            lines += [f"    {'' if i.op in ('store', 'guard') else f'v{n} = '}{i}" for n, i in stage]
        return "\n".join(lines)

    @cached_property
    def digest(self) -> str:
        """Hash of the text, which names the kernel."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]

    @cached_property
    def label(self) -> str:
        """A readable name, from what the kernel computes and over which axes."""
        computing = (
            i for i in self.instructions() if i.op in ("unary", "binary", "compare", "reduce", "cast", "select")
        )
        words = dict.fromkeys(f"reduce_{i.attr}" if i.op == "reduce" else str(i.attr or i.op) for i in computing)
        return "_".join([self.roles, *list(words)[:4]])

    @cached_property
    def levels(self) -> dict[int, int]:
        """For each value, how deep in the loops it varies: 0 nowhere, 1 along the outer axes, 2 along the innermost
        loop.

        The innermost loop is the last axis, or all ``r`` axes when the last axis is one.
        """
        depth = len(self.roles)
        first_inner = self.roles.index("r") if self.roles.endswith("r") else depth - 1
        found: dict[int, int] = {}
        for stage in self.numbered:
            for number, instr in stage:
                found[number] = self._level(instr, first_inner, found)
        return found

    @cached_property
    def looped(self) -> frozenset[int]:
        """The values that the innermost loop computes at every point: what is picked alone is computed at one."""
        needed: set[int] = set()
        for number, instr in reversed([pair for stage in self.numbered for pair in stage]):
            if instr.op in ("store", "guard", "reduce") or number in needed:
                needed.add(number)
                needed.update(instr.args[1:] if instr.op == "pick" else instr.args)
            elif instr.op == "pick":
                needed.add(instr.args[1])
        return frozenset(n for n in needed if self.levels[n] == 2)

    def _level(self, instr: Instr, first_inner: int, found: dict[int, int]) -> int:
        if instr.op == "index":
            return 2 if instr.attr >= first_inner else 1
        if instr.op in ("reduce", "pick"):
            return 2 if self.roles.endswith("p") else (1 if first_inner else 0)
        own = 0
        if instr.op in ("load", "store"):
            strides = self.args[instr.attr].strides
            moving = [axis for axis, s in enumerate(strides) if s != "0"]
            own = 0 if not moving else (2 if moving[-1] >= first_inner else 1)
            if self.args[instr.attr].per_split:
                own = max(own, 1)  # it belongs to a block, or to a row of one
        return max([own, *(found[a] for a in instr.args)])
