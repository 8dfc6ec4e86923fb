"""How instructions of a loop kernel are written in Numba, at given places of its loops."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from graphc.dtypes import DType
from passes.loop_ir import Instr, LoopKernel
from runtime.cpu import scalars
from runtime.cpu.layout import layout_of
from runtime.cpu.streaming import streamed
from runtime.cpu.tiling import WIDE, tiled


class InstructionPrinter:
    """Lines of a kernel's source. ``indices`` say, by axis, the expression of the present place along it."""

    def __init__(self, kernel: LoopKernel) -> None:
        self.kernel = kernel
        self.layout = layout_of(kernel)
        self.lines: list[str] = []
        self.depth = 0
        self.levels = kernel.levels
        self.dtypes: dict[int, DType] = {n: i.dtype for stage in kernel.numbered for n, i in stage}
        self.hoisted: set[int] = set()
        self.read: dict[int, str] = {}  # the lanes that arguments are read from, in the loop that is being written,
        self.written: dict[int, str] = {}  # and written to, if not at their places
        self.known: dict[int, int] = {}  # values that are equal to others, in the loop that is being written
        roles = kernel.roles
        self.columns = roles.endswith("p")
        self.outer = [a for a, r in enumerate(roles) if r == "p"]
        if self.columns:
            self.outer.pop()
        self.reduced = [a for a, r in enumerate(roles) if r == "r"]
        self.last = len(roles) - 1
        self.streamed = streamed(kernel)
        self.tiled = tiled(kernel)

    def line(self, text: str) -> None:
        self.lines.append("    " * self.depth + text)

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        self.line(head)
        self.depth += 1
        before = len(self.lines)
        yield
        if len(self.lines) == before:
            self.line("pass")
        self.depth -= 1

    def _reductions(self) -> list[tuple[int, Instr]]:
        return [(n, i) for stage in self.kernel.numbered for n, i in stage if i.op == "reduce"]

    def _totals(self, *, single: bool) -> list[int]:
        """Arguments that a block adds to, those of one element or those of a row of them."""
        args = enumerate(self.kernel.args)
        return [n for n, a in args if a.combine and (set(a.strides) == {"0"}) == single]

    def _add_to_total(self, number: int, value: str, indices: dict[int, str]) -> None:
        arg = self.kernel.args[number]
        single = number in self._totals(single=True)
        total = f"t{number}" if single else "{}[{}]".format(*self._place(number, indices))
        target = f"{self.written[number]}[l]" if number in self.written else total
        self.line(f"{target} = {scalars.accumulate(arg.combine, total, value, arg.dtype)}")

    def _decompose(self, flat: str, axes: Sequence[int]) -> dict[int, str]:
        """Index along each of ``axes``, from a flat index over them."""
        if len(axes) == 1:
            return {axes[0]: flat}
        rest = flat
        found: dict[int, str] = {}
        for axis in reversed(axes[1:]):
            self.line(f"{flat}_q{axis} = {rest} // n{axis}")
            self.line(f"i{axis} = {rest} - {flat}_q{axis} * n{axis}")
            rest, found[axis] = f"{flat}_q{axis}", f"i{axis}"
        found[axes[0]] = rest
        return found

    def _instructions(self, instrs: Sequence[tuple[int, Instr]], indices: dict[int, str]) -> None:
        for number, instr in instrs:
            if instr.op != "reduce" and number not in self.hoisted:
                self._instruction(number, instr, indices)

    def _instruction(self, number: int, instr: Instr, indices: dict[int, str]) -> None:
        args = [self._operand(a) for a in instr.args]
        if number in self.known:
            text = self._operand(self.known[number])
        elif instr.op == "load":
            pointer, place = self._place(instr.attr, indices)
            text = scalars.load(pointer, args[0] if args else place, instr.dtype)
            if len(args) == 2:  # a branch: what the mask excludes must not be read
                text = f"({text}) if {args[1]} else {scalars.zero(instr.dtype)}"
        elif instr.op == "store" and self.kernel.args[instr.attr].combine:
            self._add_to_total(instr.attr, args[0], indices)
            return
        elif instr.op == "store":
            pointer, place = self._place(instr.attr, indices)
            target = f"{self.written[instr.attr]}[l]" if instr.attr in self.written else f"{pointer}[{place}]"
            self.line(f"{target} = {scalars.stored(args[0], instr.dtype)}")
            return
        elif instr.op == "pick":
            self._pick(number, instr, indices)
            return
        elif instr.op == "guard":
            self.line(f"bad{instr.attr} = bad{instr.attr} | int64({args[0]})")
            return
        elif instr.op == "index":
            text = f"int64({indices[instr.attr]})"
        elif instr.op == "extent":
            text = f"e{instr.attr}"
        else:
            text = scalars.expression(instr, args, [self.dtypes[a] for a in instr.args])
        self.line(f"v{number} = {text}")

    def _pick(self, number: int, instr: Instr, indices: dict[int, str]) -> None:
        """A value of the row at one place, as if summed with zeros; 0 where the place is not in the range."""
        value, place = instr.args
        self.line(f"v{number} = {scalars.zero(instr.dtype)}")
        with self.block(f"if r_lo <= v{place} and v{place} < r_hi:"):
            needed = {value}
            known = [pair for stage in self.kernel.numbered for pair in stage if pair[0] <= value]
            for n, i in reversed(known):
                if n in needed and self.levels[n] == 2:
                    needed.update(i.args)
            cone = [(n, i) for n, i in known if n in needed and self.levels[n] == 2]
            self._instructions(cone, {**indices, self.last: f"v{place}"})
            self.line(f"v{number} = v{number} + v{value}")

    def _operand(self, value: int) -> str:
        """A value by name; a column's sum is read from where it was summed."""
        if self.columns and any(n == value for n, _ in self._reductions()):
            return scalars.accumulated(f"acc{value}[j - c_lo]", self.dtypes[value])
        return f"v{value}"

    def _place(self, number: int, indices: dict[int, str]) -> tuple[str, str]:
        """Pointer and index of an argument's element."""
        if number in self.read:
            return self.read[number], "l"
        if number in self.tiled:
            return f"tile{number}", f"r * {WIDE} + {indices[self.last]} - c_tile"
        if number in self.streamed:
            return f"o{number}", f"{indices[self.last]} - strip"
        return f"p{number}", self._offset(number, indices)

    def _offset(self, number: int, indices: dict[int, str]) -> str:
        """Index of an argument's element, in elements from its address."""
        terms: list[str] = []
        for axis, kind in enumerate(self.kernel.args[number].strides):
            if kind == "1":
                terms.append(indices[axis])
            elif kind == "s":
                terms.append(f"{indices[axis]} * s{number}_{axis}")
        if self.kernel.args[number].per_split:
            terms.append(f"row_block * s{number}_split")
        return " + ".join(terms) or "0"
