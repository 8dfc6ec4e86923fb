"""Loops along a row: the innermost axis of a kernel.

A reduction along it goes into ``LANES`` partial sums, element ``j`` into lane ``j % LANES``, which are then added in a
fixed tree. Each round over whole lanes is a loop with a constant count, which LLVM unrolls, so that the lanes are
registers from end to end of the row. For that, nothing should be written through a pointer there: LLVM would ask, round
by round, whether it is to where others read. What a stage stores to consecutive places goes to a buffer on the stack,
and from there to its place after each round; once the loop is unrolled, the buffer is registers, too. What is left of
the row is padded to whole vectors, so that rows of ten are no loop over single elements.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from passes.loop_ir import Instr
from runtime.cpu import scalars
from runtime.cpu.costs import cost_of, is_straight
from runtime.cpu.instructions import InstructionPrinter
from runtime.cpu.peeling import elsewhere, one_place
from runtime.cpu.scalars import LANES, VECTOR
from runtime.cpu.streaming import CHEAP, STRIP

Instrs = Sequence[tuple[int, Instr]]  # with their value numbers


class RowPrinter(InstructionPrinter):
    """The loops along a row, ``r_lo`` to ``r_hi`` or what else they are told."""

    def _walk_row(self, inner: Instrs, reductions: Instrs, outer: dict[int, str]) -> None:
        """The reduced axes of one row: a plain loop, or one that feeds the lanes of its reductions."""
        for number, instr in reductions:
            self.line(f"fill_lanes(acc{number}, {scalars.identity(instr.attr, instr.dtype)}, {LANES})")
        leading = self.reduced[:-1]
        along = self._in_lanes if reductions else self._elementwise
        if leading:
            with self.block("for q in range(q_lo, q_hi):"):
                along(inner, reductions, {**outer, **self._decompose("q", leading)})
        else:
            along(inner, reductions, outer)
        for number, instr in reductions:
            combined = f"combine_lanes_{scalars.combining(instr.attr)}(acc{number}, {LANES})"
            self.line(f"v{number} = {scalars.accumulated(combined, instr.dtype)}")

    def _elementwise(self, inner: Instrs, _: Instrs, indices: dict[int, str]) -> None:
        place = one_place(self.kernel, inner)
        stored = {i.attr for _, i in inner if i.op == "store"}
        if place is None or any(n in self.streamed or self.kernel.args[n].combine for n in stored):
            self._along(inner, "r_lo", "r_hi", indices)
        else:
            self._peeled(inner, place, indices)

    def _in_lanes(self, inner: Instrs, reductions: Instrs, indices: dict[int, str]) -> None:
        with self._strips(inner, "r_lo", "r_hi", indices) as (first, end):
            self._whole_lanes(inner, reductions, indices, first, end)
            if self._can_be_padded(inner):
                self._padded(inner, reductions, indices, end)
                return
            with self.block(f"for l in range({end} - rest):"):
                self._one(inner, reductions, indices, "rest + l")

    def _whole_lanes(self, inner: Instrs, reductions: Instrs, indices: dict[int, str], first: str, end: str) -> None:
        """All whole lanes of the range, which goes on at ``rest``."""
        held = self._held(inner)
        self.line(f"rest = {first} + ({end} - {first}) // {LANES} * {LANES}")
        self._buffers({f"out{n}": i.attr for n, i in held.items()})
        with self.block(f"for base in range({first}, rest, {LANES}):"):
            with self.block(f"for l in range({LANES}):"), self._through({i.attr: f"out{n}" for n, i in held.items()}):
                self._one(inner, reductions, indices, "base + l")
            for n, instr in held.items():
                self.line(f"copy_lanes({self._pointer(instr.attr, indices, 'base')}, out{n}, {LANES})")

    def _padded(self, inner: Instrs, reductions: Instrs, indices: dict[int, str], end: str) -> None:
        """What is left of the range, less than one for each lane: copied to buffers on the stack, computed in whole
        vectors there, and copied back. Sums of lanes beyond the range stay what they are.
        """
        held = self._held(inner)
        totals = {i.attr for i in held.values() if self.kernel.args[i.attr].combine}
        near = sorted(totals.union(i.attr for _, i in inner if i.op == "load" and self._goes_along(i.attr)))
        self.line(f"count = {end} - rest")
        with self.block("if count > 0:"):
            self._buffers({f"near{n}": n for n in near} | {f"far{n}": i.attr for n, i in held.items()})
            for n in near:
                self.line(f"load_first_lanes(near{n}, {self._pointer(n, indices, 'rest')}, count, {LANES})")
            # All lanes, when that costs little, need no loop once it is unrolled.
            cheap = sum(cost_of(i) for n, i in inner if self.levels[n] == 2) <= CHEAP
            lanes = f"{LANES}" if cheap else f"(count + {VECTOR - 1}) // {VECTOR} * {VECTOR}"
            written = {i.attr: f"far{n}" for n, i in held.items()}
            with self.block(f"for l in range({lanes}):"), self._through(written, {n: f"near{n}" for n in near}):
                self._one(inner, reductions, indices, "rest + l", "l < count")
            for n, instr in held.items():
                place = self._pointer(instr.attr, indices, "rest")
                self.line(f"copy_first_lanes({place}, far{n}, count, {LANES})")

    def _buffers(self, wanted: dict[str, int]) -> None:
        """Lanes on the stack, of the types of arguments, by name."""
        for name, number in wanted.items():
            dtype = self.kernel.args[number].dtype
            self.line(f"{name} = stack({scalars.stored(scalars.zero(dtype), dtype)}, {LANES})")

    @contextmanager
    def _through(self, written: dict[int, str], read: dict[int, str] | None = None) -> Iterator[None]:
        """Arguments are written to and read from lanes instead of their places."""
        self.written, self.read = written, read or {}
        yield
        self.written, self.read = {}, {}

    def _pointer(self, number: int, indices: dict[int, str], place: str) -> str:
        """Where an argument has its element at ``place`` along the row."""
        return "advanced({}, {})".format(*self._place(number, {**indices, self.last: place}))

    def _goes_along(self, number: int) -> bool:
        return self.kernel.args[number].strides.endswith("1")

    def _can_be_padded(self, inner: Instrs) -> bool:
        """Whether a stage can be computed for elements that are not there, and at no great cost: it reads and writes
        only what lies one after the other, or what is the same along the row, reports nothing, and is straight-line.
        """
        stores = sum(instr.op == "store" for _, instr in inner)
        loads = [instr for _, instr in inner if instr.op == "load"]
        near = all(not i.args and not self.kernel.args[i.attr].strides.endswith("s") for i in loads)
        simple = all(instr.op != "guard" and is_straight(instr) for _, instr in inner)
        return near and simple and stores == len(self._held(inner))

    def _held(self, inner: Instrs) -> dict[int, Instr]:
        """The stores of a stage that can wait for the others of their lanes: to consecutive places, through arguments
        that the stage does not touch again. Nor does it read there through other arguments: a buffer that is
        overwritten in place was read before, at the same place or in another stage.
        """
        found: dict[int, Instr] = {}
        for n, instr in inner:
            if instr.op in ("load", "store"):
                found = {m: one for m, one in found.items() if one.attr != instr.attr}
            if instr.op == "store" and self._goes_along(instr.attr):
                found[n] = instr
        return found

    def _one(self, inner: Instrs, reductions: Instrs, indices: dict[int, str], place: str, condition: str = "") -> None:
        """What is done with the element at ``place``, in lane ``l``; it counts if the condition holds."""
        self.line(f"j = {place}")
        self._instructions(inner, {**indices, self.last: "j"})
        self._accumulate(reductions, condition)

    def _accumulate(self, reductions: Instrs, condition: str = "") -> None:
        for number, instr in reductions:
            total = f"acc{number}[l]"
            value = scalars.accumulate(instr.attr, total, f"v{instr.args[0]}", instr.dtype)
            self.line(f"{total} = {f'select({condition}, {value}, {total})' if condition else value}")

    def _along(self, inner: Instrs, lo: str, hi: str, indices: dict[int, str]) -> None:
        with self._strips(inner, lo, hi, indices) as (first, end), self.block(f"for j in range({first}, {end}):"):
            self._instructions(inner, {**indices, self.last: "j"})

    def _peeled(self, inner: Instrs, place: int, indices: dict[int, str]) -> None:
        """A row with one place that differs (peeling.py): its element is computed before the row, which may overwrite
        what it is made of, and written after it.
        """
        stores = [(n, i) for n, i in inner if i.op == "store"]
        there, inside = {**indices, self.last: f"v{place}"}, f"if r_lo <= v{place} and v{place} < r_hi:"
        for n, instr in stores:
            self.line(f"one{n} = {scalars.zero(instr.dtype)}")
        with self.block(inside):
            self._instructions([(n, i) for n, i in inner if i.op != "store"], there)
            for n, instr in stores:
                self.line(f"one{n} = {self._operand(instr.args[0])}")
        self.known = elsewhere(self.kernel, inner, place)
        self._along(inner, "r_lo", "r_hi", indices)
        self.known = {}
        with self.block(inside):
            for n, instr in stores:
                pointer, index = self._place(instr.attr, there)
                self.line(f"{pointer}[{index}] = {scalars.stored(f'one{n}', instr.dtype)}")

    @contextmanager
    def _strips(self, stage: Instrs, lo: str, hi: str, indices: dict[int, str]) -> Iterator[tuple[str, str]]:
        """The range ``lo`` to ``hi`` of the last axis; in strips where the stage stores what may be written past the
        cache: into memory, or into a buffer that is flushed after each strip.
        """
        stored = sorted({i.attr for _, i in stage if i.op == "store" and i.attr in self.streamed})
        if not stored:
            yield lo, hi
            return
        size = {n: self.kernel.args[n].dtype.itemsize for n in stored}
        with self.block(f"for strip in range({lo}, {hi}, {STRIP}):"):
            self.line(f"strip_end = min(strip + {STRIP}, {hi})")
            for n in stored:
                offset = self._offset(n, {**indices, self.last: "strip"})
                self.line(f"d{n} = w[{self.layout.address[n]}] + ({offset}) * {size[n]}")
                element = scalars.storage(self.kernel.args[n].dtype)
                self.line(f"o{n} = ptr_{element}(select(f{n} != 0, b{n}, d{n}))")
            yield "strip", "strip_end"
            for n in stored:
                with self.block(f"if f{n} != 0:"):
                    self.line(f"call_kernel(f{n}, d{n}, b{n}, 0, (strip_end - strip) * {size[n]})")
