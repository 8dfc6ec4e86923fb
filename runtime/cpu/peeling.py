"""Rows of which one element is computed differently: the gradient of a cross entropy, say, less one at the label.

Where a value is selected by whether the index along the row is some place, the loop takes the other value throughout,
without comparing, and the element at that place is computed apart. The values are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from passes.loop_ir import Instr, LoopKernel

Numbered = tuple[int, Instr]


def one_place(kernel: LoopKernel, inner: Sequence[Numbered]) -> int | None:
    """The value that says at which place along the last axis a stage computes something else, if it is one place."""
    if any(instr.op in ("reduce", "guard", "pick") for _, instr in inner):
        return None
    known = dict(inner)
    places = {_place(kernel, known, known.get(instr.args[0])) for instr in known.values() if instr.op == "select"}
    found = places - {None}
    return found.pop() if len(found) == 1 else None


def elsewhere(kernel: LoopKernel, inner: Sequence[Numbered], place: int) -> dict[int, int]:
    """What each select by that place is at all other places: value by value."""
    known = dict(inner)
    return {
        n: instr.args[2]
        for n, instr in inner
        if instr.op == "select" and _place(kernel, known, known.get(instr.args[0])) == place
    }


def _place(kernel: LoopKernel, known: Mapping[int, Instr], condition: Instr | None) -> int | None:
    """The value that the index along the last axis is compared with, if that is the condition."""
    if condition is None or condition.op != "compare" or condition.attr != "eq":
        return None
    last = len(kernel.roles) - 1
    for one, other in (condition.args, condition.args[::-1]):
        index = known.get(one)
        if index is not None and index.op == "index" and index.attr == last and kernel.levels[other] < 2:
            return other
    return None
