"""What all bindings of a program have in common, made once: where the words of its calls lie, and what they are. A
binding then fills in the numbers of its extents.

Every extent has a *place* in a list of numbers. A word of a call is the number at some place, unless it depends on how
the call is cut into blocks: that is left to the binding.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.dims import Extent, Symbol, evaluate
from graphc.dtypes import DType
from graphc.node import Node
from graphc.ops.leaf import extent_in
from passes.program import Buffer, Call, GemmCall, LoopCall, Operand, Program, RoutineCall, split_source
from runtime.cpu.fixed_kernels import COPY_WORDS, GEMM_WORDS
from runtime.cpu.layout import layout_of
from runtime.cpu.routines import ROUTINES
from runtime.cpu.runner_source import ARENA, SCALARS, STATUS

Array = np.ndarray[Any, Any]
NOWHERE = -1  # instead of the id of a buffer in the arena
GEMM_AT = {name: word for word, name in enumerate(GEMM_WORDS)}
AXIS_WORDS = 3  # for each batch axis of a product


class Outline:
    """The words, patches and scalars of a program. ``slots`` numbers the buffers whose addresses come from outside.

    ``starts``: the first word of each call, and of each product's epilogue, by identity. ``source``: for each word the
    place of its number. ``addresses``: for each patch the id of the buffer in the arena whose offset belongs to it, or
    ``NOWHERE``, then a place and a factor, whose product is added. ``parts`` and ``flushes``: words for a buffer's
    number of elements, and for the address of flush. ``splits``: the places of numbers of slices, by buffer id.
    """

    def __init__(self, program: Program, slots: Mapping[int, int]) -> None:
        self._slots = slots
        self._numbers: list[int] = []
        self._places: dict[Any, int] = {}
        self._symbolic: list[tuple[int, Extent]] = []
        self.splits = {b.id: self._new(1) for b in program.buffers if b.kind == "partial"}
        self._zero = self.place(0)
        self.starts: dict[int, int] = {}
        self.source: list[int] = []
        self.addresses: list[tuple[int, int, int]] = []
        self.parts: list[tuple[int, list[int]]] = []
        self.flushes: list[tuple[int, Buffer]] = []
        self._patches: list[tuple[int, int, int]] = []
        self._slot_of: dict[Any, int] = {}
        self._extents: list[tuple[int, Node, int]] = []
        for call in program.calls:
            self._call(call)
        self.outputs = [self._all(output.shape) for output in program.outputs]
        self.patches = np.array(self._patches, np.int64).reshape(-1, 3)
        self._scalars = np.zeros(max(1, len(self._slot_of)), np.int64)
        for (value, dtype), slot in self._slot_of.items():
            if not isinstance(value, Node):
                self._scalars[slot : slot + 1].view(dtype)[0] = value
        self._sizes: dict[int, int] = {}
        self._open_sizes: list[tuple[int, int, list[int]]] = []
        for buffer in program.buffers:
            self._size(buffer)

    # What a binding asks.

    def numbers(self, values: Mapping[Symbol, int]) -> list[int]:
        """The number at each place; 1 for numbers of slices, which binding finds."""
        found = self._numbers.copy()
        for place, extent in self._symbolic:
            found[place] = evaluate(extent, values)
        return found

    def sizes(self, numbers: Sequence[int]) -> dict[int, int]:
        """Bytes of every buffer, by its id."""
        found = self._sizes.copy()
        for number, item, places in self._open_sizes:
            found[number] = math.prod([numbers[place] for place in places]) * item
        return found

    def scalars(self, numbers: Sequence[int]) -> Array:
        """Factors and extents that kernels read from memory, eight bytes each."""
        found = self._scalars.copy()
        for slot, node, place in self._extents:
            found[slot : slot + 1].view(node.results[0].dtype)[0] = extent_in(node, numbers[place])
        return found

    def place(self, extent: Any) -> int:
        """The place of an extent's number."""
        found = self._places.get(extent)
        if found is None:
            partial = split_source(extent)
            if partial is not None:
                found = self.splits[partial.id]
            elif isinstance(extent, int):
                found = self._new(extent)
            else:
                found = self._new(0)
                self._symbolic.append((found, extent))
            self._places[extent] = found
        return found

    # How it is made.

    def _new(self, number: int) -> int:
        self._numbers.append(number)
        return len(self._numbers) - 1

    def _all(self, extents: Iterable[Any]) -> list[int]:
        return [self.place(extent) for extent in extents]

    def _size(self, buffer: Buffer) -> None:
        places, item = self._all(buffer.shape), buffer.dtype.itemsize
        if buffer.kind == "partial":
            places.append(self.splits[buffer.id])
        elif all(isinstance(extent, int) for extent in buffer.shape):
            self._sizes[buffer.id] = math.prod([self._numbers[place] for place in places]) * item
            return
        self._open_sizes.append((buffer.id, item, places))

    def _call(self, call: Call) -> None:
        start = self.starts[id(call)] = len(self.source)
        if isinstance(call, LoopCall):
            self._loop(call)
        elif isinstance(call, GemmCall):
            self._gemm(call, start)
        elif isinstance(call, RoutineCall):
            self._routine(call)
        else:
            self._zeros(len(COPY_WORDS))
            self._address(start + COPY_WORDS.index("source"), call.source)
            self._address(start + COPY_WORDS.index("target"), call.target)

    def _zeros(self, count: int) -> None:
        self.source += [self._zero] * count

    def _loop(self, call: LoopCall) -> None:
        kernel, layout, start = call.kernel, layout_of(call.kernel), len(self.source)
        source = [self._zero] * layout.size
        source[: len(call.axes)] = self._all(call.axes)
        for (argument, axis), word in layout.stride.items():
            source[word] = self.place(call.operands[argument].strides[axis])
        source[layout.extents : layout.extents + kernel.extents] = self._all(call.extents)
        self.source += source
        for argument, word in layout.split_stride.items():
            self.parts.append((start + word, self._all(call.operands[argument].buffer.shape)))
        for argument, word in layout.flush.items():
            self.flushes.append((start + word, call.operands[argument].buffer))
        for word, operand in zip(layout.address, call.operands, strict=True):
            self._operand(start + word, operand)
        for guard in range(kernel.guards):
            self._patch(start + layout.guards + guard, STATUS)

    def _gemm(self, call: GemmCall, start: int) -> None:
        self._zeros(len(GEMM_WORDS) + AXIS_WORDS * max(1, len(call.batch)))  # k may be walked like an axis
        self._all([call.m, call.n, call.k, *call.batch, *call.a.strides, *call.b.strides])
        for name, factor in (("alpha", call.alpha), ("beta", call.beta)):
            self._patch(start + GEMM_AT[name], SCALARS, self.place(self._slot(factor, call.c.dtype)), 8)
        self._operand(start + GEMM_AT["a"], call.a)
        self._operand(start + GEMM_AT["b"], call.b)
        self._address(start + GEMM_AT["c"], call.c)
        if call.epilogue is not None:
            self.starts[id(call.epilogue)] = len(self.source)
            self._loop(call.epilogue)

    def _routine(self, call: RoutineCall) -> None:
        self.source += self._all(call.sizes)
        self._zeros(len(ROUTINES[call.routine].grid((0,) * len(call.sizes)).words))
        for buffer in (*call.reads, *call.writes):
            self._address(len(self.source), buffer)
            self._zeros(1)

    def _operand(self, word: int, operand: Operand) -> None:
        self._address(word, operand.buffer, operand.offset)

    def _address(self, word: int, buffer: Buffer, element: Extent = 0) -> None:
        """Have the runner put the address of the buffer's ``element`` at ``word``."""
        place, item = self.place(element), buffer.dtype.itemsize
        if buffer.kind in ("temp", "partial"):
            self._patch(word, ARENA, place, item, buffer.id)
        elif buffer.kind == "extent":
            assert buffer.tensor is not None
            node = buffer.tensor.node
            new = len(self._slot_of)
            slot = self._slot(node, buffer.dtype)
            if slot == new:
                self._extents.append((slot, node, self.place(node.attrs["extent"])))
            self._patch(word, SCALARS, self.place(slot), 8)
        else:
            self._patch(word, self._slots[buffer.id], place, item)

    def _patch(self, word: int, base: int, place: int | None = None, factor: int = 0, buffer: int = NOWHERE) -> None:
        self._patches.append((word, base, 0))
        self.addresses.append((buffer, self._zero if place is None else place, factor))

    def _slot(self, value: float | Node, dtype: DType) -> int:
        """Where the scalar, or the extent that a node stands for, lies in eight bytes of its own."""
        return self._slot_of.setdefault((value, dtype), len(self._slot_of))
