"""The compiled program, before any device: buffers, and calls of kernels on them, in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from graphc.dims import Extent
from graphc.dtypes import DType
from graphc.node import Node, Tensor
from passes.loop_ir import LoopKernel


@dataclass(frozen=True, slots=True, eq=False)
class Buffer:
    """A contiguous piece of memory, compared by identity.

    kind: "feed", "parameter", "constant" and "extent" hold what their tensor says; "output" is allocated for the
    caller at each run; "temp" lives in the arena from its first to its last use; "partial" is a temp with one slice
    per split of the call that fills it.
    """

    id: int
    kind: str
    shape: tuple[Extent, ...]
    dtype: DType
    tensor: Tensor | None = None


class SplitCount:
    """The extent of the axis over splits: known when the call that fills ``partial`` is bound."""

    def __init__(self, partial: Buffer) -> None:
        self.partial = partial


def split_source(extent: Any) -> Buffer | None:
    """The buffer of partial results whose number of slices ``extent`` stands for, if it does."""
    return extent.partial if isinstance(extent, SplitCount) else None


@dataclass(frozen=True, slots=True)
class Operand:
    """A pointer argument of a call: a buffer, its stride along each axis of the kernel, and its first element."""

    buffer: Buffer
    strides: tuple[Extent, ...]
    offset: Extent = 0


@dataclass(frozen=True)
class LoopCall:
    """A call of a loop kernel: operands, the extents of its axes, and its run-time integers."""

    kernel: LoopKernel
    operands: tuple[Operand, ...]
    axes: tuple[Extent, ...]
    extents: tuple[Extent, ...]
    label: str
    nodes: tuple[Node, ...]
    guards: tuple[Node, ...] = ()

    @cached_property
    def reads(self) -> tuple[Buffer, ...]:
        return tuple(o.buffer for o, a in zip(self.operands, self.kernel.args, strict=True) if "r" in a.mode)

    @cached_property
    def writes(self) -> tuple[Buffer, ...]:
        return tuple(o.buffer for o, a in zip(self.operands, self.kernel.args, strict=True) if "w" in a.mode)


@dataclass(frozen=True)
class GemmCall:
    """``c = alpha * op(a) @ op(b) + beta * c`` for each matrix of a batch. ``epilogue`` runs on each block of ``c`` as
    soon as it is there.

    ``batch`` are the extents of the batch axes. The strides of ``a`` and ``b`` are those along the batch axes, then the
    distance between rows; where a matrix is transposed, between columns.
    """

    a: Operand
    b: Operand
    c: Buffer
    trans_a: bool
    trans_b: bool
    batch: tuple[Extent, ...]
    m: Extent
    n: Extent
    k: Extent
    alpha: float
    beta: float
    label: str
    nodes: tuple[Node, ...]
    epilogue: LoopCall | None = None

    @cached_property
    def reads(self) -> tuple[Buffer, ...]:
        found = [self.a.buffer, self.b.buffer]
        if self.beta:
            found.append(self.c)
        if self.epilogue is not None:
            found += [b for b in self.epilogue.reads if b is not self.c]
        return tuple(found)

    @cached_property
    def writes(self) -> tuple[Buffer, ...]:
        return tuple(dict.fromkeys([self.c, *(self.epilogue.writes if self.epilogue is not None else ())]))


@dataclass(frozen=True)
class RoutineCall:
    """A call of one of the runtime's own kernels, by name, on contiguous operands: the node's inputs, then results."""

    routine: str
    sizes: tuple[Extent, ...]
    reads: tuple[Buffer, ...]
    writes: tuple[Buffer, ...]
    label: str
    nodes: tuple[Node, ...]


@dataclass(frozen=True)
class CopyCall:
    """All bytes of one buffer to another of the same type."""

    source: Buffer
    target: Buffer
    label: str
    nodes: tuple[Node, ...] = ()

    @cached_property
    def reads(self) -> tuple[Buffer, ...]:
        return (self.source,)

    @cached_property
    def writes(self) -> tuple[Buffer, ...]:
        return (self.target,)


def loops_of(call: Call) -> tuple[LoopCall, ...]:
    """The loop kernels that a call runs: itself, or a product's epilogue."""
    return (call,) if isinstance(call, LoopCall) else epilogue_of(call)


def epilogue_of(call: Call) -> tuple[LoopCall, ...]:
    """The loop kernel that a matrix product calls on each block of its result, if it has one."""
    return (call.epilogue,) if isinstance(call, GemmCall) and call.epilogue is not None else ()


Call = LoopCall | GemmCall | RoutineCall | CopyCall


@dataclass(frozen=True)
class Output:
    """A fetched tensor: the buffer that holds it, and its own shape (a reshape of the buffer's)."""

    buffer: Buffer
    shape: tuple[Extent, ...]


@dataclass(frozen=True)
class Program:
    """Calls in order. Everything a device needs; nothing about one. ``again`` are nodes that compute once more what
    another one has computed, and nobody kept.
    """

    buffers: tuple[Buffer, ...]
    calls: tuple[Call, ...]
    outputs: tuple[Output, ...]
    constants: Mapping[int, np.ndarray[Any, Any]] = field(default_factory=dict)
    unfused: tuple[Unfused, ...] = ()
    again: frozenset[Node] = frozenset()

    @property
    def kernels(self) -> tuple[Call, ...]:
        """The calls, as the public face names them."""
        return self.calls


@dataclass(frozen=True)
class Unfused:
    """Why two calls, by their places in ``Program.calls``, stayed apart: one makes ``tensor``, its buffer's tensor, and
    the other reads it.
    """

    producer: int
    consumer: int
    tensor: Tensor
    why: str
