"""Epilogues: what a matrix product is followed by, done on each block of its result while that is in the cache.

A loop kernel may follow a product block by block when it walks the result as the product makes it: all of its axes in
order, or rows of it as a whole (a softmax). Bias, activation, residual, a row-wise normalisation and an optimiser's
update are of this kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from graphc.dims import Extent, product
from passes.loop_ir import Instr, LoopKernel
from passes.program import Buffer, Call, GemmCall, LoopCall, Operand

Canonical = Callable[[Extent], Extent]


SEARCHED = 256  # calls visited before a search is given up


def join_epilogues(calls: Sequence[Call], after: Sequence[set[int]], canonical: Canonical) -> list[Call]:
    """``calls`` in which products have taken what may follow them block by block. ``after`` has, for each call, the
    calls that must come after it.
    """
    found: list[Call | None] = list(calls)
    later = [set(targets) for targets in after]
    earlier: list[set[int]] = [set() for _ in calls]
    for i, targets in enumerate(later):
        for target in targets:
            earlier[target].add(i)
    readers = _readers(calls)
    for i, gemm in enumerate(calls):
        if not isinstance(gemm, GemmCall):
            continue
        for place in readers.get(gemm.c, ()):
            loop = found[place]
            if isinstance(loop, LoopCall) and not obstacle(gemm, loop, canonical) and not _leads_to(i, place, later):
                found[i], found[place] = joined(gemm, loop, private=readers[gemm.c] == [place]), None
                _contract(i, place, later, earlier)
                break
    return [call for call in found if call is not None]


def _readers(calls: Sequence[Call]) -> dict[Buffer, list[int]]:
    readers: dict[Buffer, list[int]] = {}
    for i, call in enumerate(calls):
        for buffer in dict.fromkeys(call.reads):
            readers.setdefault(buffer, []).append(i)
    return readers


def _leads_to(first: int, last: int, later: Sequence[set[int]]) -> bool:
    """Whether another call stands between the two, or it would take too long to tell."""
    pending = list(later[first] - {last})
    seen = set(pending)
    while pending:
        reached = later[pending.pop()]
        if last in reached or len(seen) > SEARCHED:
            return True
        pending += reached - seen
        seen |= reached
    return False


def _contract(kept: int, gone: int, later: list[set[int]], earlier: list[set[int]]) -> None:
    """Put what had to come before and after ``gone`` around ``kept``."""
    for i in earlier[gone] - {kept}:
        later[i].discard(gone)
        later[i].add(kept)
        earlier[kept].add(i)
    for i in later[gone]:
        earlier[i].discard(gone)
        earlier[i].add(kept)
        later[kept].add(i)
    later[kept].discard(gone)
    later[gone], earlier[gone] = set(), set()


def obstacle(gemm: GemmCall, loop: LoopCall, canonical: Canonical) -> str | None:
    """Why ``loop`` cannot follow the product block by block; None if it walks the product's result as it is made, and
    nothing but this block of it.
    """
    kernel = loop.kernel
    if gemm.beta:
        return "the product is added to a parameter in place"
    if not {gemm.a.buffer, gemm.b.buffer}.isdisjoint(loop.writes):
        return "it overwrites what other blocks of the product still read"
    if kernel.split or any(a.per_split and not a.combine for a in kernel.args):
        return "it reduces over rows, across the blocks of the product"
    rows = canonical(gemm.m * product(gemm.batch))
    axes: tuple[Extent, ...]
    strides: tuple[Extent, ...]
    if kernel.roles == "p":
        axes, strides = (canonical(rows * gemm.n),), (1,)
    elif kernel.roles in ("pp", "pr"):
        axes, strides = (rows, canonical(gemm.n)), (gemm.n, 1)
    else:
        return "it does not walk rows of the product"
    mine = [o for o in loop.operands if o.buffer is gemm.c]
    if loop.axes != axes or any(o.strides != strides or o.offset != 0 for o in mine):
        return "it does not walk the product row by row"
    return None


def joined(gemm: GemmCall, loop: LoopCall, *, private: bool) -> GemmCall:
    """The product with ``loop`` as its epilogue. Where nothing else reads the product itself (it is ``private``), and
    the epilogue writes a tensor of the same form, they share its memory.
    """
    loop = _by_rows(gemm, loop)
    if gemm.c.kind == "temp" and private:
        target = _overwritten(gemm.c, loop)
        if target is not None:
            read, written = target
            gemm = replace(gemm, c=loop.operands[written].buffer)
            loop = _in_place(loop, read, written)
    label = f"{gemm.label}_{loop.label}"
    return replace(gemm, epilogue=loop, label=label, nodes=(*gemm.nodes, *loop.nodes))


def _by_rows(gemm: GemmCall, loop: LoopCall) -> LoopCall:
    """An epilogue that walks the product as one axis, as one that walks its rows, so that it can follow blocks of
    columns.
    """
    kernel, rows, columns = loop.kernel, product((*gemm.batch, gemm.m)), gemm.n
    if kernel.roles != "p" or rows == 1 or columns == 1:
        return loop
    operands = [replace(o, strides=(o.strides[0] * columns, o.strides[0])) for o in loop.operands]
    args = tuple(
        replace(a, strides="".join("0" if s == 0 else "1" if s == 1 else "s" for s in o.strides))
        for a, o in zip(kernel.args, operands, strict=True)
    )
    fresh = LoopKernel("pp", args, kernel.stages, kernel.extents, kernel.guards)
    return replace(loop, kernel=fresh, operands=tuple(operands), axes=(rows, columns))


def _overwritten(source: Buffer, loop: LoopCall) -> tuple[int, int] | None:
    """Numbers of the argument that reads ``source``, and of one whose memory the product can be made in: of the same
    form, and only written, no earlier than the source is last read.
    """
    reads = [n for n, o in enumerate(loop.operands) if o.buffer is source]
    if len(reads) != 1:
        return None
    (read,) = reads
    places = [(i.op, i.attr) for i in loop.kernel.instructions()]
    last = max(place for place, found in enumerate(places) if found == ("load", read))
    for number, operand in enumerate(loop.operands):
        buffer, mine = operand.buffer, loop.operands[read]
        alike = (buffer.dtype, operand.strides, operand.offset) == (source.dtype, mine.strides, mine.offset)
        if not alike or buffer.kind not in ("temp", "output") or product(buffer.shape) != product(source.shape):
            continue
        if loop.kernel.args[number].mode == "w" and places.index(("store", number)) > last:
            return read, number
    return None


def _in_place(loop: LoopCall, read: int, written: int) -> LoopCall:
    """The same kernel where one argument is both: two pointers to one address would not vectorise."""
    kernel = loop.kernel
    place = {n: n - (n > written) for n in range(len(kernel.args))} | {written: read - (read > written)}
    args = [replace(a, mode="rw") if n == read else a for n, a in enumerate(kernel.args) if n != written]
    stages = tuple(tuple(_renumbered(i, place) for i in stage) for stage in kernel.stages)
    fresh = LoopKernel(kernel.roles, tuple(args), stages, kernel.extents, kernel.guards, kernel.split)
    operands: list[Operand] = [
        replace(o, buffer=loop.operands[written].buffer) if n == read else o
        for n, o in enumerate(loop.operands)
        if n != written
    ]
    return replace(loop, kernel=fresh, operands=tuple(operands))


def _renumbered(instr: Instr, place: dict[int, int]) -> Instr:
    return replace(instr, attr=place[instr.attr]) if instr.op in ("load", "store") else instr
