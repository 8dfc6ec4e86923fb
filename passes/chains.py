"""Chains: consecutive small calls that a thread takes its own rows through, without waiting for the others in between.

The layers of a network work on rows of a batch, and what a layer does to some rows needs only those rows of the layer
before. Where calls are small, threads would wait for each other about as long as they compute; in a chain every thread
takes its share of the rows through all of the calls. They are all cut into the same blocks of rows, which depend on
extents alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from graphc.dims import Extent, product
from passes.program import Buffer, Call, GemmCall, LoopCall, Operand, loops_of, split_source
from passes.waves import Steps, may_fail

BLOCK_ROWS = 8  # of a block, at least: those of a tile of a product
MOST_BLOCKS = 16
STALE_BYTE = 0.5  # simple operations in the time of fetching a byte that another thread may have changed
MEMORY = 2**20  # bytes that a chain writes, at most: its temporaries live as long as all of it


class Chain(tuple[int, ...]):
    """A step whose calls run one after the other, each thread with its share of blocks of ``block`` rows out of so many
    ``rows``.
    """

    rows: int
    block: int

    def __new__(cls, calls: Iterable[int], rows: int) -> Chain:
        made = super().__new__(cls, calls)
        made.rows, made.block = rows, math.ceil(rows / MOST_BLOCKS / BLOCK_ROWS) * BLOCK_ROWS
        return made

    @property
    def blocks(self) -> int:
        """The number of blocks."""
        return math.ceil(self.rows / self.block)


@dataclass(frozen=True)
class Rows:
    """A call that can be cut along ``extent`` rows; if it is ``flat``, along any divisor of them. A block touches the
    same rows of all buffers, but for those that are read ``whole``.
    """

    extent: Extent
    flat: bool
    whole: frozenset[Buffer]


def rows_of(call: Call) -> Rows | None:
    """How a call can be cut into blocks of rows without writing to those of other blocks; None if it cannot."""
    touched: list[tuple[Buffer, bool]] = []  # and whether a block touches its own rows alone
    if isinstance(call, GemmCall) and not call.batch:
        extent, flat = call.m, False
        by_rows = not call.trans_a and _lies(call.a, (call.m, call.k), (call.k,))
        touched += [(call.a.buffer, by_rows), (call.b.buffer, False), (call.c, True)]
    elif isinstance(call, LoopCall) and _walks_rows(call):
        extent, flat = call.axes[0], call.kernel.roles == "p"
    else:
        return None
    for loop in loops_of(call):
        for operand, arg in zip(loop.operands, loop.kernel.args, strict=True):
            touched.append((operand.buffer, bool(arg.combine) if arg.per_split else _is_walked(operand, loop.axes)))
    whole = frozenset(buffer for buffer, own in touched if not own)
    if not whole.isdisjoint(call.writes):
        return None
    return Rows(extent, flat, whole)


def _walks_rows(call: LoopCall) -> bool:
    of_parts = any(split_source(extent) is not None for extent in call.axes)
    return call.kernel.roles in ("p", "pp", "pr") and not call.kernel.split and not of_parts


def _is_walked(operand: Operand, axes: Sequence[Extent]) -> bool:
    """Whether a kernel walks the operand's buffer from its start to its end, row by row."""
    if len(axes) == 1:
        return _lies(operand, axes, (1,))
    return _lies(operand, axes, (axes[1], 1)) or _lies(operand, axes[:1], (1, 0))


def _lies(operand: Operand, extents: Sequence[Extent], strides: tuple[Extent, ...]) -> bool:
    fills = product(operand.buffer.shape) == product(extents)
    return fills and operand.offset == 0 and operand.strides == strides


class Chaining:
    """Finds chains in a program of these calls. Those of less than ``small`` work can be in one; from ``alone`` on they
    have several threads in any case, and the others must have ``enough`` work together.
    """

    def __init__(self, calls: Sequence[Call], small: float, alone: float, enough: float) -> None:
        self.calls = calls
        self.small = small
        self.alone = alone
        self.enough = enough
        self.rows = [rows_of(call) for call in calls]
        written = {buffer for call in calls for buffer in call.writes}
        self.stale = [frozenset() if rows is None else rows.whole & written for rows in self.rows]

    def chained(self, steps: Steps, extents: Sequence[int], work: Sequence[float], sizes: Mapping[int, int]) -> Steps:
        """The steps, in which calls that follow one another are chains where that pays. ``extents`` are the rows of the
        calls that have any, ``sizes`` bytes by buffer id.
        """
        found: list[tuple[int, ...]] = []
        links = _Links(self, extents, work, sizes)
        for step in steps:
            taken = len(step) == 1 and links.take(step[0])
            if not taken:
                found += links.finish()
                taken = len(step) == 1 and links.take(step[0])
                if not taken:
                    found.append(step)
            if taken and may_fail(self.calls[step[0]]):  # the last, as failures are looked for after a whole chain
                found += links.finish()
        return (*found, *links.finish())


class _Links:
    """Calls that may become a chain."""

    def __init__(
        self, chaining: Chaining, extents: Sequence[int], work: Sequence[float], sizes: Mapping[int, int]
    ) -> None:
        self._of = chaining
        self._extents = extents
        self._work = work
        self._sizes = sizes
        self._clear()

    def _clear(self) -> None:
        self._numbers: list[int] = []
        self._extent = 0  # rows, once a call that is not flat has said how many
        self._flat: list[int] = []
        self._written: set[Buffer] = set()
        self._whole: set[Buffer] = set()
        self._memory = 0
        self._gain = 0.0

    def take(self, number: int) -> bool:
        """Add a call, if it can be in a chain with the others."""
        rows, extent, work = self._of.rows[number], self._extents[number], self._work[number]
        if rows is None or work >= self._of.small or extent <= BLOCK_ROWS:
            return False
        writes = set(self._of.calls[number].writes)
        common = self._extent if rows.flat else extent
        flat = [*self._flat, extent] if rows.flat else self._flat
        memory = self._memory + sum(self._sizes[buffer.id] for buffer in writes - self._written)
        if (self._extent and common != self._extent) or (common and any(along % common for along in flat)):
            return False
        if not rows.whole.isdisjoint(self._written) or not writes.isdisjoint(self._whole) or memory > MEMORY:
            return False
        self._extent, self._flat, self._memory = common, flat, memory
        self._written |= writes
        self._whole |= rows.whole
        self._gain += self._gained(number, work)
        self._numbers.append(number)
        return True

    def _gained(self, number: int, work: float) -> float:
        """What a call brings to a chain: that threads are awake in any case; or its work, less what it takes to fetch
        what other threads may have written since: parameters that are updated, and earlier results read whole.
        """
        if work >= self._of.alone:
            return self._of.enough
        return work - STALE_BYTE * sum(self._sizes[buffer.id] for buffer in self._of.stale[number])

    def finish(self) -> Steps:
        """A chain of the calls, if it pays; else one by one. Then there are none."""
        numbers, extent, gain = self._numbers, self._extent, self._gain
        self._clear()
        if len(numbers) > 1 and extent and gain >= self._of.enough:
            return (Chain(numbers, extent),)
        return tuple((number,) for number in numbers)
