"""``step.memory_report()``: how many bytes a run takes and who holds them, known before it runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from graphc.dims import Symbol, evaluate
from graphc.dtypes import DType
from graphc.where import Location
from passes.memory import lifetimes, plan_memory, rounded
from passes.program import Buffer, Call, Program
from passes.reporting import amount, lines_of, places, shape_text, values_text
from passes.waves import Steps

BAR = 40  # characters of the longest bar
ROWS = 40  # of the chart; a longer schedule is drawn in steps of several calls
HOLDERS = 12  # listed in the text
KINDS = {
    "arena": "temporaries, in one arena", "parameter": "parameters", "constant": "constants", "feed": "feeds",
    "output": "fetched arrays",
}  # fmt: skip


@dataclass(frozen=True)
class Holder:
    """A temporary in the arena. It lives from step ``first`` to step ``last``; ``lines`` are those it comes from."""

    name: str
    op: str
    shape: tuple[int, ...]
    dtype: DType
    bytes: int
    offset: int
    first: int
    last: int
    lines: tuple[Location, ...]


@dataclass(frozen=True)
class StepMemory:
    """Bytes of the arena that live during one step of the run: a call, or several small ones together."""

    label: str
    live: int
    lines: tuple[Location, ...]


@dataclass(frozen=True)
class MemoryReport:
    """The memory of one step at known extents.

    ``steps``: what lives during each step. ``temporaries``: everything in the arena, the largest first. ``totals``:
    bytes by kind ("arena", "parameter", "constant", "feed", "output"). ``arena``: the arena's size; ``largest_live``
    is the least it could be. ``scratch``: bytes that its threads need to multiply matrices, which all steps of the
    session share. ``peak`` is the number of the step at which most lives, None without temporaries.
    """

    extents: Mapping[Symbol, int]
    steps: tuple[StepMemory, ...]
    temporaries: tuple[Holder, ...]
    totals: Mapping[str, int]
    arena: int
    largest_live: int
    scratch: int = 0

    @property
    def peak(self) -> int | None:
        """The first step during which most bytes live."""
        if not self.temporaries:
            return None
        return max(range(len(self.steps)), key=lambda i: self.steps[i].live)

    @property
    def at_peak(self) -> tuple[Holder, ...]:
        """What lives in the arena at the peak, the largest first."""
        peak = self.peak
        return () if peak is None else tuple(h for h in self.temporaries if h.first <= peak <= h.last)

    def __str__(self) -> str:
        at = f" at {values_text(self.extents)}" if self.extents else ""
        lines = [f"memory of one run{at}: {amount(sum(self.totals.values()), 'B')}"]
        lines += [f"  {amount(self.totals[kind], 'B'):>9}  {what}" for kind, what in KINDS.items()]
        if self.scratch:
            size = amount(self.scratch, "B")
            lines.append(f"and {size} of scratch memory for the session's threads, which all its steps share")
        if self.temporaries:
            lines += ["", *self._chart(), "", *self._peak_text()]
        return "\n".join(lines)

    def _chart(self) -> list[str]:
        step = -(-len(self.steps) // ROWS)
        found = ["live in the arena during each step"]
        if step > 1:
            found[0] += f" (the most of every {step})"
        for start in range(0, len(self.steps), step):
            group = self.steps[start : start + step]
            top = max(group, key=lambda c: c.live)
            bar = "#" * round(BAR * top.live / max(self.largest_live, 1))
            number = str(start) if step == 1 else f"{start}-{start + len(group) - 1}"
            mark = " < peak" if start <= (self.peak or 0) < start + step else ""
            found.append(f"  {number:>9}  {_cut(top.label, 26):<26}  {amount(top.live, 'B'):>9}  {bar}{mark}".rstrip())
        return found

    def _peak_text(self) -> list[str]:
        peak = self.peak
        assert peak is not None
        over = 100 * (self.arena / self.largest_live - 1)
        excess = f"{over:.0f}% more" if over >= 0.5 else "no more"
        call = self.steps[peak]
        found = [
            f"peak at step {peak} ({_cut(call.label, 40)}): {amount(call.live, 'B')}; the arena has "
            f"{amount(self.arena, 'B')}, {excess} than must live",
        ]
        held = self.at_peak
        for holder in held[:HOLDERS]:
            what = f"{holder.name} {holder.dtype}{shape_text(holder.shape)}"
            found.append(f"  {amount(holder.bytes, 'B'):>9}  {_cut(what, 44):<44}  {_cut(places(holder.lines), 58)}")
        if len(held) > HOLDERS:
            rest = sum(h.bytes for h in held[HOLDERS:])
            found.append(f"  {amount(rest, 'B'):>9}  in {len(held) - HOLDERS} more")
        return found


def memory_report(
    program: Program, values: Mapping[Symbol, int], sizes: Mapping[int, int], steps: Steps, scratch: int = 0
) -> MemoryReport:
    """The report of ``program`` at extents ``values``; ``sizes`` are the bytes of its buffers by id, and ``steps`` its
    calls in the order of a run, on its device; ``scratch`` the bytes of its threads.
    """
    plan = plan_memory(program, sizes, steps)
    spans = lifetimes(program.calls, steps)
    grouped = [[program.calls[i] for i in step] for step in steps]
    temporaries = [_holder(b, span, grouped, values, sizes, plan.offsets) for b, span in spans.items()]
    totals = dict.fromkeys(KINDS, 0) | {"arena": plan.size}
    for buffer in program.buffers:
        if buffer.kind in totals:
            totals[buffer.kind] += sizes[buffer.id]
    return MemoryReport(
        dict(values), _live(grouped, spans, sizes), tuple(sorted(temporaries, key=lambda h: -h.bytes)), totals,
        plan.size, plan.largest_live, scratch,
    )  # fmt: skip


def _live(
    steps: Sequence[Sequence[Call]], spans: Mapping[Buffer, tuple[int, int]], sizes: Mapping[int, int]
) -> tuple[StepMemory, ...]:
    change = [0] * (len(steps) + 1)
    for buffer, (first, last) in spans.items():
        change[first] += rounded(sizes[buffer.id])
        change[last + 1] -= rounded(sizes[buffer.id])
    found, live = [], 0
    for calls, delta in zip(steps, change, strict=False):
        live += delta
        label = calls[0].label if len(calls) == 1 else f"{len(calls)} small calls, {calls[0].label}"
        found.append(StepMemory(label, live, lines_of([n for call in calls for n in call.nodes])))
    return tuple(found)


def _holder(
    buffer: Buffer, span: tuple[int, int], steps: Sequence[Sequence[Call]], values: Mapping[Symbol, int],
    sizes: Mapping[int, int], offsets: Mapping[int, int],
) -> Holder:  # fmt: skip
    shape = tuple(evaluate(e, values) for e in buffer.shape)
    writer = next(call for call in steps[span[0]] if buffer in call.writes)
    name, op, lines = "copy", writer.label, lines_of(writer.nodes)
    if buffer.tensor is not None:
        node = buffer.tensor.node
        name, op, lines = node.name or node.op.name, node.op.name, lines_of([node])
    if buffer.kind == "partial":
        name = f"parts of {name}"
        one = max(1, _size(shape) * buffer.dtype.itemsize)
        shape = (sizes[buffer.id] // one, *shape)  # one slice for each split
    return Holder(name, op, shape, buffer.dtype, rounded(sizes[buffer.id]), offsets[buffer.id], *span, lines)


def _size(shape: Iterable[int]) -> int:
    total = 1
    for extent in shape:
        total *= extent
    return total


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."
